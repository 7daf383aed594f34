//! Sentinel with a user of its own and over TLS, Sentinels that are silent, and primaries that have a
//! successor and do not know it. Failovers are tested elsewhere.

use redis::cmd;

use super::takes_jobs;
use testkit::hookgate::check_connect;
use testkit::sentinel::{Access, Sentinel};
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config, Redis};

const OF_REDIS: &str = "pa55word-of-redis";
const OF_SENTINEL: &str = "pa55word-of-sentinel";

/// A Redis with the user `some`, which its Sentinel does not need.
async fn primary(authority: &Authority) -> (Redis, u16) {
    let (redis, port) = Redis::start_tls(authority, "yes").await;
    let password = format!(">{OF_REDIS}");
    let user = ["SETUSER", "some", "on", &password, "~*", "&*", "+@all"];
    let () = redis.query(cmd("ACL").arg(&user)).await;
    (redis, port)
}

fn with_files_of(authority: &Authority, config: &mut Config) {
    config
        .set("queue.tls.ca_file", authority.authority_file())
        .set("queue.tls.cert_file", authority.certificate_file())
        .set("queue.tls.key_file", authority.key_file());
}

#[tokio::test]
async fn sentinel_has_its_own_user_and_tls() {
    let authority = Authority::new();
    let (redis, tls_port) = primary(&authority).await;
    let user = Some(("watcher", OF_SENTINEL));
    let access = Access { user, tls: Some((&authority, tls_port)) };
    let sentinel = Sentinel::start_with(&redis, 0, access).await;
    let options = format!(
        "sentinelServiceName=main&sentinelUsername=watcher&sentinelPassword={OF_SENTINEL}&node=127.0.0.1:{}",
        sentinel.tls_port()
    );
    // The first Sentinel of the address does not exist.
    let address = format!(
        "rediss-sentinel://some:{OF_REDIS}@127.0.0.1:{}/0?{options}",
        testkit::ports::free()
    );
    let app = App::build().redis(redis).redis_address(&address);
    let app = app.config(|config| with_files_of(&authority, config)).start().await;
    takes_jobs(&app, "bull").await;
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!(code, 0, "{report}");
    let server = format!("127.0.0.1:{tls_port}");
    assert_eq!(report["redis"]["server"], server.as_str(), "{report}");
}

/// A machine that is gone does not even refuse connections.
#[tokio::test]
async fn a_silent_sentinel_does_not_hide_the_others() {
    let (primary, successor) = (Redis::start().await, Redis::start().await);
    let sentinel = Sentinel::start(&primary, 0).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address").port();
    let address = format!(
        "redis-sentinel://127.0.0.1:{silent}/0?sentinelServiceName=main&node=127.0.0.1:{}",
        sentinel.port()
    );
    let app = App::build().redis(primary).redis_address(&address).start().await;
    takes_jobs(&app, "bull").await;
    sentinel.name_primary(&successor).await;
    app.redis.kill9().await;
    until("the successor has a job", async || app.webhook("wh_1").send().await.status == 202).await;
    successor.queue().only_job().await;
}

/// The Sentinels do not reach the old primary, and callers do.
#[tokio::test]
async fn a_primary_that_refuses_jobs_is_left_for_its_successor() {
    let (primary, successor) = (Redis::start().await, Redis::start().await);
    let sentinel = Sentinel::start(&primary, 0).await;
    let app = App::build().redis(primary).redis_address(&sentinel.url()).start().await;
    takes_jobs(&app, "bull").await;
    sentinel.name_primary(&successor).await;
    // It has lost its replicas to the successor.
    let set = ["SET", "min-replicas-to-write", "1"];
    let () = app.redis.query(cmd("CONFIG").arg(&set)).await;
    until("the successor has a job", async || app.webhook("wh_1").send().await.status == 202).await;
    successor.queue().only_job().await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn a_refusal_by_sentinel_has_its_reason() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (mut redis, tls_port) = primary(&authority).await;
    let user = Some(("watcher", OF_SENTINEL));
    let access = Access { user, tls: Some((&authority, tls_port)) };
    let sentinel = Sentinel::start_with(&redis, 0, access).await;
    let (plain, tls) = (sentinel.port(), sentinel.tls_port());
    let login = format!("sentinelUsername=watcher&sentinelPassword={OF_SENTINEL}");
    let at = |scheme: &str, port: u16, options: &str| {
        format!("{scheme}://some:{OF_REDIS}@127.0.0.1:{port}?{options}")
    };
    let main = "sentinelServiceName=main";
    for (address, trusted, sentinel, reason) in [
        (at("redis-sentinel", plain, main), None, Some(plain), "NOAUTH"),
        (at("redis-sentinel", plain, &format!("{main}&{login}x")), None, Some(plain), "WRONGPASS"),
        (
            at("redis-sentinel", plain, &format!("sentinelServiceName=other&{login}")),
            None,
            Some(plain),
            "knows no primary",
        ),
        (
            at("rediss-sentinel", tls, &format!("{main}&{login}")),
            Some(&other),
            Some(tls),
            "not signed by a trusted authority",
        ),
        // Sentinel answers, and Redis does not.
        (
            at("rediss-sentinel", tls, &format!("{main}&{login}")).replace(OF_REDIS, "0ther-pa55"),
            Some(&authority),
            None,
            "WRONGPASS",
        ),
    ] {
        let app = App::build().redis(redis).redis_address(&address).config(|config| {
            if let Some(trusted) = trusted {
                with_files_of(&authority, config);
                config.set("queue.tls.ca_file", trusted.authority_file());
            }
        });
        let app = app.start_unready().await;
        let who = sentinel.map_or(String::new(), |port| format!("Sentinel 127.0.0.1:{port}: "));
        until(&format!("{who}{reason} is given"), async || {
            let report = app.hookgate.readiness().await.1["reasons"].to_string();
            report.contains(&who) && report.contains(reason)
        })
        .await;
        let (code, report) = check_connect(&app.hookgate.config).await;
        let faults = report["redis"]["faults"].to_string();
        assert!(code == 1 && faults.contains(&who) && faults.contains(reason), "{report}");
        App { redis, .. } = app;
    }
}
