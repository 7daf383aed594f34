//! The name of the connections in CLIENT LIST, on every kind of server, and without the right to it.

use redis::cmd;

use super::takes_jobs;
use testkit::redis::documented_rights;
use testkit::sentinel::Sentinel;
use testkit::wait::until;
use testkit::{App, Redis};
use toml::Table;

#[tokio::test]
async fn connections_have_a_name() {
    let app = App::start().await;
    takes_jobs(&app, "bull").await;
    assert!(named(&app.redis).await > 0);
}

#[tokio::test]
async fn connections_that_sentinel_finds_have_a_name() {
    let redis = Redis::start().await;
    let sentinel = Sentinel::start(&redis, 0).await;
    let app = App::build().redis(redis).redis_address(&sentinel.url()).start().await;
    takes_jobs(&app, "bull").await;
    assert!(named(&app.redis).await > 0);
}

#[tokio::test]
async fn connections_to_the_node_of_a_slot_have_a_name() {
    let (first, second) = Redis::start_cluster("{bull}").await;
    let address = format!("redis-cluster://127.0.0.1:{}", first.port());
    let app = App::build().redis(second).redis_address(&address).config(|config| {
        config.set("queue.prefix", "{bull}");
    });
    let app = app.start().await;
    takes_jobs(&app, "{bull}").await;
    assert!(named(&app.redis).await > 0);
}

#[tokio::test]
async fn connections_to_each_shard_have_a_name() {
    let (redis, second) = (Redis::start().await, Redis::start().await);
    let shard = |(name, redis): (&str, &Redis)| {
        Table::from_iter([
            ("name".to_owned(), name.into()),
            ("redis".to_owned(), redis.url().into()),
        ])
    };
    let shards: Vec<Table> = [("first", &redis), ("second", &second)].map(shard).into();
    let app = App::build().redis(redis).config(|config| {
        config.set("queue.shards", shards);
    });
    let app = app.start().await;
    until("both servers have named connections", async || {
        named(&app.redis).await > 0 && named(&second).await > 0
    })
    .await;
}

#[tokio::test]
async fn a_user_without_the_right_to_a_name_adds_jobs() {
    let redis = Redis::start().await;
    let rights = documented_rights().replace(" +client|setname", "");
    let address = redis.allow("secret", &rights).await;
    let app = App::build().redis(redis).redis_address(&address).start().await;
    takes_jobs(&app, "bull").await;
    assert_eq!(named(&app.redis).await, 0);
}

/// The number of connections that are named.
async fn named(redis: &Redis) -> usize {
    let clients: String = redis.query(cmd("CLIENT").arg("LIST")).await;
    clients.lines().filter(|client| client.contains(" name=hookgate ")).count()
}
