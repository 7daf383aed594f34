//! Every way to write where one Redis is and as whom: the socket, the user, the password and the
//! database.

use redis::cmd;

use super::takes_jobs;
use testkit::hookgate::{check, check_connect};
use testkit::node::{self, Worker};
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, Config, Redis};

/// With every character that has a meaning in an address.
const PASSWORD: &str = "p@ss/w:rd?#1% &+é";
const ENCODED: &str = "p%40ss%2Fw:rd%3F%231%25%20&+%C3%A9";

#[tokio::test]
async fn a_unix_socket_gets_the_jobs_of_a_user_in_its_database() {
    let directory = Scratch::new("socket");
    let socket = directory.join("redis.sock").to_str().expect("a path in UTF-8").to_owned();
    let redis = Redis::start_with(&["--unixsocket", &socket]).await.in_database(3);
    let () = redis.query(cmd("ACL").arg(&user(PASSWORD))).await;
    let app = App::build().redis(redis);
    let app = app.redis_address(&format!("unix://some:{ENCODED}@{socket}?db=3")).start().await;
    takes_jobs(&app, "bull").await;
    assert!(
        app.hookgate.log().contains(&format!("server=\"unix:{socket}\"")),
        "{}",
        app.hookgate.log()
    );
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["redis"]["server"]), (0, &format!("unix:{socket}").into()));

    let worker = Worker::start(&app.redis, "workflow-runner", &[]).await;
    node::idle(&app.redis, "workflow-runner").await;
    assert_eq!(worker.close().await.completed.len(), 2);

    // A changed password is a reason, which names the socket and not the password.
    let () = app.redis.query(cmd("ACL").arg(&["DELUSER", "some"])).await;
    until("the password is refused", async || {
        app.hookgate.readiness().await.1.to_string().contains("WRONGPASS")
    })
    .await;
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["redis"]["server"]), (1, &format!("unix:{socket}").into()));
}

#[tokio::test]
async fn a_missing_socket_is_reported_until_redis_has_made_it() {
    let directory = Scratch::new("socket");
    let socket = directory.join("redis.sock").to_str().expect("a path in UTF-8").to_owned();
    let app = App::build().redis_address(&format!("unix://{socket}")).start_unready().await;
    until("the reason is given", async || {
        app.hookgate.readiness().await.1.to_string().contains("No such file or directory")
    })
    .await;
    let _redis = Redis::start_with(&["--unixsocket", &socket]).await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn one_database_has_several_spellings() {
    let mut redis = Redis::start().await.in_database(5);
    let () = redis.query(cmd("ACL").arg(&user(PASSWORD))).await;
    let host = format!("127.0.0.1:{}", redis.port());
    let mut accepted = 0;
    for address in [
        format!("redis://{host}/5"),
        format!("redis://{host}?db=5"),
        format!("redis://{host}/5?db=5&family=0"),
        format!("valkey://some:{ENCODED}@{host}/?db=5"),
    ] {
        let app = App::build().redis(redis).redis_address(&address).start().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{address}");
        accepted += 1;
        assert_eq!(app.redis.queue().waiting_ids().await.len(), accepted, "{address}");
        App { redis, .. } = app;
    }
}

#[tokio::test]
async fn ignored_and_refused_options_of_an_address_are_named() {
    let report = async |address: &str| {
        let mut config = Config::new();
        config.set("queue.redis", address).set("triggers.file", "config/workflows.json");
        let output = check(&config, &["--json"]).await;
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(!text.contains("pa55word"), "{address}: {text}");
        (output.status.code(), text)
    };
    let (code, text) = report("redis://:pa55word@127.0.0.1?timeout=5&client_name=pa55word").await;
    assert_eq!(code, Some(0), "{text}");
    for name in ["timeout", "client_name"] {
        assert!(text.contains(&format!("queue.redis: {name} is ignored")), "{text}");
    }
    for (address, fault) in [
        ("redis://:pa55word@127.0.0.1?dbs=pa55word", "has an unknown option: dbs"),
        ("redis://127.0.0.1?password=pa55word", "password is not supported"),
        ("rediss://127.0.0.1?ssl_ca_certs=pa55word", "set ca_file in [queue.tls]"),
        ("redis://127.0.0.1/1?db=2", "one database after the host and another in ?db="),
        ("redis-cluster://127.0.0.1/1", "a cluster has only database 0"),
    ] {
        let (code, text) = report(address).await;
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(fault), "{address}: {text}");
    }
}

/// The command of a user with every right.
fn user(password: &str) -> [String; 7] {
    let password = format!(">{password}");
    ["SETUSER", "some", "on", &password, "~*", "&*", "+@all"].map(str::to_owned)
}
