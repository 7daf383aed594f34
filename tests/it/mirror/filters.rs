//! Filters of collections: documents that do not match are as if they did not exist.

use mongodb::bson::{Document, doc};
use testkit::documents::{user, workflow};
use testkit::hookgate::check;
use testkit::mongo::document;
use testkit::wait::until;
use testkit::{App, Config, Documents, Mongo};

const FILTER: &str = r#"{"$or": [{"archived": {"$exists": false}}, {"archived": false}]}"#;

async fn set(collection: &mongodb::Collection<Document>, id: &str, change: Document) {
    collection.update_one(doc! { "_id": id }, change).await.expect("updated");
}

#[tokio::test]
async fn a_document_that_stops_matching_is_gone_until_it_matches_again() {
    let database = Mongo::shared().await.database().await;
    let mut documents = Documents::two_organizations();
    let mut archived = workflow("wf_archived", "org_a", "wh_1");
    archived["archived"] = true.into();
    // Malformed documents that do not match are not read.
    archived["nodes"] = 5.into();
    documents.workflows.push(archived);
    database.insert(&documents).await;
    let app = App::build().mongo(&database).config(|config| {
        config.set("triggers.filter", FILTER).set("users.filter", FILTER);
    });
    let app = app.start().await;
    let skipped = app.hookgate.metrics().await;
    assert!(skipped.sum("hookgate_index_skipped_documents_total") < 0.5);
    let (workflows, users) = (database.workflows(), database.users());
    for round in 0..3 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{round}");
        set(&workflows, "wf_1", doc! { "$set": { "archived": true } }).await;
        until("the workflow is gone", async || app.webhook("wh_1").send().await.has_matched(0))
            .await;
        let preview = app.caller.call(reqwest::Method::POST, "/api/webhook/workflow/preview");
        let preview = preview.bearer("key_a").body(r#"{"webhookId":"wh_1"}"#).send().await.json();
        assert_eq!(preview["data"]["inactive"], serde_json::json!([]), "{preview}");
        set(&workflows, "wf_1", doc! { "$unset": { "archived": "" } }).await;
        until("it is back", async || app.webhook("wh_1").send().await.has_matched(1)).await;

        set(&users, "user_1", doc! { "$set": { "archived": true } }).await;
        until("the user is gone", async || app.webhook("wh_1").send().await.status == 401).await;
        set(&users, "user_1", doc! { "$set": { "archived": false } }).await;
        until("it is back", async || app.webhook("wh_1").send().await.status == 202).await;
    }
    // Inserted, replaced and deleted documents, whether they match or not.
    let mut late = workflow("wf_late", "org_a", "wh_late");
    late["archived"] = true.into();
    workflows.insert_one(document(late)).await.expect("inserted");
    let mut last = workflow("wf_last", "org_a", "wh_last");
    workflows.insert_one(document(last.clone())).await.expect("inserted");
    until("the last one is read", async || app.webhook("wh_last").send().await.has_matched(1))
        .await;
    assert_eq!(app.webhook("wh_late").send().await.matched(), 0);
    last["archived"] = true.into();
    workflows.replace_one(doc! { "_id": "wf_last" }, document(last)).await.expect("replaced");
    until("the last one is gone", async || app.webhook("wh_last").send().await.has_matched(0))
        .await;
    workflows.delete_one(doc! { "_id": "wf_last" }).await.expect("deleted");
    users.insert_one(document(user("user_last", "org_b", "key_last"))).await.expect("inserted");
    until("the last user is read", async || {
        app.webhook("wh_1").bearer("key_last").send().await.status == 202
    })
    .await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_query_without_events_or_without_a_database_is_a_fault() {
    let faults = async |section: &str, filter: &str, source: &str| {
        let mut config = Config::new();
        config.set(&format!("{section}.filter"), filter).set("triggers.source", source);
        let output = check(&config, &[]).await;
        let report = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code(), report)
    };
    for section in ["triggers", "users"] {
        for (filter, word) in [
            (r#"{"$where": "true"}"#, "$where"),
            (r#"{"$and": [{"a": 1}, {"$text": {"$search": "a"}}]}"#, "$text"),
            (r#"{"at": {"$near": [1, 2]}}"#, "$near"),
            (r#"{"at": {"$not": {"$nearSphere": [1, 2]}}}"#, "$nearSphere"),
            (r#"{"$expr": {"$lt": [{"$rand": {}}, 0.5]}}"#, "$rand"),
            (r#"{"$expr": {"$gt": ["$until", "$$NOW"]}}"#, "$$NOW"),
            (r#"{"$expr": {"$gte": [{"$toInt": "$version"}, 2]}}"#, "$expr is not supported"),
            ("{", "extended JSON"),
            ("[]", "extended JSON"),
            (r#"{"owner": {"$oid": "5"}}"#, "extended JSON"),
        ] {
            let (code, report) = faults(section, filter, "mongodb").await;
            let key = format!("{section}.filter: ");
            assert_eq!(code, Some(2), "{filter}: {report}");
            assert!(report.contains(&key) && report.contains(word), "{filter}: {report}");
        }
        let (code, report) = faults(section, "{}", "file").await;
        assert_eq!(code, Some(2), "{report}");
        assert!(report.contains(&format!("{section}.filter: needs triggers.source")), "{report}");
        let (code, report) = faults(section, FILTER, "mongodb").await;
        assert_eq!(code, Some(0), "{report}");
    }
}
