//! The oldest supported Redis, a cluster, and servers that lack something: the same jobs and the
//! same reports of faults.

mod addresses;
mod idle;
mod names;
mod refused;
mod sentinel;
mod switched_off;
mod tls;

use redis::cmd;
use testkit::chaos::{ChaosProxy, Cut};
use testkit::wait::until;
use testkit::{App, Redis};

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn redis_6_gets_jobs_and_its_refusals_are_classified() {
    let redis = Redis::start_6().await;
    let proxy = ChaosProxy::before(&redis, 1).await;
    let app = App::build().redis(redis).redis_address(&proxy.url()).config(|config| {
        config.set("server.workers", 1).set("queue.memory_watermark", 0.0);
    });
    let app = app.start().await;
    takes_jobs(&app, "bull").await;
    proxy.lose_replies(1, Cut::Reset);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 3);

    // Redis 6 wraps every error within a script.
    set(&app, "maxmemory", "1").await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    set(&app, "maxmemory", "0").await;
    let accepted = proxy.counts().accepted;
    let unused_port = testkit::ports::free().to_string();
    let () = app.redis.query(cmd("REPLICAOF").arg(&["127.0.0.1", &unused_port])).await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    for kind in ["oom", "readonly"] {
        let metrics = app.hookgate.metrics().await;
        assert!(metrics.value("hookgate_redis_errors_total", &[("kind", kind)]) > 0.0, "{kind}");
    }
    until("Hookgate looks for the primary over a new connection", async || {
        proxy.counts().accepted > accepted
    })
    .await;
    let () = app.redis.query(cmd("REPLICAOF").arg(&["NO", "ONE"])).await;
    until("jobs are accepted", async || app.webhook("wh_1").send().await.status == 202).await;
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 4);
}

#[tokio::test]
async fn a_cluster_gets_jobs_on_the_node_of_the_slot() {
    // The slot of the queue is on the node that the address does not name.
    let (first, second) = Redis::start_cluster("{bull}").await;
    let address = format!("redis-cluster://127.0.0.1:{}", first.port());
    let app = App::build().redis(second).redis_address(&address).config(|config| {
        config.set("queue.prefix", "{bull}");
    });
    let app = app.start().await;
    takes_jobs(&app, "{bull}").await;
    let () = app.redis.query(cmd("SCRIPT").arg("FLUSH")).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue_named("{bull}", "workflow-runner").waiting_ids().await.len(), 3);
    let elsewhere: u64 = first.query(&cmd("DBSIZE")).await;
    assert_eq!(elsewhere, 0);
}

async fn readiness(app: &App) -> String {
    app.hookgate.readiness().await.1.to_string()
}

/// Sends three requests with two jobs.
async fn takes_jobs(app: &App, prefix: &str) {
    for (key, is_repeated) in [("k", false), ("k", true), ("other", false)] {
        let reply = app.webhook("wh_1").header("idempotency-key", key).send().await;
        assert_eq!(reply.matched(), 1);
        assert_eq!(reply.header("idempotency-replayed").is_some(), is_repeated);
    }
    let queue = app.redis.queue_named(prefix, "workflow-runner");
    assert_eq!(queue.waiting_ids().await, ["1", "2"]);
    assert_eq!(queue.events().await.len(), 4);
}

async fn set(app: &App, key: &str, value: &str) {
    let () = app.redis.query(cmd("CONFIG").arg(&["SET", key, value])).await;
}
