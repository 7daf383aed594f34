//! Changes of the two collections while something is broken.

use mongodb::bson::doc;

use super::agreement::{agrees, reaches};
use super::app::App;
use super::documents::{user, workflow};
use super::mongo::{TestDatabase, document};
use super::wait::until;

/// Changes of every kind, and their expected result.
#[derive(Debug, Default)]
pub struct Edits {
    round: u32,
    removed: Vec<String>,
    revoked: Vec<String>,
}

impl Edits {
    /// Edits `wf_1`, creates a workflow, moves the previous one to `org_b` and deletes the one
    /// before that. Does the same with API keys.
    pub async fn make(&mut self, database: &TestDatabase) {
        self.round += 1;
        let (round, before) = (self.round, self.round - 1);
        let workflows = database.workflows();
        let webhook = format!("wh_1_{round}");
        let change = doc! { "$set": { "nodes.0.data.webhookId": webhook } };
        workflows.update_one(doc! { "_id": "wf_1" }, change).await.expect("updated");
        self.removed.push(if before == 0 { "wh_1".to_owned() } else { format!("wh_1_{before}") });
        let new = workflow(&format!("wf_new_{round}"), "org_a", &format!("wh_new_{round}"));
        workflows.insert_one(document(new)).await.expect("inserted");
        let moved = doc! { "$set": { "organizationId": "org_b" } };
        let id = format!("wf_new_{before}");
        workflows.update_one(doc! { "_id": id }, moved).await.expect("updated");
        let id = format!("wf_new_{}", before.saturating_sub(1));
        let deleted = workflows.delete_one(doc! { "_id": id }).await.expect("deleted");
        if deleted.deleted_count == 1 {
            self.removed.push(format!("wh_new_{}", before.saturating_sub(1)));
        }
        let users = database.users();
        let new = user(&format!("user_new_{round}"), "org_a", &self.key());
        users.insert_one(document(new)).await.expect("inserted");
        if before > 0 {
            let id = format!("user_new_{before}");
            users.delete_one(doc! { "_id": id }).await.expect("deleted");
            self.revoked.push(format!("key_new_{before}"));
        }
    }

    fn key(&self) -> String {
        format!("key_new_{}", self.round)
    }

    /// Waits until the index equals the database.
    pub async fn arrive(&self, app: &App, database: &TestDatabase) {
        agrees(app, database, &self.removed).await;
        self.arrive_among_others(app).await;
    }

    /// Waits until the last changes have an effect.
    pub async fn arrive_among_others(&self, app: &App) {
        reaches(app, "key_a", &format!("wh_new_{}", self.round), 1).await;
        until("the new key works", async || answer(app, &self.key()).await == 202).await;
        for key in &self.revoked {
            until("the old keys stop working", async || answer(app, key).await == 401).await;
        }
    }
}

async fn answer(app: &App, key: &str) -> u16 {
    app.webhook("wh_any").bearer(key).send().await.status
}
