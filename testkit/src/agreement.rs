//! Compares what callers get with what the database holds.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::doc;

use super::app::App;
use super::mongo::TestDatabase;
use super::wait::until;

/// The organizations of [`super::Documents::two_organizations`] and a key of each.
const KEYS: [(&str, &str); 2] = [("org_a", "key_a"), ("org_b", "key_b")];

/// Waits until the index has as many workflows as the collection, every webhook of the two
/// organizations matches as many workflows as the collection says, and no webhook of `removed` that is
/// missing from the collection matches any. The workflows must be switched on and well-formed
/// except for their ids.
pub async fn agrees(app: &App, database: &TestDatabase, removed: &[String]) {
    let Expected { workflows, of_webhooks: expected } = expected(database).await;
    until(&format!("the index holds {workflows} workflows"), async || {
        app.hookgate.metrics().await.get("hookgate_index_workflows", &[]) == Some(workflows as f64)
    })
    .await;
    let webhooks: BTreeSet<&String> =
        expected.values().flat_map(BTreeMap::keys).chain(removed).collect();
    for (organization, key) in KEYS {
        let counts = expected.get(organization);
        for webhook in &webhooks {
            let count = counts.and_then(|counts| counts.get(*webhook)).copied();
            reaches(app, key, webhook, count.unwrap_or_default()).await;
        }
    }
}

/// Waits until this webhook matches `count` workflows.
pub async fn reaches(app: &App, key: &str, webhook: &str, count: u64) {
    until(&format!("{webhook} matches {count}"), async || {
        app.webhook(webhook).bearer(key).send().await.has_matched(count)
    })
    .await;
}

/// The matches that the collection implies.
#[derive(Debug, Default)]
struct Expected {
    /// Workflows that have a trigger.
    workflows: usize,
    /// Number of workflows by organization and webhook.
    of_webhooks: BTreeMap<String, BTreeMap<String, u64>>,
}

async fn expected(database: &TestDatabase) -> Expected {
    let mut expected = Expected::default();
    let webhooks_of_each = [
        doc! { "$match": { "_id": { "$type": ["string", "objectId", "int", "long"] } } },
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
    while cursor.advance().await.expect("the cursor continues") {
        let Triggers { organization, webhooks } = cursor.deserialize_current().expect("strings");
        expected.workflows += 1;
        let counts = expected.of_webhooks.entry(organization).or_default();
        for webhook in webhooks {
            *counts.entry(webhook).or_default() += 1;
        }
    }
    expected
}

/// The organization and the webhooks of one workflow.
#[derive(Debug, serde::Deserialize)]
struct Triggers {
    organization: String,
    webhooks: Vec<String>,
}
