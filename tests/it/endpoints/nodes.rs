//! Trigger nodes whose verification cannot be used: counted, logged and named, and started by the
//! route of webhooks all the same.

use super::{github, node};
use serde_json::{Value, json};
use testkit::documents::workflow_of;
use testkit::hookgate::check_connect;
use testkit::metrics::Metrics;
use testkit::wait::until;
use testkit::{App, Documents, Mongo, confidential};

/// A secret where none belongs.
const STRAY: &str = "whsec_a-secret-at-a-wrong-place";

fn documents() -> Documents {
    confidential::credential(STRAY);
    let mut documents = Documents::two_organizations();
    let nodes = json!([
        node("good", "wh_in", &github("a-secret-of-a-sender-0123456789")),
        node("empty", "wh_in", &json!({ "scheme": "github", "secret": "" })),
        node("stray", "wh_in", &json!(STRAY)),
        node("type", "wh_in", &json!([STRAY])),
        node("none", "wh_in", &Value::Null),
    ]);
    documents.workflows.push(workflow_of("wf_in", "org_a", nodes));
    documents
}

const REASONS: [&str; 3] = [
    "wf_in, node empty: data.verification.secret is empty",
    "wf_in, node stray: data.verification is not the name of a verification that the settings have for its organization",
    "wf_in, node type: data.verification is not an object or the name of a verification",
];

/// The number of skipped nodes.
fn value(metrics: &Metrics) -> String {
    metrics.value("hookgate_index_skipped_nodes_total", &[]).to_string()
}

#[tokio::test]
async fn malformed_verifications_are_named_and_their_nodes_still_start() {
    let database = Mongo::shared().await.database().await;
    database.insert(&documents()).await;
    let build = App::build().mongo(&database).documents(documents());
    let build = build.config(|config| {
        config.set("endpoints.enabled", true);
    });
    let app = build.start().await;
    let skipped = async || value(&app.hookgate.metrics().await);
    assert_eq!(skipped().await, "3");
    let log = app.hookgate.log();
    for reason in REASONS {
        let (part, reason) = reason.split_once(": ").expect("a reason");
        let part = part.trim_start_matches("wf_in, ");
        let is_named = |line: &str| line.contains(part) && line.contains(reason);
        assert!(log.lines().any(is_named), "{reason}: {log}");
    }
    assert!(!log.contains(STRAY));
    assert_eq!(app.webhook("wh_in").send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    let nodes = &job.data()["trigger"]["nodeIds"];
    assert_eq!(*nodes, json!(["good", "empty", "stray", "type", "none"]), "{:?}", job.data());

    for source in ["mongodb", "file"] {
        let mut config = app.hookgate.config.clone();
        config.set("triggers.source", source);
        let (code, report) = check_connect(&config).await;
        assert_eq!(code, 0, "{report}");
        let part = if source == "file" { "triggers_file" } else { "mongodb" };
        let found = &report[part];
        assert_eq!(found["workflows"]["skipped_nodes"], 3, "{report}");
        assert_eq!(found["workflows"]["skipped_nodes_reasons"], json!(REASONS), "{report}");
        let warnings = found["warnings"].to_string();
        assert!(warnings.contains("3 trigger nodes of collection"), "{report}");
        assert!(!report.to_string().contains(STRAY));
    }

    // What a change brings is counted too.
    let nodes = vec![mongodb::bson::doc! {
        "id": "n1", "type": "WebhookTrigger", "data": { "webhookId": "wh_in", "verification": 5 },
    }];
    let change = mongodb::bson::doc! { "$set": { "nodes": nodes } };
    let filter = mongodb::bson::doc! { "_id": "wf_in" };
    database.workflows().update_one(filter, change).await.expect("updated");
    until("the change is read", async || skipped().await == "4").await;
}

#[tokio::test]
async fn nothing_is_counted_unless_endpoints_are_enabled() {
    let app = App::build().documents(documents()).start().await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(value(&metrics), "0");
    assert_eq!(app.webhook("wh_in").send().await.matched(), 1);
}
