//! BullMQ workers of every supported release run Hookgate's jobs, and tools that watch a queue show
//! them.
#![expect(clippy::indexing_slicing, reason = "a test panics")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use testkit::calls::Calls;
use testkit::documents::{Documents, workflow};
use testkit::node::{self, Worker};
use testkit::official::{NODE_5, NODE_6, Official};
use testkit::{App, Config};

const OURS: &str = "workflow-runner";

#[tokio::test]
async fn workers_run_every_job_once_and_in_order() {
    for release in Official::ALL {
        let app = App::start().await;
        let worker = release.worker(&app.redis, OURS, &[]).await;
        for number in 0..250 {
            let body = json!({ "webhookId": "wh_1", "number": number, "text": "größer / \"1\"" });
            let call = app.post(body.to_string()).header("traceparent", TRACE);
            assert_eq!(call.send().await.matched(), 1);
        }
        worker.reports("completed", 250).await;
        node::idle(&app.redis, OURS).await;
        let reports = worker.close().await;
        assert_eq!((reports.completed.len(), reports.failed.len()), (250, 0), "{release:?}");
        let mut ids = BTreeSet::new();
        for (number, job) in reports.completed.iter().enumerate() {
            assert!(ids.insert(job["id"].to_string()), "{release:?}: {job}");
            assert_eq!(job["name"], "workflow");
            let mut data = job["data"].clone();
            assert!(data["requestId"].take().is_string(), "{job}");
            assert!(data["receivedAt"].take().is_u64(), "{job}");
            let payload = json!({ "number": number, "text": "größer / \"1\"" });
            let trigger = json!({
                "type": "WebhookTrigger", "nodeIds": ["n1"], "webhookId": "wh_1", "payload": payload,
            });
            assert_eq!(
                data,
                json!({
                    "workflowId": "wf_1", "organizationId": "org_a", "userId": "user_1",
                    "trigger": trigger, "requestId": null, "receivedAt": null,
                }),
                "{release:?}"
            );
            let options = &job["opts"];
            assert_eq!(options["attempts"], 3);
            assert_eq!(options["backoff"], json!({ "type": "exponential", "delay": 1000 }));
            assert_eq!(options["removeOnComplete"], json!({ "age": 86400, "count": 10000 }));
            assert_eq!(options["removeOnFail"], json!({ "age": 604_800 }));
        }
        let counts = node::queue(&app.redis, OURS, &["counts"]).await;
        assert_eq!((&counts["completed"], &counts["waiting"]), (&json!(250), &json!(0)));
    }
}

#[tokio::test]
async fn jobs_that_fail_twice_pass_at_their_third_attempt() {
    const BACKOFFS: [&str; 7] = [
        "backoff = 20",
        "backoff = 0",
        r#"backoff = { type = "fixed", delay = 20, jitter = 0.5 }"#,
        r#"backoff = { type = "exponential", delay = 10 }"#,
        r#"backoff = { type = "exponential", delay = 20, jitter = 1.0 }"#,
        r#"backoff = { type = "a strategy of the worker" }"#,
        r#"backoff = { type = "a strategy of the worker", delay = 5, jitter = 0.5 }"#,
    ];
    for release in Official::ALL {
        for backoff in BACKOFFS {
            let app = App::with(|config| job(config, backoff)).await;
            let worker = release.worker(&app.redis, OURS, &["--fail-first", "2"]).await;
            for _ in 0..3 {
                app.webhook("wh_1").send().await.matched();
            }
            worker.reports("completed", 3).await;
            node::idle(&app.redis, OURS).await;
            let reports = worker.close().await;
            let mut attempts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            for report in reports.failed.iter().chain(&reports.completed) {
                let id = report["id"].as_str().expect("an id");
                let made = report["attemptsMade"].as_u64().expect("a number");
                attempts.entry(id).or_default().push(made);
            }
            let thrice = attempts.values().all(|of_job| of_job == &[1, 2, 3]);
            assert!(attempts.len() == 3 && thrice, "{release:?}, {backoff}: {attempts:?}");
        }
    }
}

#[tokio::test]
async fn finished_jobs_are_kept_or_removed_as_configured() {
    for release in Official::ALL {
        for (options, fail_first, completed, failed) in [
            ("removeOnComplete = true", "0", 0, 0),
            ("removeOnComplete = 2", "0", 2, 0),
            ("removeOnComplete = { age = 3600, count = 3 }", "0", 3, 0),
            ("removeOnComplete = false", "0", 5, 0),
            ("attempts = 1\nremoveOnFail = true", "1", 0, 0),
            ("attempts = 0\nremoveOnFail = 2\nremoveOnComplete = true", "1", 0, 2),
        ] {
            let app = App::with(|config| job(config, options)).await;
            let worker = release.worker(&app.redis, OURS, &["--fail-first", fail_first]).await;
            for _ in 0..5 {
                app.webhook("wh_1").send().await.matched();
            }
            worker.reports(if fail_first == "0" { "completed" } else { "failed" }, 5).await;
            node::idle(&app.redis, OURS).await;
            worker.close().await;
            let counts = node::queue(&app.redis, OURS, &["counts"]).await;
            let kept = (counts["completed"].as_u64(), counts["failed"].as_u64());
            assert_eq!(kept, (Some(completed), Some(failed)), "{release:?}, {options}");
            let hashes = app.redis.queue().hash_ids().await.len() as u64;
            assert_eq!(hashes, completed + failed, "{release:?}, {options}");
        }
    }
}

#[tokio::test]
async fn jobs_without_added_events_run() {
    for release in Official::ALL {
        let app = App::with(|config| {
            config.set("queue.events", false);
        })
        .await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert!(app.redis.queue().events().await.is_empty());
        let worker = release.worker(&app.redis, OURS, &[]).await;
        worker.reports("completed", 1).await;
        worker.close().await;
    }
}

#[tokio::test]
async fn workers_of_different_releases_share_a_queue() {
    let app = App::start().await;
    let mut workers = Vec::new();
    for release in Official::ALL {
        workers.push(release.worker(&app.redis, OURS, &[]).await);
    }
    for _ in 0..200 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    node::idle(&app.redis, OURS).await;
    let mut ids = Vec::new();
    for worker in workers {
        let reports = worker.close().await;
        assert!(reports.failed.is_empty(), "{:?}", reports.failed);
        let id = |job: &Value| job["id"].as_str().expect("an id").parse::<u64>().expect("digits");
        ids.extend(reports.completed.iter().map(id));
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<u64>>());
}

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_worker_with_telemetry_continues_the_trace_of_the_request() {
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_2", "org_a", "wh_1"));
    let app = App::build().documents(documents).start().await;
    let traced = app.webhook("wh_1").header("traceparent", TRACE).header("tracestate", "a=b,c=1");
    assert_eq!(traced.send().await.matched(), 2);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 2);
    assert_eq!(app.webhook("wh_1").header("traceparent", "broken").send().await.matched(), 2);

    let worker = Worker::start(&app.redis, OURS, &["--telemetry"]).await;
    worker.reports("completed", 6).await;
    let processing = async |worker: &Worker| {
        let mut spans = worker.reports("span", 0).await;
        spans.retain(|span| span["attributes"]["bullmq.queue.operation"] == "process");
        spans
    };
    testkit::wait::until("every job has a span", async || processing(&worker).await.len() == 6)
        .await;
    for span in processing(&worker).await {
        let job: u32 =
            span["attributes"]["bullmq.job.id"].as_str().expect("an id").parse().expect("digits");
        assert_eq!(span["kind"], "CONSUMER");
        if job <= 2 {
            assert_eq!(span["traceId"], TRACE_ID, "{span}");
            assert_eq!(span["parentSpanId"], CALLER_SPAN, "{span}");
            assert_eq!(span["traceState"], "a=b,c=1", "{span}");
        } else {
            assert_ne!(span["traceId"], TRACE_ID, "{span}");
            assert!(span.get("parentSpanId").is_none(), "{span}");
        }
    }
    worker.close().await;
}

#[tokio::test]
async fn bull_board_lists_and_counts_the_jobs() {
    let app = App::start().await;
    for number in 0..5 {
        let body = json!({ "webhookId": "wh_1", "number": number });
        let call = app.post(body.to_string()).header("traceparent", TRACE);
        assert_eq!(call.send().await.matched(), 1);
    }
    assert_board(&app, "waiting", json!({ "waiting": 5 })).await;

    let mut calls = Calls::start();
    NODE_6.run_method(&mut calls, &app.redis, OURS, "pause").await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let board = node::board(&app.redis, OURS, "waiting").await;
    assert_eq!(board["queues"][0]["isPaused"], true);
    NODE_6.run_method(&mut calls, &app.redis, OURS, "resume").await;

    let worker = NODE_5.worker(&app.redis, OURS, &[]).await;
    worker.reports("completed", 6).await;
    worker.close().await;
    assert_board(&app, "completed", json!({ "completed": 6 })).await;
}

/// Asserts that the board shows as many jobs as it counts in this state, none in any other, and
/// their contents.
async fn assert_board(app: &App, state: &str, expected: Value) {
    let board = node::board(&app.redis, OURS, state).await;
    let queue = &board["queues"][0];
    let mut counts = queue["counts"].clone();
    counts.as_object_mut().expect("counts").retain(|_, count| *count != 0);
    assert_eq!(counts, expected, "{board}");
    let jobs = queue["jobs"].as_array().expect("jobs");
    assert_eq!(json!(jobs.len()), expected[state]);
    for job in jobs {
        assert_eq!(job["name"], "workflow");
        assert_eq!(job["data"]["workflowId"], "wf_1");
        assert_eq!(job["opts"]["attempts"], 3);
        assert_eq!(job["delay"], 0);
    }
}

fn job(config: &mut Config, options: &str) {
    config.set("queue.job", options.parse::<toml::Table>().expect("TOML"));
}
