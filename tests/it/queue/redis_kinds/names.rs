//! The name of Hookgate's connections in CLIENT LIST.

use redis::cmd;

use super::takes_jobs;
use testkit::hookgate::check_connect;
use testkit::redis::documented_rights;
use testkit::sentinel::Sentinel;
use testkit::wait::until;
use testkit::{App, Redis};

const NAME: &str = "hookgate";
const PASSWORD: &str = "pa55word-of-redis";

/// The names of the connections of this user.
async fn names(redis: &Redis, user: &str) -> Vec<String> {
    let list: String = redis.query(cmd("CLIENT").arg("LIST")).await;
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ');
        fields.find_map(|field| field.strip_prefix(name).map(str::to_owned)).unwrap_or_default()
    };
    let lines = list.lines().filter(|line| field(line, "user=") == user);
    lines.map(|line| field(line, "name=")).collect()
}

async fn named(redis: &Redis) -> usize {
    names(redis, "default").await.iter().filter(|name| *name == NAME).count()
}

#[tokio::test]
async fn each_connection_has_a_name() {
    let app = App::with(|config| {
        config.set("queue.connections", 2);
    })
    .await;
    assert_eq!(named(&app.redis).await, 2);
    let () = app.redis.query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal"])).await;
    until("the next connections have it too", async || named(&app.redis).await == 2).await;
}

#[tokio::test]
async fn a_user_without_the_right_adds_jobs_without_a_name() {
    let all = documented_rights();
    for (rights, name) in [(all.clone(), NAME), (all.replace("+client|setname ", ""), "")] {
        let redis = Redis::start_durable().await;
        let address = redis.allow(PASSWORD, &rights).await;
        let app = App::build().redis(redis).redis_address(&address).start().await;
        takes_jobs(&app, "bull").await;
        assert_eq!(names(&app.redis, "some").await, [name]);
        let (code, report) = check_connect(&app.hookgate.config).await;
        assert_eq!((code, &report["redis"]["missing_rights"]), (0, &serde_json::json!([])));
        let (_, readiness) = app.hookgate.readiness().await;
        assert!(!readiness.to_string().contains("client"), "{readiness}");
    }
}

#[tokio::test]
async fn a_connection_to_a_cluster_and_behind_sentinel_has_a_name() {
    let (first, second) = Redis::start_cluster("{bull}").await;
    let address = format!("redis-cluster://127.0.0.1:{}", first.port());
    let app = App::build().redis(second).redis_address(&address).config(|config| {
        config.set("queue.prefix", "{bull}");
    });
    let app = app.start().await;
    assert_eq!(named(&app.redis).await, 1);

    let redis = Redis::start().await;
    let sentinel = Sentinel::start(&redis, 0).await;
    let app = App::build().redis(redis).redis_address(&sentinel.url()).start().await;
    assert_eq!(named(&app.redis).await, 1);
}
