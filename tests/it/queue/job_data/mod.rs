//! `[queue.data]`: jobs whose data has the shape that a template describes.
#![expect(clippy::indexing_slicing, reason = "a test panics")]
#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

mod example;
mod faults;
mod fields;
mod reload;
mod requests;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use testkit::documents::{trigger, workflow, workflow_of};
use testkit::node::{self, Worker};
use testkit::queue::Job;
use testkit::{App, Config, Documents};

const OURS: &str = "workflow-runner";

/// A request with the template of an existing engine.
const TEMPLATE: &str = r#"
    jobType = "EXECUTE_WEBHOOK"
    schemaVersion = 4
    ratio = 1.5
    isTest = false
    "key with \"quotes\" and {braces}" = ""
    flowId = "{workflowId}"
    tenant = "t-{organizationId}"
    braces = "{{{webhookId}}}"
    text = "a \"b\" \\ \u0001 ü {requestId}/{nodeId}"
    nested = { empty = {}, list = [1, "{nodeIds}", ["{userId}"], { last = "{nodeType}" }], none = [] }
    input = { body = "{payload}", node = "{nodeId}", version = "{workflow.missing.field}" }
"#;

/// Sets `[queue.data]`.
fn set_template(config: &mut Config, template: &str) {
    config.set("queue.data", template.parse::<toml::Table>().expect("TOML"));
}

async fn app_with(documents: Documents, template: &str) -> App {
    App::build().documents(documents).config(|config| set_template(config, template)).start().await
}

/// The member of the data at a path, byte for byte.
fn raw(job: &Job, path: &[&str]) -> String {
    let mut json = job.data_text().to_owned();
    for name in path {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(&json).expect("an object");
        json = members[*name].get().to_owned();
    }
    json
}

#[tokio::test]
async fn a_template_is_the_whole_shape_of_the_data() {
    let nodes = json!([trigger("n1", "wh_1"), trigger("n \"2\"", "wh_1")]);
    let documents = Documents {
        workflows: vec![workflow_of("wf_1", "org_a", nodes)],
        ..Documents::two_organizations()
    };
    let app = app_with(documents, TEMPLATE).await;
    let payload = r#"{"n":[1.0e2,123456789012345678901234567890, -0.0],"s":"\u0041\ud800"}"#;
    let body = payload.replace("{\"n\"", "{\"webhookId\":\"wh_1\",\"n\"");
    let call = app.post(body).header("x-request-id", "r\"1\"");
    assert_eq!(call.send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(raw(&job, &["input", "body"]), payload);
    // The payload has characters that no parser for strings takes.
    let data: Value = serde_json::from_str(&job.data_text().replace(payload, "{}")).expect("JSON");
    let expected = json!({
        "jobType": "EXECUTE_WEBHOOK",
        "schemaVersion": 4,
        "ratio": 1.5,
        "isTest": false,
        "key with \"quotes\" and {braces}": "",
        "flowId": "wf_1",
        "tenant": "t-org_a",
        "braces": "{wh_1}",
        "text": "a \"b\" \\ \u{1} ü r\"1\"/n1",
        "nested": {
            "empty": {},
            "list": [1, ["n1", "n \"2\""], ["user_1"], { "last": "WebhookTrigger" }],
            "none": [],
        },
        "input": { "body": {}, "node": "n1", "version": null },
    });
    assert_eq!(data, expected);
}

/// The order in which the members of a template are written does not matter to a worker.
#[tokio::test]
async fn a_payload_comes_before_and_after_values_of_the_workflow() {
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_2", "org_a", "wh_1"));
    for template in [
        "a = \"{payload}\"\nz = \"{workflowId}\"",
        "z = \"{payload}\"\na = \"{workflowId}\"",
        "m = { a = \"{payload}\", z = \"{workflowId}\" }\na = \"{nodeId}\"\nz = \"{nodeIds}\"",
        "a = [\"{payload}\", \"{workflowId}\", \"{rawBody}\"]\nb = \"{payload}\"",
        "a = [\"{workflowId}\", \"{payload}\"]",
        "a = \"{rawBody} of {workflowId}\"\nb = \"{payload}\"",
    ] {
        let app = app_with(documents.clone(), template).await;
        for body in [r#"{"webhookId":"wh_1"}"#, r#"{"a":1.0e2,"webhookId":"wh_1"}"#] {
            assert_eq!(app.post(body).send().await.matched(), 2, "{template}");
        }
        let jobs = app.redis.queue().waiting().await;
        assert_eq!(jobs.len(), 4);
        for (position, job) in jobs.iter().enumerate() {
            let data = job.data_text();
            let workflow = ["wf_1", "wf_2"][position % 2];
            assert!(job.data().is_object() && data.contains(workflow), "{template}: {data}");
            let payload = if position < 2 { "{}" } else { r#"{"a":1.0e2}"# };
            assert!(data.contains(payload), "{template}: {data}");
        }
    }
}

/// Without values of a workflow all jobs are equal.
#[tokio::test]
async fn a_template_may_have_no_value_of_a_workflow() {
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow("wf_2", "org_a", "wh_1"));
    for (template, expected) in
        [("", "{}"), ("a = \"{payload}\"", r#"{"a":{"x":1}}"#), ("a = 1", r#"{"a":1}"#)]
    {
        let app = app_with(documents.clone(), template).await;
        assert_eq!(app.post(r#"{"webhookId":"wh_1","x":1}"#).send().await.matched(), 2);
        let jobs = app.redis.queue().waiting().await;
        assert_eq!([jobs[0].data_text(), jobs[1].data_text()], [expected; 2]);
    }
}

#[tokio::test]
async fn the_built_in_shape_is_unchanged_without_a_template() {
    let app = App::start().await;
    let call = app.post(r#"{"webhookId":"wh_1","a":1.0e2}"#).header("x-request-id", "r1");
    assert_eq!(call.send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    let data = job.data_text();
    let expected = concat!(
        r#"{"workflowId":"wf_1","organizationId":"org_a","userId":"user_1","#,
        r#""trigger":{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh_1","#,
        r#""payload":{"a":1.0e2}},"requestId":"r1","receivedAt":"#,
    );
    let received_at = data.strip_prefix(expected).and_then(|rest| rest.strip_suffix('}'));
    assert!(received_at.is_some_and(|time| time.parse::<u64>().is_ok()), "{data}");
}

#[tokio::test]
async fn a_worker_reads_500_jobs_with_a_payload_of_64_kib() {
    const COUNT: usize = 500;
    let many = (0..COUNT).map(|number| workflow(&format!("wf_{number:03}"), "org_a", "wh_many"));
    let documents = Documents { workflows: many.collect(), ..Documents::two_organizations() };
    let template =
        "input = { payload = \"{payload}\", flow = \"{workflowId}\" }\nnode = \"{nodeId}\"";
    let build = App::build().documents(documents);
    let build = build.config(|config| {
        set_template(config, template);
        config.set("queue.max_fanout_bytes", "64MiB").set("queue.enqueue_timeout", "20s");
    });
    let app = build.start().await;
    let filler = "x".repeat(64 << 10);
    let body = json!({ "webhookId": "wh_many", "filler": filler });
    let before = bytes_to_redis(&app).await;
    assert_eq!(app.post(body.to_string()).send().await.matched(), COUNT as u64);
    // The payload once, and for each job a few bytes. A second payload would be too many.
    let bytes = bytes_to_redis(&app).await - before;
    let most = filler.len() + COUNT * 320;
    assert!(bytes < most as u64, "{bytes} bytes crossed the wire");
    let worker = Worker::start(&app.redis, OURS, &[]).await;
    worker.reports("completed", COUNT).await;
    node::idle(&app.redis, OURS).await;
    let reports = worker.close().await;
    assert_eq!((reports.completed.len(), reports.failed.len()), (COUNT, 0));
    for (number, job) in reports.completed.iter().enumerate() {
        let input = json!({ "payload": { "filler": filler }, "flow": format!("wf_{number:03}") });
        assert!(job["data"] == json!({ "input": input, "node": "n1" }), "job {number}");
    }
}

/// The bytes that Redis has received.
async fn bytes_to_redis(app: &App) -> u64 {
    let bytes = app.redis.info("stats", "total_net_input_bytes").await;
    bytes.parse().expect("a number")
}

/// The data of all jobs counts, and not only their payloads.
#[tokio::test]
async fn the_fan_out_limit_counts_the_bytes_that_are_written() {
    let many = (0..10).map(|number| workflow(&format!("wf_{number}"), "org_a", "wh_1"));
    let documents = Documents { workflows: many.collect(), ..Documents::two_organizations() };
    let constant = "c".repeat(200);
    for (template, size) in [
        // 2,300 bytes for ten jobs.
        (format!("c = \"{constant}\"\nw = \"{{workflowId}}\""), 2),
        (format!("c = [\"{constant}\", \"{{workflowId}}\"]"), 2),
        // The body three times.
        ("a = [\"{payload}\", \"{body}\", \"{workflowId}\", \"{rawBody}\"]".to_owned(), 3),
    ] {
        for (limit, status) in [(size, 413), (2 * size, 202)] {
            let app = App::build().documents(documents.clone()).config(|config| {
                set_template(config, &template);
                config.set("queue.max_fanout_bytes", format!("{limit}KiB"));
            });
            let app = app.start().await;
            let filler = "x".repeat(100);
            let body = format!(r#"{{"webhookId":"wh_1","a":"{filler}"}}"#);
            let reply = app.post(body).send().await;
            assert_eq!(reply.status, status, "{template}: {}", reply.text());
            if status == 413 {
                let details = &reply.json()["details"];
                assert_eq!(details["maxBytes"], limit << 10);
                assert!(details["bytes"].as_u64() > Some(limit << 10), "{details}");
                app.redis.queue().assert_empty().await;
            }
        }
    }
}

/// The bytes mean the same where the matches alone are too many.
#[tokio::test]
async fn too_many_matches_are_refused_with_the_bytes_of_all_jobs() {
    let many = (0..10).map(|number| workflow(&format!("wf_{number}"), "org_a", "wh_1"));
    let documents = Documents { workflows: many.collect(), ..Documents::two_organizations() };
    let constant = "c".repeat(5_000);
    let app = App::build().documents(documents).config(|config| {
        set_template(config, &format!("c = \"{constant}\"\nw = \"{{workflowId}}\""));
        config.set("queue.max_matches", 9);
    });
    let reply = app.start().await.webhook("wh_1").send().await;
    reply.assert_rejected(413, "fanout_too_large");
    let bytes = reply.json()["details"]["bytes"].as_u64().expect("a number");
    assert!((50_000..60_000).contains(&bytes), "{bytes}");
}

/// Large jobs are written outside of the script.
#[tokio::test]
async fn large_jobs_have_the_shape_of_the_template() {
    let template = "raw = \"{rawBody}\"\nflow = \"{workflowId}\"\npayload = \"{payload}\"";
    let app = app_with(Documents::two_organizations(), template).await;
    for size in [4_000, 8_000, 40_000, 400_000] {
        let filler = "x".repeat(size);
        let body = json!({ "webhookId": "wh_1", "filler": filler }).to_string();
        assert_eq!(app.post(body.clone()).send().await.matched(), 1);
        let job = app.redis.queue().waiting().await.pop().expect("a job");
        let payload = json!({ "filler": filler });
        assert!(job.data() == json!({ "raw": body, "flow": "wf_1", "payload": payload }), "{size}");
    }
}
