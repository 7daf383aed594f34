//! Requests are answered by what MongoDB holds: every kind of change is followed.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use mongodb::bson::{Document, doc, oid::ObjectId};
use serde_json::{Value, json};
use testkit::documents::{trigger, user, workflow, workflow_of};
use testkit::mongo::{TestDatabase, document};
use testkit::tokens::{now, token};
use testkit::wait::until;
use testkit::{App, Documents, Mongo};

#[tokio::test]
async fn a_workflow_is_followed_from_creation_to_deletion() {
    let (app, database) = serve(&only_users()).await;
    let workflows = database.workflows();
    let wf_1 = || doc! { "_id": "wf_1" };
    matched(&app, "key_a", "wh_1", 0).await;

    workflows.insert_one(document(workflow("wf_1", "org_a", "wh_1"))).await.expect("inserted");
    matches(&app, "key_a", "wh_1", 1).await;

    let change = doc! { "$set": { "nodes.0.data.webhookId": "wh_2" } };
    workflows.update_one(wf_1(), change).await.expect("updated");
    matches(&app, "key_a", "wh_2", 1).await;
    matched(&app, "key_a", "wh_1", 0).await;

    let node = doc! { "id": "n9", "type": "WebhookTrigger", "data": { "webhookId": "wh_3" } };
    workflows.update_one(wf_1(), doc! { "$push": { "nodes": node } }).await.expect("updated");
    matches(&app, "key_a", "wh_3", 1).await;
    matched(&app, "key_a", "wh_2", 1).await;

    set(&database, "workflows", "wf_1", doc! { "enabled": false }).await;
    matches(&app, "key_a", "wh_3", 0).await;
    set(&database, "workflows", "wf_1", doc! { "enabled": true }).await;
    matches(&app, "key_a", "wh_3", 1).await;
    set(&database, "workflows", "wf_1", doc! { "enabled": false }).await;
    matches(&app, "key_a", "wh_3", 0).await;
    workflows.update_one(wf_1(), doc! { "$unset": { "enabled": "" } }).await.expect("updated");
    matches(&app, "key_a", "wh_3", 1).await;

    let replacement = document(workflow("wf_1", "org_a", "wh_4"));
    workflows.replace_one(wf_1(), replacement).await.expect("replaced");
    matches(&app, "key_a", "wh_4", 1).await;
    matched(&app, "key_a", "wh_3", 0).await;

    set(&database, "workflows", "wf_1", doc! { "organizationId": "org_b" }).await;
    matches(&app, "key_b", "wh_4", 1).await;
    matched(&app, "key_a", "wh_4", 0).await;

    workflows.delete_one(wf_1()).await.expect("deleted");
    matches(&app, "key_b", "wh_4", 0).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn users_and_their_api_keys_are_followed() {
    let (app, database) = serve(&two_own_workflows()).await;
    let users = database.users();
    answers(&app, "key_new", 401).await;

    users.insert_one(document(user("user_2", "org_a", "key_new"))).await.expect("inserted");
    answers(&app, "key_new", 202).await;

    set(&database, "users", "user_2", doc! { "apiKey": "key_next" }).await;
    answers(&app, "key_next", 202).await;
    refused(&app, "key_new").await;

    set(&database, "users", "user_2", doc! { "apiKey": ["key_x", "key_y"] }).await;
    answers(&app, "key_y", 202).await;
    answers(&app, "key_x", 202).await;
    refused(&app, "key_next").await;

    set(&database, "users", "user_2", doc! { "apiKey": ["key_y"] }).await;
    answers(&app, "key_x", 401).await;

    set(&database, "users", "user_2", doc! { "enabled": false }).await;
    answers(&app, "key_y", 401).await;
    set(&database, "users", "user_2", doc! { "enabled": true }).await;
    answers(&app, "key_y", 202).await;

    matched(&app, "key_y", "wh_a", 1).await;
    set(&database, "users", "user_2", doc! { "organizationId": "org_b" }).await;
    matches(&app, "key_y", "wh_b", 1).await;
    matched(&app, "key_y", "wh_a", 0).await;

    users.delete_one(doc! { "_id": "user_2" }).await.expect("deleted");
    answers(&app, "key_y", 401).await;
    answers(&app, "key_a", 202).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_token_without_an_organization_follows_its_user() {
    let (app, database) = serve(&two_own_workflows()).await;
    let jwt = token(&json!({ "sub": "user_1", "exp": now() + 600 }));
    matched(&app, &jwt, "wh_a", 1).await;

    set(&database, "users", "user_1", doc! { "organizationId": "org_b" }).await;
    matches(&app, &jwt, "wh_b", 1).await;
    matched(&app, &jwt, "wh_a", 0).await;

    set(&database, "users", "user_1", doc! { "enabled": false }).await;
    answers(&app, &jwt, 401).await;
}

#[tokio::test]
async fn ids_are_object_ids_or_strings() {
    let (organization, caller, flow) = (ObjectId::new(), ObjectId::new(), ObjectId::new());
    let documents = Documents {
        workflows: vec![
            json!({ "_id": oid(flow), "organizationId": oid(organization), "nodes": [trigger("n1", "wh_1")] }),
            workflow("wf_text", &organization.to_hex(), "wh_1"),
            workflow("wf_other", &ObjectId::new().to_hex(), "wh_1"),
        ],
        users: vec![
            json!({ "_id": oid(caller), "organizationId": oid(organization), "apiKey": "key_oid" }),
        ],
    };
    let (app, database) = serve(&documents).await;
    matched(&app, "key_oid", "wh_1", 2).await;
    let jobs = app.redis.queue().waiting().await;
    let mut ids: Vec<String> = jobs.iter().map(|job| job.at("/workflowId")).collect();
    ids.sort();
    assert_eq!(ids, [flow.to_hex(), "wf_text".to_owned()]);
    for job in &jobs {
        assert_eq!(job.at("/organizationId"), organization.to_hex());
        assert_eq!(job.at("/userId"), caller.to_hex());
    }

    // The same digits as an ObjectId and as a string are two documents to MongoDB.
    let twin = document(workflow(&flow.to_hex(), &organization.to_hex(), "wh_twin"));
    database.workflows().insert_one(twin).await.expect("inserted");
    matches(&app, "key_oid", "wh_twin", 1).await;
    matched(&app, "key_oid", "wh_1", 2).await;
    database.workflows().delete_one(doc! { "_id": flow }).await.expect("deleted");
    matches(&app, "key_oid", "wh_1", 1).await;
    matched(&app, "key_oid", "wh_twin", 1).await;
}

#[tokio::test]
async fn three_hundred_quick_edits_end_in_the_right_state() {
    let mut documents = only_users();
    documents
        .workflows
        .extend((0..10).map(|serial| workflow(&format!("wf_{serial}"), "org_a", "wh_start")));
    let (app, database) = serve(&documents).await;
    let mut edits = tokio::task::JoinSet::new();
    for serial in 0..10 {
        let workflows = database.workflows();
        edits.spawn(async move {
            let id = format!("wf_{serial}");
            for round in 0..30 {
                let filter = doc! { "_id": &id };
                match round % 5 {
                    3 => drop(workflows.delete_one(filter).await.expect("deleted")),
                    4 => {
                        let again = document(workflow(&id, "org_a", &format!("wh_{round}")));
                        workflows.insert_one(again).await.expect("inserted");
                    }
                    _ => {
                        let webhook = format!("wh_{round}");
                        let change = doc! { "$set": { "nodes.0.data.webhookId": webhook } };
                        workflows.update_one(filter, change).await.expect("updated");
                    }
                }
            }
            if serial < 4 {
                workflows.delete_one(doc! { "_id": &id }).await.expect("deleted");
            }
        });
    }
    while let Some(ended) = edits.join_next().await {
        ended.expect("every edit succeeds");
    }
    matches(&app, "key_a", "wh_29", 6).await;
    for round in 0..29 {
        matched(&app, "key_a", &format!("wh_{round}"), 0).await;
    }
    matched(&app, "key_a", "wh_start", 0).await;
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.value("hookgate_index_triggers", &[]), 6.0);
    assert_eq!(metrics.value("hookgate_index_workflows", &[]), 6.0);
}

#[tokio::test]
async fn a_missing_collection_is_empty_until_it_is_created() {
    let database = Mongo::shared().await.database().await;
    let app = App::build().mongo(&database).start().await;
    for part in ["workflows", "users"] {
        until("its absence is reported", async || is_degraded(&app, part).await).await;
    }
    app.webhook("wh_1").send().await.assert_rejected(401, "invalid_api_key");

    let users = Documents::two_organizations().users.into_iter().map(document);
    database.users().insert_many(users).await.expect("inserted");
    answers(&app, "key_a", 202).await;
    until("the users are complete", async || !is_degraded(&app, "users").await).await;
    matched(&app, "key_a", "wh_1", 0).await;
    assert!(is_degraded(&app, "workflows").await, "still missing");

    let wf_1 = document(workflow("wf_1", "org_a", "wh_1"));
    database.workflows().insert_one(wf_1).await.expect("inserted");
    matches(&app, "key_a", "wh_1", 1).await;
    until("the workflows are complete", async || !is_degraded(&app, "workflows").await).await;
}

#[tokio::test]
async fn a_dropped_and_recreated_collection_is_followed() {
    let (app, database) = serve(&Documents::two_organizations()).await;
    for round in 1..=3 {
        database.workflows().drop().await.expect("dropped");
        matches(&app, "key_a", "wh_1", 0).await;
        let webhook = format!("wh_again_{round}");
        let again = document(workflow("wf_1", "org_a", &webhook));
        database.workflows().insert_one(again).await.expect("inserted");
        matches(&app, "key_a", &webhook, 1).await;
        database
            .workflows()
            .insert_one(document(workflow("wf_2", "org_a", "wh_1")))
            .await
            .expect("inserted");
        matches(&app, "key_a", "wh_1", 1).await;
    }

    database.users().drop().await.expect("dropped");
    answers(&app, "key_a", 401).await;
    database.users().insert_one(document(user("u", "org_a", "key_z"))).await.expect("inserted");
    answers(&app, "key_z", 202).await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn a_collection_renamed_or_dropped_with_its_database_is_followed() {
    let (app, database) = serve(&Documents::two_organizations()).await;
    database.rename("workflows", "elsewhere").await;
    matches(&app, "key_a", "wh_1", 0).await;
    let elsewhere = database.collection("elsewhere");
    let change = doc! { "$set": { "nodes.0.data.webhookId": "wh_moved" } };
    elsewhere.update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
    database.rename("elsewhere", "workflows").await;
    matches(&app, "key_a", "wh_moved", 1).await;

    database.database().drop().await.expect("dropped");
    answers(&app, "key_a", 401).await;
    database.insert(&Documents::two_organizations()).await;
    answers(&app, "key_a", 202).await;
    matches(&app, "key_a", "wh_1", 1).await;
    app.hookgate.ready().await;
}

#[tokio::test]
async fn another_organization_never_reaches_a_workflow() {
    let (app, database) = serve(&Documents::two_organizations()).await;
    for round in 0..20 {
        // Other documents change at the same time.
        set(&database, "workflows", "wf_b", doc! { "round": round, "enabled": true }).await;
        matched(&app, "key_a", "wh_1", 1).await;
        matched(&app, "key_b", "wh_1", 1).await;
    }
    for job in app.redis.queue().waiting().await {
        let owned = [("org_a", "wf_1"), ("org_b", "wf_b")];
        let found = (job.at("/organizationId"), job.at("/workflowId"));
        assert!(owned.contains(&(found.0.as_str(), found.1.as_str())), "{found:?}");
    }
}

/// A running service on a fresh database with these documents.
async fn serve(documents: &Documents) -> (App, TestDatabase) {
    let database = Mongo::shared().await.database().await;
    database.insert(documents).await;
    let app = App::build().mongo(&database).start().await;
    (app, database)
}

fn only_users() -> Documents {
    Documents { workflows: Vec::new(), ..Documents::two_organizations() }
}

/// `wh_a` belongs to `org_a` alone, `wh_b` to `org_b`.
fn two_own_workflows() -> Documents {
    let nodes = |webhook: &str| json!([trigger("n1", webhook)]);
    let workflows = vec![
        workflow_of("wf_a", "org_a", nodes("wh_a")),
        workflow_of("wf_b", "org_b", nodes("wh_b")),
    ];
    Documents { workflows, ..Documents::two_organizations() }
}

fn oid(id: ObjectId) -> Value {
    json!({ "$oid": id.to_hex() })
}

async fn set(database: &TestDatabase, collection: &str, id: &str, fields: Document) {
    let change = doc! { "$set": fields };
    let updated = database.collection(collection).update_one(doc! { "_id": id }, change).await;
    assert_eq!(updated.expect("updated").matched_count, 1);
}

/// Asserts the number of matches.
async fn matched(app: &App, credential: &str, webhook: &str, count: u64) {
    let reply = app.webhook(webhook).bearer(credential).send().await;
    assert_eq!(reply.matched(), count, "{webhook}");
}

/// Waits for this number of matches.
async fn matches(app: &App, credential: &str, webhook: &str, count: u64) {
    until(&format!("{webhook} matches {count}"), async || {
        app.webhook(webhook).bearer(credential).send().await.has_matched(count)
    })
    .await;
}

/// Waits for this status.
async fn answers(app: &App, credential: &str, status: u16) {
    until(&format!("{credential} is answered {status}"), async || {
        let reply = app.webhook("wh_any").bearer(credential).send().await;
        // An index that is not fresh answers 503 and denies nothing.
        assert!([202, 401, 503].contains(&reply.status), "{}", reply.text());
        reply.status == status
    })
    .await;
}

async fn refused(app: &App, key: &str) {
    let reply = app.webhook("wh_any").bearer(key).send().await;
    reply.assert_rejected(401, "invalid_api_key");
}

async fn is_degraded(app: &App, part: &str) -> bool {
    let (status, report) = app.hookgate.readiness().await;
    assert_eq!(status, 200, "{report}");
    let notes = report.pointer("/degraded").and_then(Value::as_array).expect("a list");
    notes.iter().any(|note| note.as_str().is_some_and(|note| note.starts_with(part)))
}
