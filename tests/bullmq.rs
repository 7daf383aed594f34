//! What Hookgate leaves in Redis is what BullMQ's own library leaves there, and BullMQ's own worker runs it.

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use redis::cmd;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use harness::documents::{Documents, workflow};
use harness::node::{self, Worker};
use harness::twins::{MAX_LEN_EVENTS, OURS, Twins};
use harness::wait::until;
use harness::{App, Config};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

// What is written

#[tokio::test]
async fn a_fresh_queue_becomes_what_the_official_library_makes_of_it() {
    let twins = twins(MAX_LEN_EVENTS).await;
    let jobs = twins.post(&webhooks()).await;
    for job in &jobs {
        let fields: Vec<&str> = job.fields.keys().map(String::as_str).collect();
        assert_eq!(fields, ["data", "delay", "name", "opts", "priority", "timestamp"]);
    }
    // Only official queues write their version.
    twins.assert_equal(&["version"]).await;
}

#[tokio::test]
async fn jobs_join_a_running_queue_as_official_ones_do() {
    let twins = twins(MAX_LEN_EVENTS).await;
    twins.official_jobs(3).await;
    twins.run_all().await;
    twins.official_jobs(3).await;
    twins.occupy_a_worker().await;
    twins.part().await;
    twins.post(&webhooks()).await;
    twins.assert_equal(&[]).await;
}

#[tokio::test]
async fn jobs_join_a_paused_queue_as_official_ones_do() {
    let twins = twins(MAX_LEN_EVENTS).await;
    twins.official_jobs(2).await;
    twins.official(&["pause"]).await;
    twins.part().await;
    twins.post(&webhooks()).await;
    twins.assert_equal(&[]).await;
    assert_eq!(twins.app.redis.queue().events().await.len(), 5 + 2 * 12);
    twins.official(&["resume"]).await;
    twins.run_all().await;
}

#[tokio::test]
async fn a_queue_at_its_concurrency_gets_no_marker_as_from_the_official_library() {
    for (concurrency, markers) in [(1, 0), (2, 1)] {
        let twins = twins(MAX_LEN_EVENTS).await;
        let (redis, queue) = (&twins.app.redis, twins.app.redis.queue());
        twins.official_jobs(2).await;
        let mut limit = cmd("HSET");
        let () =
            redis.query(limit.arg(queue.key("meta")).arg("concurrency").arg(concurrency)).await;
        twins.occupy_a_worker().await;
        let () = redis.query(cmd("DEL").arg(queue.key("marker"))).await;
        twins.part().await;
        twins.post(&webhooks()).await;
        let marked: u32 = redis.query(cmd("ZCARD").arg(queue.key("marker"))).await;
        assert_eq!(marked, markers, "concurrency {concurrency}");
        twins.assert_equal(&[]).await;
    }
}

#[tokio::test]
async fn the_events_stream_is_kept_at_the_length_that_the_queue_has_been_given() {
    let twins = twins(50).await;
    twins.official(&["counts"]).await;
    twins.part().await;
    twins.post(&vec![json!({ "webhookId": "wh_40" }); 10]).await;
    let events = twins.app.redis.queue().events().await.len();
    assert!((50..=150).contains(&events), "{events} events");
    twins.assert_equal(&[]).await;
}

#[tokio::test]
async fn added_and_waiting_events_are_written_for_every_job_and_can_be_switched_off() {
    let app = App::start().await;
    app.webhook("wh_1").send().await;
    app.webhook("wh_1").send().await;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = ["1", "2"].map(|id| {
        [
            vec![pair("event", "added"), pair("jobId", id), pair("name", "workflow")],
            vec![pair("event", "waiting"), pair("jobId", id)],
        ]
    });
    assert_eq!(app.redis.queue().events().await, expected.concat());

    let app = App::with(|config| {
        config.set("queue.events", false);
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let kind: String = app.redis.query(cmd("TYPE").arg(app.redis.queue().key("events"))).await;
    assert_eq!(kind, "none");
    run_all(&app).await;
}

#[tokio::test]
async fn jobs_of_a_paused_queue_wait_where_its_version_of_bullmq_looks_for_them() {
    let (v5, v6) = (Some("bullmq:5.81.5"), Some("bullmq:6.7.0"));
    for (layout, versions) in [
        (
            "auto",
            vec![(v5, "paused"), (v6, "wait"), (Some("bullmq:10.0.0"), "wait"), (None, "paused")],
        ),
        ("v5", vec![(v5, "paused"), (v6, "paused"), (None, "paused")]),
        ("v6", vec![(v5, "wait"), (v6, "wait"), (None, "wait")]),
    ] {
        let app = App::with(|config| {
            config.set("queue.paused_layout", layout);
        })
        .await;
        let meta = app.redis.queue().key("meta");
        for (version, list) in versions {
            for paused in [true, false] {
                let () = app.redis.query(&cmd("FLUSHALL")).await;
                if paused {
                    let () = app.redis.query(cmd("HSET").arg(&meta).arg("paused").arg(1)).await;
                }
                if let Some(version) = version {
                    let () =
                        app.redis.query(cmd("HSET").arg(&meta).arg("version").arg(version)).await;
                }
                assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
                let list = if paused { list } else { "wait" };
                let ids: Vec<String> = app
                    .redis
                    .query(cmd("LRANGE").arg(app.redis.queue().key(list)).arg(0).arg(-1))
                    .await;
                assert_eq!(ids, ["1"], "{layout} {version:?} paused: {paused}");
                let all = app.redis.queue().all().await;
                assert_eq!(all.len(), 1, "{layout} {version:?} paused: {paused}");
            }
        }
    }
}

#[tokio::test]
async fn a_trace_travels_in_the_option_of_bullmq_and_a_broken_one_does_not() {
    let twins = twins(MAX_LEN_EVENTS).await;
    let app = &twins.app;
    for broken in
        ["", "x", "{}", "00-0-0-01", &TRACE.replace('b', "g"), &format!("{TRACE}-"), &TRACE[..54]]
    {
        app.webhook("wh_1").header("traceparent", broken).send().await.matched();
    }
    app.webhook("wh_1").header("traceparent", "00-\"-\\-01").send().await.matched();
    let jobs = app.redis.queue().waiting().await;
    assert_eq!(jobs.len(), 8);
    for job in jobs {
        assert_eq!(job.opts().get("tm"), None, "{job:?}");
    }

    let traced = app.webhook("wh_1").header("traceparent", TRACE).send().await;
    assert_eq!(traced.matched(), 1);
    let job = app.redis.queue().waiting().await.pop().expect("the newest job is the last");
    let context: Value =
        serde_json::from_str(job.opts()["tm"].as_str().expect("tm is text")).expect("of JSON");
    assert_eq!(context, json!({ "traceparent": TRACE }));
    twins.run_all().await;
    assert_eq!(app.redis.queue().all().await.len(), 9);
}

// What runs

#[tokio::test]
async fn a_worker_runs_a_thousand_jobs_once_each_and_in_order() {
    let app = App::start().await;
    let worker = Worker::start(&app.redis, OURS, &[]).await;
    for number in 0..1000 {
        let body = json!({ "webhookId": "wh_1", "number": number, "text": "größer / \"1\"" });
        assert_eq!(app.post(body.to_string()).send().await.matched(), 1);
    }
    worker.reports("completed", 1000).await;
    node::idle(&app.redis, OURS).await;
    let reports = worker.close().await;
    assert_eq!((reports.completed.len(), reports.failed.len()), (1000, 0));
    let mut ids = BTreeSet::new();
    for (number, job) in reports.completed.iter().enumerate() {
        assert!(ids.insert(job["id"].to_string()), "{job}");
        assert_eq!(job["name"], "workflow");
        let mut data = job["data"].clone();
        assert!(data["requestId"].take().is_string(), "{job}");
        assert!(data["receivedAt"].take().is_u64(), "{job}");
        let payload = json!({ "number": number, "text": "größer / \"1\"" });
        let trigger = json!({ "type": "WebhookTrigger", "nodeIds": ["n1"], "webhookId": "wh_1", "payload": payload });
        assert_eq!(
            data,
            json!({
                "workflowId": "wf_1", "organizationId": "org_a", "userId": "user_1",
                "trigger": trigger, "requestId": null, "receivedAt": null,
            })
        );
        let options = &job["opts"];
        assert_eq!(options["attempts"], 3);
        assert_eq!(options["backoff"], json!({ "type": "exponential", "delay": 1000 }));
        assert_eq!(options["removeOnComplete"], json!({ "age": 86400, "count": 10000 }));
        assert_eq!(options["removeOnFail"], json!({ "age": 604_800 }));
    }
    let counts = node::queue(&app.redis, OURS, &["counts"]).await;
    assert_eq!((&counts["completed"], &counts["waiting"]), (&json!(1000), &json!(0)), "{counts}");
}

#[tokio::test]
async fn jobs_that_fail_twice_pass_at_their_third_attempt() {
    let app =
        App::with(|config| job(config, "attempts = 3\nbackoff = { type = \"fixed\", delay = 20 }"))
            .await;
    let worker = Worker::start(&app.redis, OURS, &["--fail-first", "2"]).await;
    for _ in 0..5 {
        app.webhook("wh_1").send().await.matched();
    }
    worker.reports("completed", 5).await;
    node::idle(&app.redis, OURS).await;
    let reports = worker.close().await;
    assert_eq!((reports.completed.len(), reports.failed.len()), (5, 10));
    let mut attempts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for report in reports.failed.iter().chain(&reports.completed) {
        let id = report["id"].as_str().expect("an id");
        attempts.entry(id).or_default().push(report["attemptsMade"].as_u64().expect("a number"));
    }
    assert!(
        attempts.len() == 5 && attempts.values().all(|of_job| of_job == &[1, 2, 3]),
        "{attempts:?}"
    );
}

#[tokio::test]
async fn finished_jobs_are_kept_or_removed_as_configured() {
    for (options, fail_first, completed, failed) in [
        ("removeOnComplete = true", "0", 0, 0),
        ("removeOnComplete = 2", "0", 2, 0),
        ("removeOnComplete = { age = 3600, count = 3 }", "0", 3, 0),
        ("removeOnComplete = false", "0", 5, 0),
        ("attempts = 1\nremoveOnFail = true", "1", 0, 0),
        ("attempts = 1\nremoveOnFail = 2\nremoveOnComplete = true", "1", 0, 2),
    ] {
        let app = App::with(|config| job(config, options)).await;
        let worker = Worker::start(&app.redis, OURS, &["--fail-first", fail_first]).await;
        for _ in 0..5 {
            app.webhook("wh_1").send().await.matched();
        }
        worker.reports(if fail_first == "0" { "completed" } else { "failed" }, 5).await;
        node::idle(&app.redis, OURS).await;
        worker.close().await;
        let counts = node::queue(&app.redis, OURS, &["counts"]).await;
        assert_eq!(
            (&counts["completed"], &counts["failed"]),
            (&json!(completed), &json!(failed)),
            "{options}"
        );
        assert_eq!(app.redis.queue().hash_ids().await.len(), completed + failed, "{options}");
    }
}

// How it is sent

#[tokio::test]
async fn requests_that_wait_at_the_same_moment_share_calls() {
    let app = App::with(|config| {
        config.set("queue.enqueue_timeout", "30s");
    })
    .await;
    // Calls of earlier tries do not count, nor does the loading of the script.
    app.webhook("wh_1").send().await.matched();
    let () = app.redis.query(cmd("CONFIG").arg("RESETSTAT")).await;
    let before = app.hookgate.metrics().await;
    let sum = |metrics: &harness::metrics::Metrics, part| {
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
    assert!((1..=100).contains(&calls), "{calls} calls for 300 requests");
    let after = app.hookgate.metrics().await;
    let batches = sum(&after, "count") - sum(&before, "count");
    assert!((1.0..=100.0).contains(&batches), "{batches} batches");
    assert!((sum(&after, "sum") - sum(&before, "sum") - 300.0).abs() < 0.5);
    let most = after.value("hookgate_batch_jobs_bucket", &[("le", "128")]);
    assert!((most - sum(&after, "count")).abs() < 0.5, "a batch had more than max_jobs");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_queue_with_keys_of_the_wrong_type_gets_nothing_until_they_are_gone() {
    for (key, command) in [("wait", "SET"), ("id", "HSET"), ("meta", "SET")] {
        let app = App::start().await;
        let key = app.redis.queue().key(key);
        let values: &[&str] = if command == "SET" { &["x"] } else { &["x", "1"] };
        let () = app.redis.query(cmd(command).arg(&key).arg(values)).await;
        let before: Vec<String> =
            app.redis.query(cmd("KEYS").arg(app.redis.queue().key("*"))).await;
        for _ in 0..3 {
            let reply = app.webhook("wh_1").send().await;
            reply.assert_rejected(503, "queue_unavailable");
            assert_eq!(reply.json()["details"]["enqueued"], "none", "{key}");
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
        let after: Vec<String> = app.redis.query(cmd("KEYS").arg(app.redis.queue().key("*"))).await;
        assert_eq!(after, before, "{key}");
        let () = app.redis.query(cmd("DEL").arg(&key)).await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{key}");
        app.redis.queue().only_job().await;
    }
}

#[tokio::test]
async fn jobs_are_queued_even_where_events_and_marker_cannot_be_written() {
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

/// A queue with a twin, and webhooks that start 1, 3 and 40 workflows.
async fn twins(max_len_events: u32) -> Twins {
    let mut documents = Documents::two_organizations();
    for (webhook, fanout) in [("wh_3", 3), ("wh_40", 40)] {
        documents
            .workflows
            .extend((0..fanout).map(|n| workflow(&format!("{webhook}_{n}"), "org_a", webhook)));
    }
    Twins::start(App::build().documents(documents), max_len_events).await
}

/// Twelve jobs.
fn webhooks() -> Vec<Value> {
    vec![
        json!({ "webhookId": "wh_1" }),
        json!({ "webhookId": "wh_3", "a": { "b": [1, 2.5, null, true, "größer", "a/b\"\\\n"] } }),
        json!({ "webhookId": "wh_1", "long": "x".repeat(5000) }),
        json!({ "webhookId": "wh_3", "empty": {}, "none": [] }),
        json!({ "webhookId": "wh_1", "Δ": "🦀" }),
        json!({ "webhookId": "wh_3" }),
    ]
}

fn job(config: &mut Config, options: &str) {
    config.set("queue.job", options.parse::<toml::Table>().expect("TOML"));
}

/// Lets a real worker run all jobs.
async fn run_all(app: &App) {
    let jobs = app.redis.queue().waiting_ids().await.len();
    let worker = Worker::start(&app.redis, OURS, &[]).await;
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
