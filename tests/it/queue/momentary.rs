//! Refusals by Redis that pass are retried for as long as a request may wait: slots that move, a
//! cluster that is down, data that is loading, a server that is no primary for a moment.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::time::Duration;

use redis::cmd;
use testkit::http::Reply;
use testkit::wait::until;
use testkit::{App, Redis, ports};
use tokio::task::JoinSet;

const PREFIX: &str = "{bull}";

#[tokio::test]
async fn a_moving_slot_is_waited_for_and_followed() {
    let (first, second) = Redis::start_cluster(PREFIX).await;
    let slot = slot(&first).await;
    let (app, from) = (app(&first, second).await, "second");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{from}");
    let ids = [node_id(&first).await, node_id(&app.redis).await];
    set_slot(&first, &slot, &["IMPORTING", &ids[1]]).await;
    set_slot(&app.redis, &slot, &["MIGRATING", &ids[0]]).await;
    let calls = calls(&app, 20);
    // Existing and new keys would be on different nodes.
    until("the batch is refused for now", async || in_flight(&app).await == 20.0).await;
    moves_keys(&app.redis, &first, &slot).await;
    // Now this node has none of the keys and redirects clients to the other one.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for node in [&first, &app.redis] {
        set_slot(node, &slot, &["NODE", &ids[0]]).await;
    }
    assert_all_accepted(calls.join_all().await);
    assert_eq!(first.queue_named(PREFIX, "workflow-runner").waiting_ids().await.len(), 21);
    let log = app.hookgate.log();
    for cause in ["TRYAGAIN Multiple keys", "TRYAGAIN the slot of the queue has moved"] {
        assert!(log.contains(cause), "{cause}: {log}");
    }
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_slot_without_a_node_is_waited_for() {
    let (first, second) = Redis::start_cluster(PREFIX).await;
    let slot = slot(&first).await;
    let app = app(&first, second).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let one = [slot.clone()];
    let () = app.redis.query(cmd("CLUSTER").arg("DELSLOTS").arg(&one)).await;
    let calls = calls(&app, 8);
    until("all requests wait", async || in_flight(&app).await == 8.0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let () = app.redis.query(cmd("CLUSTER").arg("ADDSLOTS").arg(&one)).await;
    assert_all_accepted(calls.join_all().await);
    assert_eq!(app.redis.queue_named(PREFIX, "workflow-runner").waiting_ids().await.len(), 9);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_slot_that_moves_too_long_adds_no_jobs_later() {
    let (first, second) = Redis::start_cluster(PREFIX).await;
    let slot = slot(&first).await;
    let app = App::build()
        .redis(second)
        .redis_address(&format!("redis-cluster://127.0.0.1:{}", first.port()))
        .config(|config| {
            config.set("queue.prefix", PREFIX).set("queue.enqueue_timeout", "300ms");
        });
    let app = app.start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    set_slot(&app.redis, &slot, &["MIGRATING", &node_id(&first).await]).await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.value("hookgate_redis_errors_total", &[("kind", "cluster")]) > 0.0);
    set_slot(&app.redis, &slot, &["STABLE"]).await;
    until("jobs are accepted", async || app.webhook("wh_1").send().await.status == 202).await;
    assert_eq!(app.redis.queue_named(PREFIX, "workflow-runner").waiting_ids().await.len(), 2);
}

#[tokio::test]
async fn a_momentary_demotion_costs_only_latency() {
    // In the second case, Redis may not answer from its stale data either.
    for stale in ["yes", "no"] {
        let redis = Redis::start_with(&["--replica-serve-stale-data", stale]).await;
        let app = App::build().redis(redis).config(patient).start().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        let unused_port = ports::free().to_string();
        let () = app.redis.query(cmd("REPLICAOF").arg(&["127.0.0.1", &unused_port])).await;
        let calls = calls(&app, 12);
        until("the batch is refused for now", async || {
            app.hookgate.log().contains("batch refused temporarily")
        })
        .await;
        app.redis.promote().await;
        assert_all_accepted(calls.join_all().await);
        assert_eq!(app.redis.queue().waiting_ids().await.len(), 13, "{stale}");
    }
}

#[tokio::test]
async fn a_loading_redis_costs_only_latency() {
    let redis = Redis::start_slow_to_load(100_000).await;
    let mut app = App::build().redis(redis).config(patient).start().await;
    app.redis.restart_with_keys_to_load().await;
    let calls = calls(&app, 4);
    until("Redis is loading", async || app.hookgate.log().contains("LOADING")).await;
    assert_all_accepted(calls.join_all().await);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 4);
}

#[tokio::test]
async fn a_momentarily_busy_redis_costs_only_latency() {
    let redis = Redis::start_with(&["--busy-reply-threshold", "50"]).await;
    let app = App::build().redis(redis).config(patient).start().await;
    let mut admin = app.redis.connect().await;
    let endless = app.redis.run_endless_script().await;
    until("Redis is busy", async || cmd("PING").query_async::<()>(&mut admin).await.is_err()).await;
    let calls = calls(&app, 4);
    until("the batch is refused for now", async || {
        app.hookgate.log().contains("batch refused temporarily")
    })
    .await;
    let () = cmd("SCRIPT").arg("KILL").query_async(&mut admin).await.expect("killed");
    assert!(endless.await.expect("the task does not panic").is_err(), "the script was killed");
    assert_all_accepted(calls.join_all().await);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 4);
}

fn patient(config: &mut testkit::Config) {
    config.set("queue.enqueue_timeout", "20s");
}

/// The slot of the queue is on the second node; the address names the first.
async fn app(first: &Redis, second: Redis) -> App {
    let address = format!("redis-cluster://127.0.0.1:{}", first.port());
    let app = App::build().redis(second).redis_address(&address).config(|config| {
        patient(config);
        config.set("queue.prefix", PREFIX);
    });
    app.start().await
}

fn calls(app: &App, count: usize) -> JoinSet<Reply> {
    (0..count).map(|_| app.webhook("wh_1").send()).collect()
}

fn assert_all_accepted(replies: Vec<Reply>) {
    for reply in replies {
        assert_eq!(reply.matched(), 1);
    }
}

async fn in_flight(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_requests_in_flight", &[])
}

async fn slot(node: &Redis) -> String {
    let slot: u32 = node.query(cmd("CLUSTER").arg(&["KEYSLOT", PREFIX])).await;
    slot.to_string()
}

async fn node_id(node: &Redis) -> String {
    node.query(cmd("CLUSTER").arg("MYID")).await
}

async fn set_slot(node: &Redis, slot: &str, how: &[&str]) {
    let () = node.query(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how)).await;
}

/// Moves all keys of the slot to the other node.
async fn moves_keys(from: &Redis, to: &Redis, slot: &str) {
    let keys: Vec<String> =
        from.query(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1000)).await;
    let mut migrate = cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(to.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
    let () = from.query(&migrate).await;
}
