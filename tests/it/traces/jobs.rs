//! Jobs continue the span of their request, and BullMQ workers continue that of their job.

use serde_json::{Value, json};
use testkit::collector::Collector;
use testkit::node::Worker;
use testkit::queue::Job;
use testkit::wait::until_some;
use testkit::{App, Documents};

use super::{CALLER_SPAN, SAMPLED, TRACE_ID, UNSAMPLED, traced};

/// The trace context of a job; null if it has none.
fn context(job: &Job) -> Value {
    let options: Value = serde_json::from_str(job.text("opts")).expect("JSON");
    options
        .get("tm")
        .and_then(Value::as_str)
        .map_or(Value::Null, |tm| serde_json::from_str(tm).expect("JSON"))
}

#[tokio::test]
async fn the_span_of_a_bullmq_worker_is_the_child_of_the_requests() {
    let collector = Collector::start().await;
    let app = traced(&collector, 0.0).start().await;
    let call = app.webhook("wh_1").header("traceparent", SAMPLED).header("tracestate", "a=b,c=1");
    assert_eq!(call.header("x-request-id", "worked").send().await.matched(), 1);
    let (request, _) = collector.request("worked", 3).await;
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (TRACE_ID, CALLER_SPAN));
    let worker = Worker::start(&app.redis, "workflow-runner", &["--telemetry"]).await;
    let span = until_some("the worker reports its span", async || {
        let spans = worker.reports("span", 0).await;
        let is_process = |span: &Value| span["attributes"]["bullmq.queue.operation"] == "process";
        spans.into_iter().find(is_process)
    })
    .await;
    assert_eq!(span["traceId"], TRACE_ID);
    assert_eq!(span["parentSpanId"], request.id.as_str());
    assert_eq!(span["traceState"], "a=b,c=1");
    worker.close().await;
}

#[tokio::test]
async fn jobs_of_a_request_that_begins_a_trace_continue_it() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    app.webhook("wh_1").header("x-request-id", "first").send().await;
    let (request, _) = collector.request("first", 3).await;
    let expected = json!({ "traceparent": format!("00-{}-{}-01", request.trace, request.id) });
    assert_eq!(context(&app.redis.queue().only_job().await), expected);
}

#[tokio::test]
async fn jobs_of_requests_that_are_not_sampled_are_as_without_traces() {
    let collector = Collector::start().await;
    let mut jobs = Vec::new();
    for app in [traced(&collector, 0.0).start().await, App::start().await] {
        app.webhook("wh_1").send().await;
        app.webhook("wh_1").header("traceparent", UNSAMPLED).send().await;
        app.webhook("wh_1").header("traceparent", "broken").send().await;
        let written = app.redis.queue().waiting_exactly(3).await;
        jobs.push(written.iter().map(|job| job.text("opts").to_owned()).collect::<Vec<String>>());
    }
    assert_eq!(jobs[0], jobs[1]);
    assert!(jobs[0][1].contains(UNSAMPLED), "{jobs:?}");
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn a_preview_is_traced_and_adds_no_job() {
    let collector = Collector::start().await;
    let app = traced(&collector, 0.0).documents(Documents::two_organizations()).start().await;
    let path = "/api/webhook/workflow/preview";
    let preview = app.caller.call(reqwest::Method::POST, path).bearer("key_a");
    let preview = preview.header("traceparent", SAMPLED).header("x-request-id", "preview");
    assert_eq!(preview.body(r#"{"webhookId":"wh_1"}"#).send().await.status, 200);
    let (request, children) = collector.request("preview", 1).await;
    assert_eq!(request.name, format!("POST {path}"));
    assert!(children.is_empty(), "{children:#?}");
    app.redis.queue().assert_empty().await;
}
