//! The largest, deepest and oddest documents that MongoDB accepts, next to ordinary ones.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, Timestamp, doc};
use serde_json::{Value, json};
use testkit::agreement::reaches;
use testkit::documents::{trigger, user, workflow, workflow_of};
use testkit::mongo::{TestDatabase, document};
use testkit::wait::until;
use testkit::{App, Documents, Mongo};

const MANY_NODES: usize = 100_000;

#[tokio::test]
async fn a_workflow_with_a_hundred_thousand_nodes_is_read() {
    let (app, database) = serve(&[]).await;
    let own = |serial: usize| format!("wh_own_{serial}");
    let silent = json!({ "id": "s", "type": "SendMessage" });
    let mut mostly_silent = vec![silent; MANY_NODES - 1];
    mostly_silent.push(trigger("last", "wh_last"));
    let triggers: Vec<Value> = (0..MANY_NODES).map(|serial| trigger("n", &own(serial))).collect();
    for (id, nodes) in [("wf_silent", mostly_silent), ("wf_triggers", triggers)] {
        let workflow = document(workflow_of(id, "org_a", Value::Array(nodes)));
        database.workflows().insert_one(workflow).await.expect("inserted");
    }
    reaches(&app, "key_a", "wh_last", 1).await;
    let some = [0, 1, MANY_NODES / 2, MANY_NODES - 1].map(own);
    for webhook in &some {
        reaches(&app, "key_a", webhook, 1).await;
        reaches(&app, "key_b", webhook, 0).await;
    }
    index_has(&app, "hookgate_index_triggers", 3.0 + MANY_NODES as f64).await;

    let emptied = doc! { "$set": { "nodes": [] } };
    let by_id = doc! { "_id": "wf_triggers" };
    database.workflows().update_one(by_id, emptied).await.expect("updated");
    for webhook in &some {
        reaches(&app, "key_a", webhook, 0).await;
    }
    index_has(&app, "hookgate_index_triggers", 3.0).await;
    reaches(&app, "key_a", "wh_1", 1).await;
}

#[tokio::test]
async fn deep_and_wide_unread_fields_are_harmless() {
    let deep = |levels: usize| {
        (0..levels).fold(json!("bottom"), |inner, level| {
            if level % 2 == 0 { json!({ "d": inner }) } else { json!([inner]) }
        })
    };
    let with_data = |data: Value| json!([{ "id": "n1", "type": "WebhookTrigger", "data": data }]);
    let early = [
        workflow_of(
            "wf_deep",
            "org_a",
            with_data(json!({ "webhookId": "wh_deep", "x": deep(150) })),
        ),
        workflow_of("wf_bad", "org_a", with_data(json!({ "webhookId": deep(150) }))),
        workflow_of("wf_nodes", "org_a", deep(151)),
        workflow("wf_huge", "org_a", &"w".repeat(1 << 20)),
        json!({ "_id": "wf_org", "organizationId": deep(150), "nodes": [trigger("n", "wh_bad")] }),
    ];
    let (app, database) = serve(&early).await;
    reaches(&app, "key_a", "wh_deep", 1).await;
    reaches(&app, "key_a", "wh_1", 1).await;
    assert_eq!((skipped(&app, "workflows").await, skipped_nodes(&app).await), (2.0, 2.0));
    let change =
        doc! { "$set": document(json!({ "nodes": with_data(json!({ "webhookId": deep(150) })) })) };
    let workflows = database.workflows();
    workflows.update_one(doc! { "_id": "wf_deep" }, change).await.expect("updated");
    reaches(&app, "key_a", "wh_deep", 0).await;
    assert_eq!((skipped(&app, "workflows").await, skipped_nodes(&app).await), (2.0, 3.0));
    let named = app.hookgate.log().lines().filter(|line| line.contains("wf_huge")).count();
    assert_eq!(named, 1);
    let longest = app.hookgate.log().lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 4096, "a line of {longest} bytes");
}

/// Keys consist of organization and webhook: a NUL byte in either must not make two keys equal.
#[tokio::test]
async fn nul_bytes_are_ordinary_bytes() {
    let early = [
        workflow("wf_nul", "org_a", "wh\0x"),
        workflow("wf_only", "org_a", "\0"),
        workflow("wf_front", "org_a", "\0wh_1"),
        workflow("wf_other", "org_a\0", "wh_other"),
        workflow("wf_other_nul", "org_a\0wh", "x"),
    ];
    let (app, database) = serve(&early).await;
    let caller = user("user_nul", "org_a\0", "key_nul");
    database.users().insert_one(document(caller)).await.expect("inserted");
    until("the new key works", async || {
        app.webhook("wh_1").bearer("key_nul").send().await.status == 202
    })
    .await;
    for (key, webhook, count) in [
        ("key_a", "wh\0x", 1),
        ("key_a", "\0", 1),
        ("key_a", "\0wh_1", 1),
        ("key_a", "wh_1", 1),
        ("key_a", "wh", 0),
        ("key_a", "wh_1\0", 0),
        ("key_a", "\0wh_other", 0),
        ("key_a", "wh_other", 0),
        ("key_b", "wh\0x", 0),
        ("key_nul", "wh_other", 1),
        ("key_nul", "wh_1", 0),
        ("key_nul", "x", 0),
    ] {
        let reply = app.webhook(webhook).bearer(key).send().await;
        assert_eq!(reply.matched(), count, "{key} {webhook:?}");
    }
    let jobs = app.redis.queue().waiting().await;
    assert!(jobs.iter().all(|job| job.at("/organizationId") != "org_a\0wh"));

    let change = doc! { "$set": { "nodes.0.data.webhookId": "y\0" } };
    let workflows = database.workflows();
    workflows.update_one(doc! { "_id": "wf_nul" }, change).await.expect("updated");
    reaches(&app, "key_a", "y\0", 1).await;
    reaches(&app, "key_a", "wh\0x", 0).await;
}

#[tokio::test]
async fn nodes_of_one_workflow_with_one_webhook_start_one_job() {
    let twice =
        json!([trigger("n1", "wh_twice"), trigger("n2", "wh_twice"), trigger("n1", "wh_twice")]);
    let (app, database) = serve(&[workflow_of("wf_twice", "org_a", twice)]).await;
    assert_eq!(app.webhook("wh_twice").send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert_eq!(job.at("/workflowId"), "wf_twice");
    let pull = doc! { "$set": { "nodes.0.data.webhookId": "wh_once" } };
    let workflows = database.workflows();
    workflows.update_one(doc! { "_id": "wf_twice" }, pull).await.expect("updated");
    reaches(&app, "key_a", "wh_once", 1).await;
    reaches(&app, "key_a", "wh_twice", 1).await;
    workflows.delete_one(doc! { "_id": "wf_twice" }).await.expect("deleted");
    reaches(&app, "key_a", "wh_once", 0).await;
    reaches(&app, "key_a", "wh_twice", 0).await;
}

/// One caller reaches both spellings of its organization, whichever it uses itself, also after the
/// workflows are written again.
#[tokio::test]
async fn an_organization_equals_its_object_id_in_digits() {
    let organization = ObjectId::parse_str("65f0a1b2c3d4e5f6a7b8c9d0").expect("an id");
    let with = |id: &str, organization: Bson| {
        let mut workflow = document(workflow(id, "", "wh_org"));
        workflow.insert("organizationId", organization);
        workflow
    };
    let (app, database) = serve(&[]).await;
    let digits = Bson::from(organization.to_hex());
    for (id, organization) in [
        ("wf_oid", Bson::from(organization)),
        ("wf_text", digits.clone()),
        ("wf_capitals", Bson::from(organization.to_hex().to_uppercase())),
    ] {
        database.workflows().insert_one(with(id, organization)).await.expect("inserted");
    }
    for (id, organization) in [("u_oid", Bson::from(organization)), ("u_text", digits.clone())] {
        let caller =
            doc! { "_id": id, "organizationId": organization, "apiKey": format!("key_{id}") };
        database.users().insert_one(caller).await.expect("inserted");
        until("the new key works", async || {
            app.webhook("wh_1").bearer(&format!("key_{id}")).send().await.status == 202
        })
        .await;
    }
    for key in ["key_u_oid", "key_u_text"] {
        reaches(&app, key, "wh_org", 3).await;
    }
    let rewritten = with("wf_oid", digits);
    let workflows = database.workflows();
    workflows.replace_one(doc! { "_id": "wf_oid" }, rewritten).await.expect("replaced");
    workflows.delete_one(doc! { "_id": "wf_text" }).await.expect("deleted");
    for key in ["key_u_oid", "key_u_text"] {
        reaches(&app, key, "wh_org", 2).await;
    }
}

#[tokio::test]
async fn ids_of_unsupported_types_are_left_out_and_counted() {
    let (app, database) = serve(&[]).await;
    let ids = || {
        [
            Bson::Null,
            Bson::MinKey,
            Bson::MaxKey,
            Bson::Double(f64::NAN),
            Bson::Double(-0.5),
            Bson::Double(9_007_199_254_740_992.0),
            Bson::DateTime(DateTime::from_millis(-1)),
            Bson::Decimal128("1E-7".parse::<Decimal128>().expect("a number")),
            Bson::Timestamp(Timestamp { time: 7, increment: 1 }),
            Bson::Binary(Binary { subtype: BinarySubtype::UuidOld, bytes: vec![7; 16] }),
            Bson::Document(doc! { "a": { "b": Bson::Null }, "": 1 }),
            Bson::from(""),
        ]
    };
    let count = ids().len() as f64;
    let insert = async |collection: &str, fields: Document| {
        for id in ids() {
            let mut document = fields.clone();
            document.insert("_id", id);
            database.collection(collection).insert_one(document).await.expect("inserted");
        }
    };
    insert(
        "workflows",
        document(json!({ "organizationId": "org_a", "nodes": [trigger("n", "wh_odd")] })),
    )
    .await;
    insert("users", doc! { "organizationId": "org_a", "apiKey": "key_odd" }).await;
    for collection in ["workflows", "users"] {
        until(&format!("all of {collection} are counted"), async || {
            skipped(&app, collection).await == count
        })
        .await;
    }
    reaches(&app, "key_a", "wh_odd", 0).await;
    app.webhook("wh_1").bearer("key_odd").send().await.assert_rejected(401, "invalid_api_key");
    for id in ids() {
        let deleted = database.workflows().delete_one(doc! { "_id": id }).await.expect("deleted");
        assert_eq!(deleted.deleted_count, 1);
    }
    let last = document(workflow("wf_last", "org_a", "wh_last"));
    database.workflows().insert_one(last).await.expect("inserted");
    reaches(&app, "key_a", "wh_last", 1).await;
    reaches(&app, "key_a", "wh_1", 1).await;
    let metrics = app.hookgate.metrics().await;
    let labels = [("collection", "workflows"), ("reason", "stream_lost")];
    assert_eq!(metrics.value("hookgate_index_loads_total", &labels), 0.0);
}

/// An app with the two organizations and these workflows.
async fn serve(workflows: &[Value]) -> (App, TestDatabase) {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    documents.workflows.extend_from_slice(workflows);
    database.insert(&documents).await;
    let app = App::build().mongo(&database).start().await;
    (app, database)
}

async fn skipped(app: &App, collection: &str) -> f64 {
    let name = "hookgate_index_skipped_documents_total";
    app.hookgate.metrics().await.value(name, &[("collection", collection)])
}

async fn index_has(app: &App, gauge: &str, value: f64) {
    until(&format!("{gauge} is {value}"), async || {
        app.hookgate.metrics().await.value(gauge, &[]) == value
    })
    .await;
}

async fn skipped_nodes(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_index_skipped_nodes_total", &[])
}
