//! Shapes of documents: malformed ones next to valid ones, and other names for every field.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use mongodb::bson::doc;
use serde_json::{Value, json};
use testkit::documents::{trigger, user, workflow, workflow_of};
use testkit::mongo::document;
use testkit::tokens::{now, token};
use testkit::wait::until;
use testkit::{App, Documents, Mongo};

#[tokio::test]
async fn malformed_workflows_are_left_out_and_counted() {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    let malformed = malformed_workflows("early");
    let count = malformed.len();
    documents.workflows.splice(0..0, malformed);
    documents.workflows.extend(unusual_workflows());
    database.insert(&documents).await;
    let app = App::build().mongo(&database).start().await;

    assert_eq!(skipped(&app, "workflows").await, count as f64);
    assert_eq!(skipped(&app, "users").await, 0.0);
    matched(&app, "wh_1", 1).await;
    for workflow in unusual_workflows() {
        let id = workflow["_id"].as_str().expect("a string");
        matched(&app, &format!("wh_{id}"), 1).await;
    }
    matched(&app, "wh_bad", 0).await;

    // The same documents again, as changes.
    let mut late: Vec<_> = malformed_workflows("late").into_iter().map(document).collect();
    late.push(document(workflow("wf_last", "org_a", "wh_last")));
    database.workflows().insert_many(late).await.expect("inserted");
    matches(&app, "wh_last", 1).await;
    assert_eq!(skipped(&app, "workflows").await, 2.0 * count as f64);
    matched(&app, "wh_1", 1).await;
    matched(&app, "wh_bad", 0).await;
    app.hookgate.ready().await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn malformed_users_are_left_out_and_counted() {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    let malformed = malformed_users("early");
    let count = malformed.len();
    documents.users.splice(0..0, malformed);
    // A user without a key is not malformed.
    documents.users.push(json!({ "_id": "keyless", "organizationId": "org_a" }));
    documents.users.push(json!({ "_id": "null", "organizationId": "org_a", "apiKey": null }));
    documents.users.push(json!({ "_id": "empty", "organizationId": "org_a", "apiKey": "" }));
    documents.users.push(json!({ "_id": "none", "organizationId": "org_b", "apiKey": [] }));
    documents.users.push(json!({ "_id": "some", "organizationId": "org_b", "apiKey": ["", "k"] }));
    database.insert(&documents).await;
    let app = App::build().mongo(&database).start().await;
    assert_eq!(skipped(&app, "users").await, count as f64);
    assert_eq!(app.hookgate.metrics().await.value("hookgate_index_api_keys", &[]), 3.0);
    matched(&app, "wh_1", 1).await;
    app.webhook("wh_1").bearer("key_bad").send().await.assert_rejected(401, "invalid_api_key");

    let mut late: Vec<_> = malformed_users("late").into_iter().map(document).collect();
    late.push(document(user("user_last", "org_a", "key_last")));
    database.users().insert_many(late).await.expect("inserted");
    until("the last key is accepted", async || {
        app.webhook("wh_1").bearer("key_last").send().await.status == 202
    })
    .await;
    assert_eq!(skipped(&app, "users").await, 2.0 * count as f64);
    app.webhook("wh_1").bearer("key_bad").send().await.assert_rejected(401, "invalid_api_key");
}

#[tokio::test]
async fn a_malformed_document_is_logged_once_and_served_when_fixed() {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow_of("wf_broken", "org_a", json!("no nodes")));
    documents.users.push(json!({ "_id": "user_broken", "organizationId": 5.5, "apiKey": "key_m" }));
    database.insert(&documents).await;
    let app = App::build().mongo(&database).start().await;
    let workflows = database.workflows();
    let wf_broken = || doc! { "_id": "wf_broken" };
    for round in 1..=3 {
        let change = doc! { "$set": { "nodes": round } };
        workflows.update_one(wf_broken(), change).await.expect("updated");
        until("the document is read again", async || {
            skipped(&app, "workflows").await >= f64::from(round) + 1.0
        })
        .await;
    }
    for (id, key) in [("wf_broken", "key_a"), ("user_broken", "key_b")] {
        let log = app.hookgate.log();
        let about = log.lines().filter(|line| line.contains(id)).count();
        assert_eq!(about, 1, "{id} is named once");
        matched_by(&app, key, "wh_1", 1).await;
    }

    let nodes = document(json!({ "nodes": [trigger("n1", "wh_mended")] }));
    workflows.update_one(wf_broken(), doc! { "$set": nodes }).await.expect("updated");
    matches(&app, "wh_mended", 1).await;
    let change = doc! { "$set": { "organizationId": "org_a" } };
    database.users().update_one(doc! { "_id": "user_broken" }, change).await.expect("updated");
    until("the user is accepted", async || {
        app.webhook("wh_mended").bearer("key_m").send().await.status == 202
    })
    .await;

    // A valid workflow that becomes malformed is no longer served.
    let change = doc! { "$unset": { "organizationId": "" } };
    workflows.update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
    matches(&app, "wh_1", 0).await;
}

#[tokio::test]
async fn unfinished_and_malformed_nodes_do_not_affect_their_workflow() {
    let node = |fields: Value| {
        let mut node = json!({ "type": "WebhookTrigger" });
        node.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        node
    };
    let not_configured = [
        json!({ "id": "none" }),
        json!({ "id": "empty", "data": {} }),
        json!({ "id": "null", "data": null }),
        json!({ "id": "text", "data": "wh_bad" }),
        json!({ "id": "null_id", "data": { "webhookId": null } }),
        json!({ "id": "empty_id", "data": { "webhookId": "" } }),
        json!({ "data": { "more": 1 } }),
    ];
    let malformed = [
        json!({ "id": "number", "data": { "webhookId": 5 } }),
        json!({ "id": "list", "data": { "webhookId": ["wh_bad"] } }),
        json!({ "id": "document", "data": { "webhookId": {} } }),
        json!({ "id": "long", "data": { "webhookId": "w".repeat(1 << 20) } }),
        json!({ "id": "data_list", "data": [{ "webhookId": "wh_bad" }] }),
        json!({ "data": { "webhookId": "wh_bad" } }),
        json!({ "id": null, "data": { "webhookId": "wh_bad" } }),
        json!({ "id": 5.5, "data": { "webhookId": "wh_bad" } }),
    ];
    let nodes: Vec<Value> = [trigger("n1", "wh_good")]
        .into_iter()
        .chain(not_configured.iter().chain(&malformed).cloned().map(node))
        .chain([trigger("n2", "wh_good")])
        .collect();
    let mut documents = Documents::two_organizations();
    documents.workflows.push(workflow_of("wf_editor", "org_a", json!(nodes)));
    let database = Mongo::shared().await.database().await;
    database.insert(&documents).await;
    for app in [App::build().mongo(&database), App::build().documents(documents)] {
        let app = app.start().await;
        matched(&app, "wh_good", 1).await;
        matched(&app, "wh_bad", 0).await;
        assert_eq!(skipped(&app, "workflows").await, 0.0);
        let count = app.hookgate.metrics().await.sum("hookgate_index_skipped_nodes_total");
        assert_eq!(count, malformed.len() as f64);
        // Nodes that are not configured yet are not logged.
        let named = |part: &str| app.hookgate.log().matches(part).count();
        let parts = ["node number", "node list", "node document", "node long", "node data_list"];
        for part in parts.into_iter().chain(["no. 14", "no. 15", "no. 16"]) {
            assert_eq!(named(part), 1, "{part}");
        }
        assert_eq!(named("malformed part of a document skipped"), malformed.len());
        app.assert_accounting().await;
    }

    let app = App::build().mongo(&database).start().await;
    let before = app.hookgate.metrics().await.sum("hookgate_index_skipped_nodes_total");
    let change = doc! { "$set": { "nodes.8.data.webhookId": "wh_mended" } };
    let workflows = database.workflows();
    workflows.update_one(doc! { "_id": "wf_editor" }, change).await.expect("updated");
    matches(&app, "wh_mended", 1).await;
    matched(&app, "wh_good", 1).await;
    let again = app.hookgate.metrics().await.sum("hookgate_index_skipped_nodes_total") - before;
    assert_eq!(
        again,
        malformed.len() as f64 - 1.0,
        "every read of a malformed document is counted"
    );
    assert_eq!(app.hookgate.log().matches("node list").count(), 1, "named once");
}

#[tokio::test]
async fn a_malformed_api_key_does_not_affect_its_user() {
    let digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    let member =
        |id: &str, key: Value| json!({ "_id": id, "organizationId": "org_a", "apiKey": key });
    for (encoding, key, keys) in [
        ("plain", "key_a", json!(["key_a", 5, null, { "key": "x" }])),
        ("sha256", "foo", json!([digest, "not-a-digest-but-a-secret", null, 7])),
    ] {
        let database = Mongo::shared().await.database().await;
        let mut documents = Documents::two_organizations();
        documents.users = vec![member("listed", keys), member("alone", json!(5))];
        documents.users.push(member("deep", json!({ "key": "x" })));
        // The last document written may be read twice.
        documents.users.push(member("good", json!(null)));
        database.insert(&documents).await;
        let app = App::build().mongo(&database).config(|config| {
            config.set("users.api_key_encoding", encoding);
        });
        let app = app.start().await;
        matched_by(&app, key, "wh_1", 1).await;
        let by_token = token(&json!({ "sub": "alone", "exp": now() + 60 }));
        matched_by(&app, &by_token, "wh_1", 1).await;
        assert_eq!(skipped(&app, "users").await, 0.0);
        let metrics = app.hookgate.metrics().await;
        assert_eq!(metrics.value("hookgate_index_skipped_api_keys_total", &[]), 4.0);
        assert_eq!(metrics.value("hookgate_index_api_keys", &[]), 1.0);
        let log = app.hookgate.log();
        assert_eq!(log.matches("malformed part of a document skipped").count(), 4, "{log}");
        assert!(log.contains("API key no. 2") && !log.contains("not-a-digest"), "{log}");
    }
}

#[tokio::test]
async fn every_field_name_is_configurable() {
    let database = Mongo::shared().await.database().await;
    let flow = |id: &str, tenant: &str, webhook: &str, on: bool| {
        let graph = json!({ "nodes": [trigger("n1", webhook)] });
        json!({ "_id": id, "tenant": tenant, "live": on, "enabled": false, "nodes": 5,
            "definition": { "graph": graph }, "organizationId": "org_wrong" })
    };
    let member = |id: &str, tenant: &str, keys: Value, on: bool| {
        json!({ "_id": id, "company": tenant, "employed": on, "enabled": false, "apiKey": "key_old",
            "access": { "rest": { "keys": keys } }, "organizationId": "org_wrong" })
    };
    let flows = [
        flow("wf_1", "org_a", "wh_1", true),
        flow("wf_off", "org_a", "wh_1", false),
        flow("wf_b", "org_b", "wh_1", true),
    ];
    let members = [
        member("user_1", "org_a", json!(["key_a", "key_a2"]), true),
        member("user_off", "org_a", json!("key_off"), false),
        member("user_b", "org_b", json!("key_b"), true),
    ];
    database.collection("flows").insert_many(flows.map(document)).await.expect("inserted");
    database.collection("members").insert_many(members.map(document)).await.expect("inserted");
    let app = App::build()
        .mongo(&database)
        .config(|config| {
            config
                .set("triggers.collection", "flows")
                .set("triggers.nodes_field", "definition.graph.nodes")
                .set("triggers.organization_field", "tenant")
                .set("triggers.active_field", "live")
                .set("users.collection", "members")
                .set("users.organization_field", "company")
                .set("users.api_key_field", "access.rest.keys")
                .set("users.active_field", "employed");
        })
        .start()
        .await;
    for key in ["key_a", "key_a2", "key_b"] {
        matched_by(&app, key, "wh_1", 1).await;
    }
    for key in ["key_off", "key_old"] {
        app.webhook("wh_1").bearer(key).send().await.assert_rejected(401, "invalid_api_key");
    }

    let node = doc! { "definition.graph.nodes.0.data.webhookId": "wh_2" };
    let flows = database.collection("flows");
    flows.update_one(doc! { "_id": "wf_1" }, doc! { "$set": node }).await.expect("updated");
    matches(&app, "wh_2", 1).await;
    for broken in [json!("text"), json!(null), json!([1, 2]), json!({ "graph": 5 })] {
        let skipped_before = skipped(&app, "workflows").await;
        let change = doc! { "$set": document(json!({ "definition": broken })) };
        flows.update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
        matches(&app, "wh_2", 0).await;
        until(&format!("{broken} is counted"), async || {
            skipped(&app, "workflows").await > skipped_before
        })
        .await;
        matched_by(&app, "key_b", "wh_1", 1).await;
        let mended = document(flow("wf_1", "org_a", "wh_2", true));
        flows.replace_one(doc! { "_id": "wf_1" }, mended).await.expect("replaced");
        matches(&app, "wh_2", 1).await;
    }
}

#[tokio::test]
async fn documents_without_an_enabled_field_are_enabled() {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    documents.workflows[0]["enabled"] = json!(false);
    documents.workflows[1]["enabled"] = json!("a text");
    documents.users[0]["enabled"] = json!(false);
    documents.users[1]["enabled"] = json!(5);
    database.insert(&documents).await;
    let app = App::build()
        .mongo(&database)
        .config(|config| {
            config.set("triggers.active_field", "").set("users.active_field", "");
        })
        .start()
        .await;
    matched_by(&app, "key_a", "wh_1", 1).await;
    matched_by(&app, "key_b", "wh_1", 1).await;
}

/// Workflows that are malformed in different ways and would otherwise match `wh_bad`.
fn malformed_workflows(prefix: &str) -> Vec<Value> {
    let good_nodes = || json!([trigger("n1", "wh_bad")]);
    let mut all = Vec::new();
    let mut add = |fields: Value| {
        let mut document =
            json!({ "_id": format!("{prefix}_{}", all.len()), "organizationId": "org_a" });
        let target = document.as_object_mut().expect("an object");
        for (name, value) in fields.as_object().expect("an object") {
            if value == "-" {
                target.remove(name);
            } else {
                target.insert(name.clone(), value.clone());
            }
        }
        all.push(document);
    };
    let wrong_ids = || {
        [json!("-"), json!(null), json!(7.5), json!(""), json!(["org_a"]), json!({ "id": "org_a" })]
    };
    for organization in wrong_ids().into_iter().chain([json!("x".repeat(257)), json!(true)]) {
        add(json!({ "organizationId": organization, "nodes": good_nodes() }));
    }
    for nodes in [json!("-"), json!(null), json!("text"), json!({ "0": 1 }), json!(5), json!(true)]
    {
        add(json!({ "nodes": nodes }));
    }
    for enabled in [json!("yes"), json!(1), json!([true]), json!({})] {
        add(json!({ "enabled": enabled, "nodes": good_nodes() }));
    }
    let offset = if prefix == "late" { 1000 } else { 0 };
    add(json!({ "_id": f64::from(offset) + 5.25, "nodes": good_nodes() }));
    add(json!({ "_id": f64::from(offset) + 1.5, "nodes": good_nodes() }));
    add(json!({ "_id": { "of": prefix }, "nodes": good_nodes() }));
    add(json!({ "_id": prefix == "late", "nodes": good_nodes() }));
    add(json!({ "_id": prefix.repeat(100), "nodes": good_nodes() }));
    all
}

/// Unusual but valid workflows, each with a trigger on `wh_` and its id.
fn unusual_workflows() -> Vec<Value> {
    let own = |id: &str| trigger("n1", &format!("wh_{id}"));
    let many: Vec<Value> = (0..9_999)
        .map(|serial| json!({ "id": format!("m{serial}"), "type": "SendMessage", "data": serial }))
        .chain([own("many")])
        .collect();
    let triggers: Vec<Value> =
        (0..10_000).map(|serial| trigger(&format!("t{serial}"), "wh_triggers")).collect();
    let odd = json!([
        1,
        null,
        "text",
        true,
        [own("odd")],
        {},
        { "type": 5 },
        { "type": { "a": "WebhookTrigger" } },
        { "id": 7, "type": "Other", "data": null },
        { "id": "n1", "type": "WebhookTrigger", "data": { "webhookId": "wh_odd", "$a.b": { "": [1] } } },
    ]);
    vec![
        workflow_of("many", "org_a", Value::Array(many)),
        workflow_of("triggers", "org_a", Value::Array(triggers)),
        workflow_of("odd", "org_a", odd),
        json!({ "_id": "on", "organizationId": "org_a", "enabled": null, "nodes": [own("on")] }),
        json!({ "_id": "bare", "organizationId": "org_a", "nodes": [own("bare")] }),
    ]
}

/// Users that are malformed in different ways and would otherwise have the key `key_bad`.
fn malformed_users(prefix: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |organization: Value, key: Value, enabled: Value| {
        let id = format!("{prefix}_{}", all.len());
        let mut document = json!({ "_id": id, "apiKey": key, "enabled": enabled });
        let fields = document.as_object_mut().expect("an object");
        if organization != "-" {
            fields.insert("organizationId".to_owned(), organization);
        }
        all.push(document);
    };
    for organization in [
        json!("-"),
        json!(null),
        json!(7.5),
        json!(""),
        json!([]),
        json!({}),
        json!("x".repeat(257)),
    ] {
        add(organization, json!("key_bad"), json!(true));
    }
    for enabled in [json!("yes"), json!(1), json!([])] {
        add(json!("org_a"), json!("key_bad"), enabled);
    }
    let numbered = if prefix == "late" { 6.5 } else { 5.5 };
    all.push(json!({ "_id": numbered, "organizationId": "org_a", "apiKey": "key_bad" }));
    all
}

async fn skipped(app: &App, collection: &str) -> f64 {
    let name = "hookgate_index_skipped_documents_total";
    app.hookgate.metrics().await.value(name, &[("collection", collection)])
}

/// Asserts the number of matches with `key_a`.
async fn matched(app: &App, webhook: &str, count: u64) {
    matched_by(app, "key_a", webhook, count).await;
}

/// Asserts the number of matches with this key.
async fn matched_by(app: &App, key: &str, webhook: &str, count: u64) {
    let reply = app.webhook(webhook).bearer(key).send().await;
    assert_eq!(reply.matched(), count, "{webhook}");
}

/// Waits for this number of matches with `key_a`.
async fn matches(app: &App, webhook: &str, count: u64) {
    until(&format!("{webhook} matches {count}"), async || {
        app.webhook(webhook).send().await.has_matched(count)
    })
    .await;
}
