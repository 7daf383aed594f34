//! Faults that would refuse every job are found before the first job, by readiness and by `check
//! --connect`.

use redis::cmd;
use serde_json::Value;

use super::{readiness, takes_jobs};
use testkit::fake_redis::{Answer, FakeRedis};
use testkit::hookgate::check_connect;
use testkit::wait::until;
use testkit::{App, Redis};

#[tokio::test]
async fn a_cluster_node_needs_a_hash_tag_with_any_address() {
    let (redis, _) = Redis::start_cluster_node().await;
    let slots = ["ADDSLOTSRANGE", "0", "16383"];
    let () = redis.query(cmd("CLUSTER").arg(&slots)).await;
    // CROSSSLOT is answered earlier, but any other command is answered CLUSTERDOWN.
    until("the cluster is up", async || {
        let info: String = redis.query(cmd("CLUSTER").arg("INFO")).await;
        info.contains("cluster_state:ok")
    })
    .await;
    let app = App::build().redis(redis).start_unready().await;
    assert_refused(&app, "CROSSSLOT", "queue.prefix needs a hash tag").await;

    let App { redis, .. } = app;
    let with_tag = App::build().redis(redis).config(|config| {
        config.set("queue.prefix", "{bull}");
    });
    let app = with_tag.start().await;
    takes_jobs(&app, "{bull}").await;
    assert_eq!(check_connect(&app.hookgate.config).await.0, 0);
}

#[tokio::test]
async fn a_node_without_the_slot_is_reported_as_a_cluster_node() {
    let (first, _second) = Redis::start_cluster("{bull}").await;
    let app = App::build().redis(first).config(|config| {
        config.set("queue.prefix", "{bull}");
    });
    let app = app.start_unready().await;
    assert_refused(&app, "MOVED", "redis-cluster://").await;
}

#[tokio::test]
async fn a_queue_key_with_a_wrong_value_refuses_every_job() {
    let app = App::start().await;
    let queue = app.redis.queue();
    for (key, value, reason) in [
        ("wait", "somebody's", "WRONGTYPE"),
        ("meta", "somebody's", "WRONGTYPE"),
        ("id", "somebody's", "the id of the queue is not an integer"),
        ("id", "9007199254740991", "the ids of the queue are used up"),
    ] {
        let () = app.redis.query(cmd("SET").arg(queue.key(key)).arg(value)).await;
        assert_refused(&app, reason, "").await;
        let () = app.redis.query(cmd("DEL").arg(queue.key(key))).await;
        app.hookgate.ready().await;
    }
    let () = app.redis.query(cmd("LPUSH").arg(queue.key("id")).arg("1")).await;
    assert_refused(&app, "WRONGTYPE", "").await;
    let () = app.redis.query(cmd("DEL").arg(queue.key("id"))).await;
    app.hookgate.ready().await;
    // With a concurrency limit, active jobs are counted.
    let () = app.redis.query(cmd("HSET").arg(queue.key("meta")).arg(&["concurrency", "1"])).await;
    let () = app.redis.query(cmd("SET").arg(queue.key("active")).arg("somebody's")).await;
    assert_refused(&app, "WRONGTYPE", "").await;
}

#[tokio::test]
async fn a_count_without_a_reply_is_soon_repeated() {
    let redis = Redis::start().await;
    let fake = FakeRedis::before(&redis).await;
    // The first count of a state, and the connection with it, gets no reply.
    fake.answer_next("ZCARD", Answer::instead(""));
    let app = App::build().redis(redis).redis_address(&fake.url()).config(|config| {
        config.set("telemetry.queue_interval", "1h");
    });
    let app = app.start().await;
    until("all states are counted", async || {
        let metrics = app.hookgate.metrics().await;
        let labels = [("queue", "workflow-runner"), ("state", "failed")];
        fake.answers_left() == 0 && metrics.value("hookgate_queue_jobs", &labels) == 0.0
    })
    .await;
    assert!(!app.hookgate.log().contains("queue="), "its lines do not name the only queue");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_forbidden_key_is_reported_on_redis_6() {
    let redis = Redis::start_6().await;
    for rights in ["~bull:*", "~hookgate:bull:*", "~bull:* ~hookgate:bull:*:producer:*"] {
        let address = redis.allow("secret", &format!("{rights} +@all")).await;
        let mut config = testkit::Config::new();
        config.set("queue.redis", address);
        let (code, report) = check_connect(&config).await;
        assert_eq!(code, 1, "{rights}: {report}");
        assert!(report["redis"]["faults"].to_string().contains("NOPERM"), "{rights}: {report}");
    }
    let address = redis.allow("secret", "~bull:workflow-runner:* +@all").await;
    let app = App::build().redis(redis).redis_address(&address).start_unready().await;
    assert_refused(&app, "NOPERM", "").await;
}

/// Asserts the fault in readiness, in the answer to a webhook and in the check.
async fn assert_refused(app: &App, reason: &str, advice: &str) {
    until(&format!("readiness reports {reason}"), async || {
        let report = readiness(app).await;
        report.contains("refuses jobs") && report.contains(reason) && report.contains(advice)
    })
    .await;
    app.hookgate.unready().await;
    until("workflows are loaded", async || {
        app.webhook("wh_1").send().await.code() == "queue_unavailable"
    })
    .await;
    app.webhook("wh_1").send().await.assert_not_enqueued("none");
    let (code, report) = check_connect(&app.hookgate.config).await;
    let faults = report.pointer("/redis/faults").map(Value::to_string).expect("a list");
    assert_eq!(code, 1, "{report}");
    assert!(faults.contains(reason) && faults.contains(advice), "{reason}: {faults}");
}
