//! Fields of documents in jobs: `{workflow.<path>}` and `{node.<path>}`.

use super::set_template;
use bson::doc;
use serde_json::{Value, json};
use testkit::mongo::{Mongo, document};
use testkit::wait::until;
use testkit::{App, Documents};

const TEMPLATE: &str = r#"
    flow = "{workflowId}"
    version = "{workflow.version}"
    text = "v{workflow.version} {workflow.name}{workflow.missing}"
    settings = "{workflow.settings}"
    owner = "{workflow.settings.owner}"
    created = "{workflow.createdAt}"
    label = "{node.data.label}"
    missing = ["{workflow.missing}", "{node.missing.field}"]
"#;

fn nodes(labels: [&str; 2]) -> Value {
    let node = |(id, label): (&str, &str)| json!({ "id": id, "type": "WebhookTrigger", "data": { "webhookId": "wh_1", "label": label } });
    json!([{ "id": "n0", "type": "SendMessage", "data": { "label": "no" } },
        node(("n1", labels[0])), node(("n2", labels[1]))])
}

fn documents() -> Documents {
    let owner = json!({ "$oid": "665f1c2e9b3e4a0012ab34cd" });
    let workflow = json!({
        "_id": "wf_1", "organizationId": "org_a", "nodes": nodes(["first \"1\"", "second"]),
        "version": 3, "name": "a \"b\"", "settings": { "owner": owner, "list": [1.5, null, true] },
        "createdAt": { "$date": "2026-11-23T21:49:34.005Z" },
    });
    Documents { workflows: vec![workflow], ..Documents::two_organizations() }
}

async fn newest_job(app: &App) -> Value {
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.redis.queue().waiting().await.pop().expect("a job").data()
}

#[tokio::test]
async fn fields_of_documents_are_in_jobs_and_their_changes_are_followed() {
    let database = Mongo::shared().await.database().await;
    database.insert(&documents()).await;
    let build = App::build().mongo(&database);
    let app = build.config(|config| set_template(config, TEMPLATE)).start().await;
    let owner = "665f1c2e9b3e4a0012ab34cd";
    let expected = json!({
        "flow": "wf_1", "version": 3, "text": "v3 a \"b\"",
        "settings": { "owner": owner, "list": [1.5, null, true] }, "owner": owner,
        "created": "2026-11-23T21:49:34.005Z", "label": "first \"1\"", "missing": [null, null],
    });
    assert_eq!(newest_job(&app).await, expected);

    let change = doc! { "$set": { "version": "4-beta", "name": 7, "nodes": bson_nodes() } };
    database.workflows().update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
    until("the change is followed", async || newest_job(&app).await["version"] == "4-beta").await;
    let job = newest_job(&app).await;
    assert_eq!((&job["text"], &job["label"]), (&json!("v4-beta 7"), &json!("changed")));
    app.assert_accounting().await;
}

/// Each of these documents is skipped alone.
#[tokio::test]
async fn values_that_do_not_fit_a_template_make_their_documents_malformed() {
    let one = |id: &str, text: Value, label: &str| {
        let mut workflow = documents().workflows.remove(0);
        workflow["_id"] = id.into();
        workflow["text"] = text;
        workflow["nodes"] = nodes([label, ""]);
        workflow
    };
    let (long, longest) = ("x".repeat(1023), "x".repeat(1022));
    let workflows = vec![
        one("boolean", true.into(), ""),
        one("array", json!(["a"]), ""),
        one("long", Value::Null, &long),
        one("longest", 7.into(), &longest),
    ];
    let app = App::build().documents(Documents { workflows, ..Documents::two_organizations() });
    let template =
        "flow = \"{workflowId}\"\ntext = \"x {workflow.text}\"\nlabel = \"{node.data.label}\"";
    let app = app.config(|config| set_template(config, template)).start().await;
    let expected = json!({ "flow": "longest", "text": "x 7", "label": longest });
    assert_eq!(newest_job(&app).await, expected);
    let metrics = app.hookgate.metrics().await;
    let skipped = [("collection", "workflows")];
    assert_eq!(metrics.value("hookgate_index_skipped_documents_total", &skipped), 3.0);
    let logged = app.hookgate.log();
    assert!(
        logged.contains("{node.data.label} is not a value of at most 1 KiB as JSON"),
        "{logged}"
    );
}

fn bson_nodes() -> bson::Bson {
    document(json!({ "nodes": nodes(["changed", "second"]) })).remove("nodes").expect("nodes")
}

/// Within a string only strings, numbers and null can stand.
#[tokio::test]
async fn an_object_within_a_string_makes_the_document_malformed() {
    let app = App::build().documents(documents());
    let template = "flow = \"{workflowId}\"\ntext = \"x {workflow.settings}\"";
    let app = app.config(|config| set_template(config, template)).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 0);
    let skipped = [("collection", "workflows")];
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.value("hookgate_index_skipped_documents_total", &skipped), 1.0);
    let reason = "{workflow.settings} is an object, but queue.data puts it into a string";
    assert!(app.hookgate.log().contains(reason));
}
