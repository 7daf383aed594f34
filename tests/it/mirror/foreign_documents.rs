//! Documents of engines that have other names and values for everything.

use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::mongo::document;
use testkit::wait::until;
use testkit::{App, Documents, Mongo, confidential};

const WORKSPACE: &str = "0189f7e4-7a2b-7c3d-8e4f-5a6b7c8d9e0f";
const FLOW: &str = "65f0a1b2c3d4e5f6a7b8c9d1";
const MEMBER: &str = "65f0a1b2c3d4e5f6a7b8c9d2";
const VERTEX: &str = "65f0a1b2c3d4e5f6a7b8c9d3";

/// The workflow of an engine whose nodes are the vertices of a graph.
fn flow(id: &str, status: &str, hook: &Value) -> Value {
    let vertex = |key: Value, kind: &str, hook: &Value| json!({ "key": key, "meta": { "kind": kind }, "config": { "http": { "path": hook }, "code": "x" } });
    let vertices = json!([
        vertex(json!("v0"), "action", hook),
        vertex(json!({ "$oid": VERTEX }), "trigger.http", hook),
        vertex(json!("v2"), "trigger.form", hook),
        vertex(json!("v3"), "trigger.form", &json!(null)),
        vertex(json!(true), "trigger.form", hook),
        { "key": "v5", "meta": "trigger.http", "config": { "http": { "path": hook } } },
    ]);
    json!({
        "_id": { "$oid": id }, "workspace": { "id": { "$uuid": WORKSPACE } }, "status": status,
        "deletedAt": null, "definition": { "graph": { "vertices": vertices } }, "enabled": false,
    })
}

/// A user of this engine, whose keys are documents of their own.
fn member(id: &str, state: i32, keys: &[&str]) -> Value {
    for key in keys {
        confidential::credential(key);
    }
    let keys: Vec<Value> = keys.iter().map(|key| json!({ "value": key, "name": "ci" })).collect();
    json!({
        "_id": { "$oid": id }, "workspaces": { "current": { "$uuid": WORKSPACE } },
        "access": { "tokens": keys }, "state": state, "kind": "person",
    })
}

#[tokio::test]
async fn an_engine_with_a_graph_is_served_and_followed() {
    let database = Mongo::shared().await.database().await;
    let flows = database.collection("flows");
    flows.insert_one(document(flow(FLOW, "published", &json!("wh_1")))).await.expect("inserted");
    let members = database.collection("members");
    let other = "65f0a1b2c3d4e5f6a7b8c9d4";
    let both = [member(MEMBER, 1, &["key_one", "key_two"]), member(other, 2, &["key_off"])];
    members.insert_many(both.map(document)).await.expect("inserted");
    let app = App::build().mongo(&database).config(|config| {
        config
            .set("triggers.collection", "flows")
            .set("triggers.nodes_field", "definition.graph.vertices")
            .set("triggers.organization_field", "workspace.id")
            .set("triggers.active_field", "status")
            .set("triggers.active_values", vec!["published", "testing"])
            .set("triggers.filter", r#"{"deletedAt": null}"#)
            .set("triggers.node_types", vec!["trigger.http", "trigger.form"])
            .set("triggers.node_type_field", "meta.kind")
            .set("triggers.node_id_field", "key")
            .set("triggers.webhook_id_field", "config.http.path")
            .set("users.collection", "members")
            .set("users.organization_field", "workspaces.current")
            .set("users.api_key_field", "access.tokens.value")
            .set("users.active_field", "state")
            .set("users.active_values", vec![1])
            .set("users.filter", r#"{"kind": {"$ne": "robot"}}"#);
    });
    let app = app.start().await;
    assert_eq!(app.webhook("wh_1").bearer("key_two").send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.at("/workflowId"), FLOW);
    assert_eq!(job.at("/organizationId"), WORKSPACE);
    assert_eq!(job.at("/userId"), MEMBER);
    assert_eq!(job.data()["trigger"]["nodeIds"], json!([VERTEX, "v2"]));
    let metrics = app.hookgate.metrics().await;
    assert!((metrics.sum("hookgate_index_skipped_nodes_total") - 1.0).abs() < 0.5);
    app.webhook("wh_1").bearer("key_off").send().await.assert_rejected(401, "invalid_api_key");

    let id = || doc! { "_id": document(flow(FLOW, "", &json!(null))).get("_id").cloned() };
    for (change, count) in [
        (doc! { "status": "draft" }, 0),
        (doc! { "status": "testing" }, 1),
        (doc! { "deletedAt": 5 }, 0),
        (doc! { "deletedAt": null }, 1),
        (
            doc! { "definition.graph.vertices.1.meta.kind": "x", "definition.graph.vertices.2.meta.kind": "x" },
            0,
        ),
        (doc! { "definition.graph.vertices.3.config.http.path": "wh_1" }, 1),
    ] {
        flows.update_one(id(), doc! { "$set": &change }).await.expect("updated");
        until(&format!("{change} leads to {count} matches"), async || {
            app.webhook("wh_1").bearer("key_one").send().await.has_matched(count)
        })
        .await;
    }
    let pull = doc! { "$pull": { "access.tokens": { "value": "key_two" } } };
    members.update_one(doc! { "state": 1 }, pull).await.expect("updated");
    until("the key is revoked", async || {
        app.webhook("wh_1").bearer("key_two").send().await.status == 401
    })
    .await;
    let robot = doc! { "$set": { "kind": "robot" } };
    members.update_one(doc! { "state": 1 }, robot).await.expect("updated");
    until("the user is gone", async || {
        app.webhook("wh_1").bearer("key_one").send().await.status == 401
    })
    .await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_engine_with_triggers_at_the_top_and_integer_ids_is_served() {
    let triggers = json!([
        { "triggerId": 1, "app": "hook", "hookPath": "orders" },
        { "triggerId": { "$numberLong": "2" }, "app": "schedule", "hookPath": "orders" },
        { "triggerId": { "$numberDouble": "3.0" }, "app": "hook", "hookPath": "orders" },
        { "triggerId": 4.5, "app": "hook", "hookPath": "orders" },
    ]);
    let database = Mongo::shared().await.database().await;
    let workflow = json!({ "_id": 42, "account": 7, "live": true, "triggers": triggers });
    confidential::credential("key_seven");
    let user = json!({ "_id": 1001, "account": { "$numberLong": "7" }, "apiKey": "key_seven" });
    let documents = Documents { workflows: vec![workflow], users: vec![user] };
    database.insert(&documents).await;
    for build in [App::build().mongo(&database), App::build().documents(documents)] {
        let app = build.config(|config| {
            config
                .set("triggers.nodes_field", "triggers")
                .set("triggers.organization_field", "account")
                .set("triggers.active_field", "live")
                .set("triggers.active_values", vec![true])
                .set("triggers.node_types", vec!["hook"])
                .set("triggers.node_type_field", "app")
                .set("triggers.node_id_field", "triggerId")
                .set("triggers.webhook_id_field", "hookPath")
                .set("users.organization_field", "account");
        });
        let app = app.start().await;
        assert_eq!(app.webhook("orders").bearer("key_seven").send().await.matched(), 1);
        let job = app.redis.queue().only_job().await;
        let data = job.data();
        assert_eq!((&data["workflowId"], &data["organizationId"]), (&json!("42"), &json!("7")));
        assert_eq!(
            (&data["userId"], &data["trigger"]["nodeIds"]),
            (&json!("1001"), &json!(["1", "3"]))
        );
    }
}

/// Each key without the others: the key, its value, and a change of the workflow or the user with
/// which it matches again.
fn keys() -> Vec<(&'static str, toml::Value, &'static str, Value)> {
    let hook = |fields: Value| json!({ "nodes": [fields] });
    vec![
        (
            "triggers.node_types",
            vec!["Hook", "Form"].into(),
            "workflow",
            hook(json!({ "id": "n1", "type": "Form", "data": { "webhookId": "wh_1" } })),
        ),
        (
            "triggers.node_type_field",
            "data.kind".into(),
            "workflow",
            hook(json!({ "id": "n1", "data": { "webhookId": "wh_1", "kind": "WebhookTrigger" } })),
        ),
        (
            "triggers.node_id_field",
            "data.key".into(),
            "workflow",
            hook(json!({ "type": "WebhookTrigger", "data": { "webhookId": "wh_1", "key": "n1" } })),
        ),
        (
            "triggers.webhook_id_field",
            "hook".into(),
            "workflow",
            hook(json!({ "id": "n1", "type": "WebhookTrigger", "hook": "wh_1" })),
        ),
        ("triggers.active_values", vec!["live"].into(), "workflow", json!({ "enabled": "live" })),
        ("triggers.active_values", vec![2].into(), "workflow", json!({ "enabled": 2.0 })),
        ("triggers.active_values", vec![false].into(), "workflow", json!({ "enabled": false })),
        ("triggers.filter", r#"{"kind": "flow"}"#.into(), "workflow", json!({ "kind": "flow" })),
        ("users.active_values", vec!["employed"].into(), "user", json!({ "enabled": "employed" })),
        (
            "users.api_key_field",
            "apiKeys.key".into(),
            "user",
            json!({ "apiKeys": [{ "key": "key_a" }] }),
        ),
        ("users.filter", r#"{"kind": "person"}"#.into(), "user", json!({ "kind": "person" })),
    ]
}

#[tokio::test]
async fn each_key_works_without_the_others() {
    for (key, value, changed, fields) in keys() {
        let database = Mongo::shared().await.database().await;
        database.insert(&Documents::two_organizations()).await;
        let app = App::build().mongo(&database).config(|config| {
            config.set(key, value.clone());
        });
        let app = app.start().await;
        // With the key the documents do not fit.
        let reply = app.webhook("wh_1").send().await;
        if changed == "workflow" {
            assert_eq!(reply.matched(), 0, "{key} = {value}");
        } else {
            reply.assert_rejected(401, "invalid_api_key");
        }
        let (collection, id) = match changed {
            "workflow" => (database.workflows(), "wf_1"),
            _ => (database.users(), "user_1"),
        };
        let change = doc! { "$set": document(fields) };
        collection.update_one(doc! { "_id": id }, change).await.expect("updated");
        until(&format!("{key} = {value} matches"), async || {
            app.webhook("wh_1").send().await.has_matched(1)
        })
        .await;
        assert_eq!(app.redis.queue().only_job().await.data()["trigger"]["nodeIds"], json!(["n1"]));
    }
}
