//! How jobs are sent to Redis: in batches, and around keys that cannot be written.

use std::collections::BTreeSet;

use redis::cmd;
use serde_json::json;
use tokio::task::JoinSet;

use testkit::App;
use testkit::node::Worker;
use testkit::wait::until;

#[tokio::test]
async fn waiting_requests_share_script_calls() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "30s");
    })
    .await;
    // Calls of earlier attempts do not count, nor does the loading of the script.
    app.webhook("wh_1").send().await.matched();
    let () = app.redis.query(cmd("CONFIG").arg("RESETSTAT")).await;
    let before = app.hookgate.metrics().await;
    let sum = |metrics: &testkit::metrics::Metrics, part| {
        metrics.sum(&format!("hookgate_batch_jobs_{part}"))
    };

    app.redis.freeze();
    let mut sent = JoinSet::new();
    for number in 0..300 {
        let body = json!({ "webhookId": "wh_1", "number": number });
        sent.spawn(app.post(body.to_string()).send());
    }
    until("all requests are in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 300.0
    })
    .await;
    app.redis.thaw();
    for reply in sent.join_all().await {
        assert_eq!(reply.matched(), 1);
    }

    let jobs = app.redis.queue().waiting().await;
    let numbers: BTreeSet<u64> = jobs
        .iter()
        .map(|job| job.data()["trigger"]["payload"]["number"].as_u64().unwrap_or(9999))
        .collect();
    assert_eq!((jobs.len(), numbers), (301, (0..300).chain([9999]).collect()));
    let calls = script_calls(&app).await;
    assert!((1..=100).contains(&calls), "{calls} script calls for 300 requests");
    let after = app.hookgate.metrics().await;
    let batches = sum(&after, "count") - sum(&before, "count");
    assert!((1.0..=100.0).contains(&batches), "{batches} batches");
    assert!((sum(&after, "sum") - sum(&before, "sum") - 300.0).abs() < 0.5);
    let most = after.value("hookgate_batch_jobs_bucket", &[("le", "128")]);
    assert!((most - sum(&after, "count")).abs() < 0.5, "a batch had more than max_jobs");
    app.assert_accounting().await;
}

#[tokio::test]
async fn requests_without_jobs_count_towards_a_batch() {
    let app = App::with(|config| {
        config.set("queue.batch.max_jobs", 10);
    })
    .await;
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let call = app.webhook("wh_none").header("idempotency-key", format!("key-{number}"));
        calls.spawn(call.send());
    }
    for reply in calls.join_all().await {
        assert_eq!(reply.matched(), 0);
    }
    let made = script_calls(&app).await;
    assert!(made >= 20, "{made} calls for 200 keys, at most ten each");
}

/// Each connection is a producer of its own, which leaves a record in Redis.
#[tokio::test]
async fn jobs_use_the_configured_number_of_connections() {
    for (connections, expected) in [(1, 1), (0, 2), (3, 3)] {
        let app = App::with(|config| {
            config.set("server.workers", 2).set("queue.connections", connections);
        })
        .await;
        let producers = async || -> usize {
            let keys: Vec<String> = app.redis.query(cmd("KEYS").arg("hookgate:*:producer:*")).await;
            keys.len()
        };
        let mut sent = 0;
        until("all connections are used", async || {
            // Each task has a caller of its own, so that the kernel distributes them over both
            // workers.
            let mut callers = JoinSet::new();
            for _ in 0..20 {
                callers.spawn(app.webhook("wh_1").send());
            }
            for reply in callers.join_all().await {
                assert_eq!(reply.matched(), 1);
                sent += 1;
            }
            producers().await >= expected
        })
        .await;
        assert_eq!(producers().await, expected, "{connections} connections");
        assert_eq!(app.redis.queue().waiting_ids().await.len(), sent);
        app.assert_accounting().await;
    }
}

#[tokio::test]
async fn a_queue_with_keys_of_a_wrong_type_gets_no_jobs_until_they_are_removed() {
    for (key, command) in [("wait", "SET"), ("id", "HSET"), ("meta", "SET")] {
        let app = App::start().await;
        let key = app.redis.queue().key(key);
        let values: &[&str] = if command == "SET" { &["x"] } else { &["x", "1"] };
        let () = app.redis.query(cmd(command).arg(&key).arg(values)).await;
        let before = keys_without_id(&app).await;
        for _ in 0..3 {
            let reply = app.webhook("wh_1").send().await;
            reply.assert_rejected(503, "queue_unavailable");
            assert_eq!(reply.json()["details"]["enqueued"], "none", "{key}");
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
        assert_eq!(keys_without_id(&app).await, before, "{key}");
        let () = app.redis.query(cmd("DEL").arg(&key)).await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{key}");
        app.redis.queue().only_job().await;
    }
}

/// The keys of the queue. A batch that is refused may have taken ids, which are then not used.
async fn keys_without_id(app: &App) -> BTreeSet<String> {
    let queue = app.redis.queue();
    let mut keys: BTreeSet<String> = app.redis.query(cmd("KEYS").arg(queue.key("*"))).await;
    keys.remove(&queue.key("id"));
    keys
}

#[tokio::test]
async fn jobs_are_added_when_events_and_marker_cannot_be_written() {
    let app = App::start().await;
    for key in ["events", "marker"] {
        let () = app.redis.query(cmd("SET").arg(app.redis.queue().key(key)).arg("x")).await;
    }
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().only_job().await.at("/workflowId"), "wf_1");
    for key in ["events", "marker"] {
        let () = app.redis.query(cmd("DEL").arg(app.redis.queue().key(key))).await;
    }
    run_all(&app).await;
}

/// Lets a real BullMQ worker run all jobs.
async fn run_all(app: &App) {
    let jobs = app.redis.queue().waiting_ids().await.len();
    let worker = Worker::start(&app.redis, "workflow-runner", &[]).await;
    worker.reports("completed", jobs).await;
    worker.close().await;
}

async fn script_calls(app: &App) -> u64 {
    let statistics: String = app.redis.query(cmd("INFO").arg("commandstats")).await;
    let calls = |line: &str| -> Option<u64> {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        matches!(command, "evalsha" | "eval" | "fcall")
            .then(|| rest.split(',').next()?.parse().ok())?
    };
    statistics.lines().filter_map(calls).sum()
}
