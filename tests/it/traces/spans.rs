//! The spans of a request: accepted, refused, timed out, and delivered to an endpoint.

use serde_json::{Value, json};
use testkit::collector::{Collector, Span};
use testkit::deliveries::{PREFIX, endpoints, verified_trigger};
use testkit::documents::workflow_of;
use testkit::tls::Authority;
use testkit::{App, Documents};

use super::traced;
use reqwest::Method;

/// The number of `SpanKind`.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

const PATH: &str = "/api/webhook/workflow";

fn attribute<'a>(span: &'a Span, key: &str) -> &'a Value {
    span.attributes.get(key).unwrap_or(&Value::Null)
}

/// Asserts that a span has these attributes.
#[track_caller]
fn assert_attributes(span: &Span, expected: &[(&str, Value)]) {
    for (key, value) in expected {
        assert_eq!(attribute(span, key), value, "{key}: {span:#?}");
    }
}

#[tokio::test]
async fn an_accepted_request_has_a_span_with_its_wait_and_its_call() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    let reply = app.webhook("wh_1").header("x-request-id", "accepted").send().await;
    assert_eq!(reply.matched(), 1);
    let (request, children) = collector.request("accepted", 3).await;
    assert_eq!((request.name.as_str(), request.kind), ("POST /api/webhook/workflow", SERVER));
    assert_eq!((request.parent.as_str(), request.failed), ("", false));
    assert_attributes(
        &request,
        &[
            ("http.request.method", json!("POST")),
            ("http.response.status_code", json!(202)),
            ("http.route", json!(PATH)),
            ("url.path", json!(PATH)),
            ("url.scheme", json!("http")),
            ("network.protocol.version", json!("1.1")),
            ("client.address", json!("127.0.0.1")),
            ("network.peer.address", json!("127.0.0.1")),
            ("hookgate.organization", json!("org_a")),
            ("hookgate.matches", json!(1)),
            ("error.type", Value::Null),
        ],
    );
    let [wait, call] = &children[..] else { panic!("two children expected: {children:#?}") };
    assert_eq!((wait.name.as_str(), wait.kind), ("batch wait", INTERNAL));
    assert_attributes(wait, &[("hookgate.queue", json!("workflow-runner"))]);
    assert_eq!((call.name.as_str(), call.kind), ("EVALSHA", CLIENT));
    assert_attributes(
        call,
        &[
            ("db.system.name", json!("redis")),
            ("db.operation.name", json!("EVALSHA")),
            ("server.address", json!("127.0.0.1")),
            ("server.port", json!(app.redis.port())),
            ("hookgate.queue", json!("workflow-runner")),
            ("hookgate.batch.requests", json!(1)),
            ("hookgate.batch.jobs", json!(1)),
            ("error.type", Value::Null),
        ],
    );
    assert!(request.start <= wait.start && wait.end <= call.start, "{request:#?} {children:#?}");
    assert!(call.start <= call.end && call.end <= request.end, "{request:#?} {children:#?}");
}

#[tokio::test]
async fn a_refused_request_has_a_span_with_its_code() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    let refused = app.webhook("wh_1").bearer("unknown-key").header("x-request-id", "refused");
    refused.send().await.assert_rejected(401, "invalid_api_key");
    let (span, children) = collector.request("refused", 1).await;
    assert!(children.is_empty(), "{children:#?}");
    assert_attributes(
        &span,
        &[
            ("http.response.status_code", json!(401)),
            ("error.type", json!("invalid_api_key")),
            ("hookgate.organization", Value::Null),
        ],
    );
    assert!(!span.failed, "the caller is at fault: {span:#?}");
    let secret = "/elsewhere/a-secret-in-a-path?token=a-secret-in-a-query";
    let elsewhere = app.caller.call(Method::from_bytes(b"BREW").expect("a method"), secret);
    elsewhere.header("x-request-id", "elsewhere").send().await.assert_rejected(404, "not_found");
    let (span, _) = collector.request("elsewhere", 1).await;
    assert_eq!(span.name, "HTTP");
    let method = ("http.request.method", json!("_OTHER"));
    assert_attributes(&span, &[method, ("url.path", Value::Null), ("http.route", Value::Null)]);
    let all = format!("{:?}", collector.spans());
    for secret in ["a-secret-in-a-path", "a-secret-in-a-query", "unknown-key", "key_a"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}

#[tokio::test]
async fn a_request_whose_redis_is_away_has_failed_spans() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).config(|config| {
        config.set("queue.enqueue_timeout", "500ms");
    });
    let app = app.start().await;
    app.redis.freeze();
    let silent = app.webhook("wh_1").header("x-request-id", "silent").send().await;
    silent.assert_not_enqueued("unknown");
    let (request, children) = collector.request("silent", 3).await;
    let queue_unavailable = ("error.type", json!("queue_unavailable"));
    let status = ("http.response.status_code", json!(503));
    assert_attributes(&request, &[status, queue_unavailable.clone()]);
    assert!(request.failed, "{request:#?}");
    let calls: Vec<&Span> = children.iter().filter(|child| child.name == "EVALSHA").collect();
    let [call, ..] = calls[..] else { panic!("a call expected: {children:#?}") };
    assert!(call.failed && attribute(call, "error.type").is_string(), "{call:#?}");
    app.redis.thaw();
    app.redis.kill9().await;
    app.hookgate.unready().await;
    let gone = app.webhook("wh_1").header("x-request-id", "gone").send().await;
    gone.assert_not_enqueued("none");
    let (request, children) = collector.request("gone", 2).await;
    assert_attributes(&request, &[queue_unavailable]);
    let [wait] = &children[..] else { panic!("one child expected: {children:#?}") };
    assert_eq!(wait.name, "batch wait");
    assert!(wait.failed && attribute(wait, "error.type").is_string(), "{wait:#?}");
}

#[tokio::test]
async fn each_traced_request_of_a_batch_has_its_own_tree() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).config(|config| {
        config.set("queue.batch.max_in_flight", 1);
    });
    let app = app.start().await;
    let ids: Vec<String> = (0..20).map(|number| format!("of-batch-{number}")).collect();
    let calls = ids.iter().map(|id| app.webhook("wh_1").header("x-request-id", id).send());
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.matched(), 1);
    }
    let mut traces = std::collections::BTreeSet::new();
    for id in &ids {
        let (request, children) = collector.request(id, 3).await;
        assert_eq!(children.len(), 2, "{children:#?}");
        traces.insert(request.trace);
    }
    assert_eq!(traces.len(), ids.len());
}

#[tokio::test]
async fn a_delivery_is_traced_by_its_route_alone() {
    const SECRET: &str = "a secret of the sender";
    let collector = Collector::start().await;
    let verification = json!({ "scheme": "github", "secret": SECRET });
    let nodes = json!([verified_trigger("n1", "wh_1", &verification)]);
    let mut documents = Documents::two_organizations();
    documents.workflows = vec![workflow_of("wf_1", "org_a", nodes)];
    let app = traced(&collector, 1.0).documents(documents).config(endpoints).start().await;
    let body = r#"{"action":"opened"}"#;
    let accepted = app.github_delivery(SECRET, "d1", body).header("x-request-id", "delivered");
    assert_eq!(accepted.send().await.status, 200);
    let (request, children) = collector.request("delivered", 3).await;
    let route = format!("{PREFIX}/{{organization}}/{{webhookId}}");
    assert_eq!(request.name, format!("POST {route}"));
    assert_eq!(children.len(), 2, "{children:#?}");
    let route = ("http.route", json!(route));
    assert_attributes(&request, &[route.clone(), ("url.path", Value::Null)]);
    let refused =
        app.github_delivery("another secret", "d2", body).header("x-request-id", "forged");
    refused.send().await.assert_rejected(401, "invalid_signature");
    let (request, _) = collector.request("forged", 1).await;
    assert_attributes(&request, &[route, ("error.type", json!("invalid_signature"))]);
    assert!(!format!("{:?}", collector.spans()).contains("wh_1"));
}

#[tokio::test]
async fn requests_over_tls_are_traced_as_such() {
    let (collector, authority) = (Collector::start().await, Authority::new());
    let app: App = traced(&collector, 1.0).tls(&authority).start().await;
    app.webhook("wh_1").header("x-request-id", "secure").send().await;
    let (request, _) = collector.request("secure", 3).await;
    let scheme = ("url.scheme", json!("https"));
    assert_attributes(&request, &[scheme, ("network.protocol.version", json!("2"))]);
}
