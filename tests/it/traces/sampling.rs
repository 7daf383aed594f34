//! Which requests are traced: by the ratio, and by the sampled flag of callers who are known.

use serde_json::json;
use testkit::collector::Collector;
use testkit::deliveries::{endpoints, verified_trigger};
use testkit::documents::workflow_of;
use testkit::{App, Documents};

use super::{CALLER_SPAN, SAMPLED, TRACE_ID, UNSAMPLED, traced};

/// Sends a last request that is traced, and waits for it: spans are exported in their order.
async fn settled(app: &App, collector: &Collector) -> Vec<String> {
    let last = app.webhook("wh_1").header("traceparent", SAMPLED).header("x-request-id", "last");
    last.send().await;
    collector.request("last", 3).await;
    let id = |span: &testkit::collector::Span| {
        span.attributes.get("hookgate.request_id").and_then(|id| id.as_str()).map(str::to_owned)
    };
    let mut ids: Vec<String> = collector.spans().iter().filter_map(id).collect();
    ids.retain(|id| id != "last");
    ids
}

#[tokio::test]
async fn a_ratio_of_all_requests_is_traced() {
    let collector = Collector::start().await;
    let app = traced(&collector, 0.5).start().await;
    for number in 0..200 {
        app.webhook("wh_1").header("x-request-id", format!("r{number}")).send().await;
    }
    let count = settled(&app, &collector).await.len();
    // Fewer or more have a chance of less than one in 10^12.
    assert!((50..=150).contains(&count), "{count} of 200");
}

#[tokio::test]
async fn the_ratio_applies_whatever_the_trace_id_of_an_unsampled_caller_is() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    let call = app.webhook("wh_1").header("traceparent", UNSAMPLED);
    call.header("x-request-id", "unsampled").send().await;
    let (request, _) = collector.request("unsampled", 3).await;
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (TRACE_ID, CALLER_SPAN));
}

#[tokio::test]
async fn a_sampled_flag_counts_once_its_credential_is_accepted() {
    let collector = Collector::start().await;
    let app = traced(&collector, 0.0).start().await;
    let refused = app.webhook("wh_1").bearer("unknown-key").header("traceparent", SAMPLED);
    refused.header("x-request-id", "refused").send().await.assert_rejected(401, "invalid_api_key");
    let unknown = app.caller.call(reqwest::Method::GET, "/").header("traceparent", SAMPLED);
    unknown.header("x-request-id", "unknown").send().await.assert_rejected(404, "not_found");
    // Rejected after its credential was accepted.
    let known = app.post("{").header("traceparent", SAMPLED).header("x-request-id", "known");
    known.send().await.assert_rejected(400, "invalid_json");
    assert_eq!(settled(&app, &collector).await, ["known"]);
}

#[tokio::test]
async fn the_trace_of_a_refused_caller_is_not_continued() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    let refused = app.webhook("wh_1").bearer("unknown-key").header("traceparent", SAMPLED);
    refused.header("x-request-id", "refused").send().await;
    let (request, _) = collector.request("refused", 1).await;
    assert_ne!(request.trace, TRACE_ID);
    assert_eq!(request.parent, "");
}

#[tokio::test]
async fn a_sampled_flag_of_a_delivery_counts_once_its_signature_is_accepted() {
    const SECRET: &str = "a secret of the sender";
    let collector = Collector::start().await;
    let signed = verified_trigger("n1", "wh_1", &json!({ "scheme": "github", "secret": SECRET }));
    let open = verified_trigger("n2", "wh_open", &json!({ "scheme": "none" }));
    let mut documents = Documents::two_organizations();
    let nodes = json!([signed, open]);
    documents.workflows.push(workflow_of("wf_signed", "org_a", nodes));
    let app = traced(&collector, 0.0).documents(documents).config(endpoints).start().await;
    let body = r#"{"action":"opened"}"#;
    for (id, secret, status) in [("forged", "another secret", 401), ("signed", SECRET, 200)] {
        let call = app.github_delivery(secret, id, body).header("traceparent", SAMPLED);
        assert_eq!(call.header("x-request-id", id).send().await.status, status, "{id}");
    }
    // Nobody signs here, so its flag could be anybody's.
    let open = app.delivery("org_a", "wh_open", body).header("content-type", "application/json");
    let open = open.header("traceparent", SAMPLED).header("x-request-id", "open");
    assert_eq!(open.send().await.status, 200);
    assert_eq!(settled(&app, &collector).await, ["signed"]);
}
