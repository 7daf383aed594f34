//! What a webhook would start, without starting it.

mod harness;

use harness::documents::{trigger, workflow, workflow_of};
use harness::http::Call;
use harness::tokens::{claims, token};
use harness::wait::until;
use harness::{App, Documents, ports};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/webhook/workflow/preview";

#[tokio::test]
async fn it_names_workflows_and_nodes_and_those_that_are_switched_off() {
    let mut documents = Documents::two_organizations();
    let nodes = json!([trigger("n1", "wh_p"), trigger("n\"2", "wh_p"), trigger("n3", "wh_q")]);
    let mut off = workflow("wf_off", "org_a", "wh_p");
    off["enabled"] = json!(false);
    documents.workflows.extend([
        workflow_of("wf_p", "org_a", nodes),
        off,
        workflow("wf_foreign", "org_b", "wh_p"),
    ]);
    let app = App::build().documents(documents.clone()).start().await;

    let started = json!([{ "workflowId": "wf_p", "nodeIds": ["n1", "n\"2"] }]);
    let found = preview(&app, "wh_p").await;
    assert_eq!(found["webhookId"], "wh_p");
    assert_eq!(found["matchedCount"], 1);
    assert_eq!(found["workflows"], started);
    assert_eq!(found["inactive"], json!([{ "workflowId": "wf_off" }]));
    assert!(found["indexAgeMs"].is_u64());
    let members = found.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(members, ["webhookId", "matchedCount", "workflows", "inactive", "indexAgeMs"]);

    let nothing = preview(&app, "nobody's").await;
    assert_eq!(nothing["matchedCount"], 0);
    assert_eq!((&nothing["workflows"], &nothing["inactive"]), (&json!([]), &json!([])));

    // What is switched on or off moves from one list to the other.
    for workflow in &mut documents.workflows {
        let is_off = workflow["enabled"] == json!(false);
        workflow["enabled"] = json!(is_off);
    }
    app.replace_documents(&documents);
    until("the workflows have changed places", async || {
        let found = preview(&app, "wh_p").await;
        found["inactive"] == json!([{ "workflowId": "wf_p" }])
            && found["workflows"] == json!([{ "workflowId": "wf_off", "nodeIds": ["n1"] }])
    })
    .await;
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_unmatched_total").to_string(), "0");
}

#[tokio::test]
async fn it_names_nodes_that_start_nothing() {
    let mut documents = Documents::two_organizations();
    let half_made = json!([
        { "id": "new", "type": "WebhookTrigger", "data": {} },
        { "type": "WebhookTrigger", "data": { "webhookId": "wh_p" } },
        { "id": "n3", "type": "WebhookTrigger", "data": { "webhookId": 5 } },
        { "type": "WebhookTrigger", "data": { "webhookId": "wh_other" } },
        trigger("n5", "wh_p"),
    ]);
    documents.workflows.push(workflow_of("wf_p", "org_a", half_made));
    let foreign = json!([{ "id": "new", "type": "WebhookTrigger" }]);
    documents.workflows.push(workflow_of("wf_foreign", "org_b", foreign));
    let app = App::build().documents(documents.clone()).start().await;
    let found = preview(&app, "wh_p").await;
    assert_eq!(found["workflows"], json!([{ "workflowId": "wf_p", "nodeIds": ["n5"] }]));
    // Those of the webhook come first; nodes of other webhooks are asked for by these.
    let skipped = |node: Value, reason: &str| json!({ "workflowId": "wf_p", "nodeId": node, "reason": reason });
    let expected = json!([
        skipped(Value::Null, "id is missing"),
        skipped(json!("new"), "the webhook id is not set yet"),
        skipped(json!("n3"), "data.webhookId is not a string of 1 to 256 bytes"),
    ]);
    assert_eq!(found["skippedNodes"], expected);

    documents.workflows.retain(|workflow| workflow["_id"] != "wf_p");
    app.replace_documents(&documents);
    until("the workflow is gone", async || {
        preview(&app, "wh_p").await.get("skippedNodes").is_none()
    })
    .await;
}

#[tokio::test]
async fn it_asks_for_the_same_credentials_and_body() {
    let app = App::start().await;
    ask(&app, "wh_1")
        .without("authorization")
        .send()
        .await
        .assert_rejected(401, "missing_credentials");
    ask(&app, "wh_1").body("{}").send().await.assert_rejected(400, "missing_webhook_id");
    ask(&app, "wh_1")
        .header("content-type", "text/plain")
        .send()
        .await
        .assert_rejected(415, "unsupported_media_type");
    let other = app.caller.call(Method::GET, PATH).send().await;
    other.assert_rejected(405, "method_not_allowed");
    assert_eq!(other.header("allow"), Some("POST"));
    app.assert_accounting().await;
}

#[tokio::test]
async fn it_needs_no_redis_and_denies_nothing_that_it_does_not_know() {
    let app = App::start().await;
    app.redis.freeze();
    assert_eq!(preview(&app, "wh_1").await["matchedCount"], 1);
    app.redis.thaw();

    let app = App::build().config(|config| {
        config.set("triggers.source", "mongodb");
        config.set("mongodb.uri", format!("mongodb://127.0.0.1:{}/", ports::free()));
    });
    let app = app.start_unready().await;
    let known = token(&claims("org_a", "u"));
    let unknown = ask(&app, "wh_1").bearer(&known).send().await;
    unknown.assert_rejected(503, "index_unavailable");
}

/// hyper keeps the memory of an answer for the life of its connection.
#[tokio::test]
async fn behind_a_large_answer_the_connection_closes() {
    let mut documents = Documents::two_organizations();
    let many = (0..2000).map(|number| workflow(&format!("wf_{number}"), "org_a", "wh_many"));
    documents.workflows.extend(many);
    documents.workflows.push(workflow("wf_few", "org_a", "wh_few"));
    let app = App::build().documents(documents).start().await;
    for (webhook, matched, connection) in [("wh_few", 1, None), ("wh_many", 2000, Some("close"))] {
        let reply = ask(&app, webhook).send().await;
        assert_eq!(reply.json().pointer("/data/matchedCount"), Some(&json!(matched)));
        assert_eq!(reply.header("connection"), connection);
    }
}

fn ask(app: &App, webhook: &str) -> Call {
    let body = json!({ "webhookId": webhook, "more": 1 }).to_string();
    let call = app.caller.call(Method::POST, PATH).bearer("key_a");
    call.header("content-type", "application/json").body(body)
}

async fn preview(app: &App, webhook: &str) -> Value {
    let reply = ask(app, webhook).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut answer = reply.json();
    assert_eq!(answer.pointer("/success"), Some(&json!(true)));
    answer.pointer_mut("/data").expect("data").take()
}
