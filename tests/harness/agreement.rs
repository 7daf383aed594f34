//! Whether what callers meet is what the database holds.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{Document, doc};

use super::app::App;
use super::mongo::TestDatabase;
use super::wait::until;

/// The organizations of [`super::Documents::two_organizations`] and a key of each.
const KEYS: [(&str, &str); 2] = [("org_a", "key_a"), ("org_b", "key_b")];

/// Waits until every webhook of the two organizations matches as many workflows as the collection says, each of `gone` none, and
/// the index is as large as the collection. The workflows must be well-formed and switched on.
pub async fn agrees(app: &App, database: &TestDatabase, gone: &[String]) {
    let expected = expected(database).await;
    let workflows = count(database, "workflows").await;
    until(&format!("the index holds {workflows} workflows"), async || {
        app.hookgate.metrics().await.get("hookgate_index_workflows", &[]) == Some(workflows as f64)
    })
    .await;
    let webhooks: BTreeSet<&String> =
        expected.values().flat_map(BTreeMap::keys).chain(gone).collect();
    for (organization, key) in KEYS {
        let counts = expected.get(organization);
        for webhook in &webhooks {
            let count = counts.and_then(|counts| counts.get(*webhook)).copied();
            comes_to(app, key, webhook, count.unwrap_or_default()).await;
        }
    }
}

/// Waits until this webhook matches so many workflows.
pub async fn comes_to(app: &App, key: &str, webhook: &str, count: u64) {
    until(&format!("{webhook} matches {count}"), async || {
        app.webhook(webhook).bearer(key).send().await.matched() == count
    })
    .await;
}

/// By organization and webhook, how many workflows there are.
async fn expected(database: &TestDatabase) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut expected: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let pairs = [
        doc! { "$unwind": "$nodes" },
        doc! { "$match": { "nodes.type": "WebhookTrigger" } },
        doc! { "$group": { "_id": {
            "id": "$_id", "organization": "$organizationId", "webhook": "$nodes.data.webhookId",
        } } },
    ];
    let mut cursor = database.workflows().aggregate(pairs).await.expect("mongod aggregates");
    while cursor.advance().await.expect("mongod goes on") {
        let pair = cursor.deserialize_current().expect("a document");
        let text = |name: &str| {
            pair.get_document("_id").and_then(|pair| pair.get_str(name)).expect("a text").to_owned()
        };
        *expected.entry(text("organization")).or_default().entry(text("webhook")).or_default() += 1;
    }
    expected
}

async fn count(database: &TestDatabase, collection: &str) -> u64 {
    database.collection(collection).count_documents(Document::new()).await.expect("mongod counts")
}
