//! Whether what callers meet is what the database holds.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::doc;

use super::app::App;
use super::mongo::TestDatabase;
use super::wait::until;

/// The organizations of [`super::Documents::two_organizations`] and a key of each.
const KEYS: [(&str, &str); 2] = [("org_a", "key_a"), ("org_b", "key_b")];

/// Waits until every webhook of the two organizations matches as many workflows as the collection says, each of `gone` that it
/// does not have none, and the index has as many workflows. They must be switched on, and well-formed but for their ids.
pub async fn agrees(app: &App, database: &TestDatabase, gone: &[String]) {
    let Expected { workflows, of_webhooks: expected } = expected(database).await;
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
        app.webhook(webhook).bearer(key).send().await.has_matched(count)
    })
    .await;
}

/// What the collection says.
#[derive(Debug, Default)]
struct Expected {
    /// Those that have a trigger.
    workflows: usize,
    /// By organization and webhook, how many workflows there are.
    of_webhooks: BTreeMap<String, BTreeMap<String, u64>>,
}

async fn expected(database: &TestDatabase) -> Expected {
    let mut expected = Expected::default();
    let webhooks_of_each = [
        doc! { "$match": { "_id": { "$type": ["string", "objectId"] } } },
        doc! { "$unwind": "$nodes" },
        doc! { "$match": { "nodes.type": "WebhookTrigger" } },
        doc! { "$group": {
            "_id": "$_id",
            "organization": { "$first": "$organizationId" },
            "webhooks": { "$addToSet": "$nodes.data.webhookId" },
        } },
    ];
    let workflows = database.workflows();
    let found = workflows.aggregate(webhooks_of_each).with_type::<Triggers>();
    let mut cursor = found.await.expect("mongod aggregates");
    while cursor.advance().await.expect("mongod goes on") {
        let Triggers { organization, webhooks } = cursor.deserialize_current().expect("texts");
        expected.workflows += 1;
        let counts = expected.of_webhooks.entry(organization).or_default();
        for webhook in webhooks {
            *counts.entry(webhook).or_default() += 1;
        }
    }
    expected
}

/// Those of one workflow.
#[derive(Debug, serde::Deserialize)]
struct Triggers {
    organization: String,
    webhooks: Vec<String>,
}
