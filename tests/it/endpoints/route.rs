//! The way of a delivery, from its address to the worker.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::deliveries::{PREFIX, endpoints, github_signature, verified_trigger};
use testkit::documents::workflow_of;
use testkit::official::NODE_6;
use testkit::{App, Documents, Reply};

pub(super) const SECRET: &str = "It's a Secret to Everybody";
pub(super) const BODY: &str = r#"{"action":"opened","number":7.0}"#;

/// The code of a delivery that no verification accepts, and of one whose only fault is its time.
pub(super) const INVALID: &str = "invalid_signature";
pub(super) const STALE: &str = "stale_signature";

#[tokio::test]
async fn a_signed_delivery_starts_its_workflow() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    let worker = NODE_6.worker(&app.redis, "workflow-runner", &[]).await;
    let reply = app.github_delivery(SECRET, "delivery-1", BODY).send().await;
    assert_eq!(matched(&reply, 200), 1);
    let [job] = worker.reports("completed", 1).await.try_into().expect("one job");
    assert_eq!(job["data"]["workflowId"], "wf_1");
    assert_eq!(job["data"]["organizationId"], "org_a");
    assert_eq!(job["data"]["userId"], Value::Null);
    let trigger = &job["data"]["trigger"];
    assert_eq!(trigger["nodeIds"], json!(["n1"]));
    assert_eq!(trigger["payload"]["action"], "opened");
    let request = json!({
        "method": "POST", "path": format!("{PREFIX}/org_a/wh_1"), "query": {}, "headers": {},
        "contentType": "application/json",
    });
    assert_eq!(trigger["request"], request);
    worker.close().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn the_payload_is_verbatim() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    app.github_delivery(SECRET, "d", BODY).send().await;
    assert_eq!(app.redis.queue().only_job().await.payload_text(), BODY);
}

#[tokio::test]
async fn a_delivery_that_is_not_signed_as_its_trigger_asks_is_refused() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    let unsigned = app.github_delivery(SECRET, "d", BODY).without("x-hub-signature-256");
    let other_secret = app.github_delivery("another secret of sixteen bytes", "d", BODY);
    let other_body = app
        .delivery("org_a", "wh_1", "{}")
        .header("x-hub-signature-256", github_signature(SECRET, BODY.as_bytes()));
    for call in [unsigned, other_secret, other_body] {
        let reply = call.send().await;
        reply.assert_rejected(401, "invalid_signature");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    app.redis.queue().assert_empty().await;
    let log = app.hookgate.log();
    for refusal in ["github missing: x-hub-signature-256", "github wrong_signature"] {
        assert!(log.contains(refusal), "{refusal}: {log}");
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn only_addresses_of_triggers_with_a_verification_exist() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    for (organization, webhook) in [("org_a", "wh_2"), ("org_c", "wh_1"), ("org_b", "wh_1")] {
        let reply = app.delivery(organization, webhook, BODY).send().await;
        reply.assert_rejected(404, "unknown_webhook");
    }
    for path in ["/api/webhook/in", "/api/webhook/in/org_a", "/api/webhook/in/org_a/wh_1/x"] {
        app.caller.call(Method::POST, path).send().await.assert_rejected(404, "not_found");
    }
    let refused = app.caller.call(Method::TRACE, &format!("{PREFIX}/org_a/wh_1")).send().await;
    refused.assert_rejected(405, "method_not_allowed");
    let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_eq!(refused.header("allow"), Some(methods));
    app.assert_accounting().await;
}

#[tokio::test]
async fn every_method_delivers_but_head_and_options() {
    let app = app(&json!({ "scheme": "query", "name": "token", "secret": SECRET })).await;
    let path = format!("{PREFIX}/org_a/wh_1?token=It%27s+a+Secret+to+Everybody&a=1");
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let reply = app.caller.call(method.clone(), &path).send().await;
        assert_eq!(matched(&reply, 200), 1, "{method}");
    }
    let probe = app.caller.call(Method::HEAD, &path).send().await;
    assert_eq!((probe.status, probe.body.len()), (200, 0));
    let options = app.caller.call(Method::OPTIONS, &path).send().await;
    assert_eq!(options.status, 204);
    for job in app.redis.queue().waiting_exactly(5).await {
        assert_eq!(job.payload_text(), "null");
        assert_eq!(job.data()["trigger"]["request"]["query"], json!({ "a": "1" }));
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn the_status_is_that_of_the_verification() {
    for (status, body) in [(200, true), (202, true), (204, false)] {
        let verification = json!({ "scheme": "github", "secret": SECRET, "status": status });
        let app = app(&verification).await;
        let reply = app.github_delivery(SECRET, "d", BODY).send().await;
        assert_eq!((reply.status, !reply.body.is_empty()), (status, body));
        app.redis.queue().only_job().await;
    }
}

#[tokio::test]
async fn a_delivery_that_comes_again_starts_nothing() {
    let app = app(&json!({ "scheme": "github", "secret": SECRET })).await;
    let first = app.github_delivery(SECRET, "d-1", BODY).send().await;
    assert_eq!((matched(&first, 200), first.header("idempotency-replayed")), (1, None));
    // Its body is not compared.
    for body in [BODY, r#"{"attempt":2}"#] {
        let again = app.github_delivery(SECRET, "d-1", body).send().await;
        assert_eq!(again.text(), first.text());
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    app.redis.queue().only_job().await;
    let other = app.github_delivery(SECRET, "d-2", BODY).send().await;
    assert_eq!(matched(&other, 200), 1);
    app.redis.queue().waiting_exactly(2).await;
}

#[tokio::test]
async fn endpoints_are_off_as_shipped() {
    let documents = documents(&json!({ "scheme": "github", "secret": SECRET }));
    let app = App::build().documents(documents).start().await;
    app.github_delivery(SECRET, "d", BODY).send().await.assert_rejected(404, "not_found");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_job_names_only_the_nodes_that_accept() {
    let other = "another secret of sixteen bytes";
    let github = |secret: &str| json!({ "scheme": "github", "secret": secret });
    let nodes = json!([
        verified_trigger("n1", "wh_1", &github(SECRET)),
        verified_trigger("n2", "wh_1", &github(other)),
        verified_trigger("n3", "wh_1", &github(SECRET)),
    ]);
    let mut documents = Documents::two_organizations();
    documents.workflows[0] = workflow_of("wf_1", "org_a", nodes);
    let second = json!([verified_trigger("m1", "wh_1", &github(other))]);
    documents.workflows.push(workflow_of("wf_2", "org_a", second));
    let app = App::build().documents(documents).config(endpoints).start().await;
    let reply = app.github_delivery(SECRET, "d", BODY).send().await;
    assert_eq!(matched(&reply, 200), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.data()["trigger"]["nodeIds"], json!(["n1", "n3"]));
    let reply = app.github_delivery(other, "d", BODY).send().await;
    assert_eq!(matched(&reply, 200), 2);
}

#[tokio::test]
async fn the_preview_of_an_address_says_what_it_has() {
    let nodes = json!([
        verified_trigger("n1", "wh_1", &json!({ "scheme": "github", "secret": SECRET, "status": 204 })),
        verified_trigger("n2", "wh_1", &json!({ "scheme": "gitbub", "secret": SECRET })),
        verified_trigger("n3", "wh_1", &json!("nowhere")),
        { "id": "n4", "type": "WebhookTrigger", "data": { "webhookId": "wh_1" } },
    ]);
    let mut documents = Documents::two_organizations();
    documents.workflows[0] = workflow_of("wf_1", "org_a", nodes);
    let app = App::build().documents(documents).config(endpoints).start().await;
    app.github_delivery("another secret of sixteen bytes", "d", BODY).send().await;
    let preview = |credential: &str| {
        let call = app.caller.call(Method::POST, &format!("{PREFIX}/org_a/wh_1/preview"));
        call.bearer(credential).send()
    };
    let data = preview("key_a").await.json()["data"].clone();
    let [trigger] = data["triggers"].as_array().expect("a list").as_slice() else {
        panic!("one trigger: {data}");
    };
    assert_eq!((&trigger["nodeId"], &trigger["scheme"]), (&json!("n1"), &json!("github")));
    assert_eq!(
        (&trigger["status"], &trigger["lastRefusal"]["kind"]),
        (&json!(204), &json!("wrong_signature"))
    );
    let excluded = data["excluded"].as_array().expect("a list");
    let nodes: Vec<&Value> = excluded.iter().map(|row| &row["nodeId"]).collect();
    assert_eq!(nodes, ["n2", "n3", "n4"]);
    assert!(!data.to_string().contains(SECRET));
    preview("key_b").await.assert_rejected(404, "not_found");
    preview("key_x").await.assert_rejected(401, "invalid_api_key");
    app.assert_accounting().await;
}

pub(super) fn documents(verification: &Value) -> Documents {
    let mut documents = Documents::two_organizations();
    let nodes = json!([verified_trigger("n1", "wh_1", verification)]);
    let workflow = documents.workflows.first_mut().expect("a workflow");
    *workflow = workflow_of("wf_1", "org_a", nodes);
    documents
}

/// Starts with `wf_1` of `org_a`, whose trigger has this verification.
pub(super) async fn app(verification: &Value) -> App {
    App::build().documents(documents(verification)).config(endpoints).start().await
}

/// `matchedCount` of an answer with this status.
#[track_caller]
pub(super) fn matched(reply: &Reply, status: u16) -> u64 {
    assert_eq!(reply.status, status, "{}", reply.text());
    reply.json().pointer("/data/matchedCount").and_then(Value::as_u64).expect("a number")
}
