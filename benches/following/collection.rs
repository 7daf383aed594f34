//! The workflows in MongoDB: 20 nodes and 6 KB each, with one trigger at a webhook of its own.

use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::Collection;
use mongodb::options::WriteConcern;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::Mongo;
use testkit::documents::user;
use testkit::mongo::{TestDatabase, document};
use tokio::task::JoinSet;

const NODES: usize = 20;
/// Bytes of a string in each node, so that a document has some 6,000.
const NODE_BYTES: usize = 225;
pub const ORGANIZATIONS: u64 = 1000;
/// Documents in one insert.
const INSERTED: u64 = 1000;
/// Writers at a time.
const WRITERS: u64 = 4;

#[derive(Clone)]
pub struct Workflows {
    pub database: Arc<TestDatabase>,
    pub count: u64,
    /// Number of the next change: every change uses a new webhook.
    serial: Arc<AtomicU64>,
}

/// The webhook and organization at which a workflow has its trigger.
#[derive(Debug, Clone)]
pub struct Place {
    pub serial: u64,
    pub workflow: u64,
    pub organization: String,
    pub webhook: String,
}

impl Workflows {
    pub async fn fill(mongo: &Mongo, count: u64) -> Self {
        let database = Arc::new(mongo.database().await);
        let users = database.users();
        users.insert_one(document(user("user", "org_0", "key_a"))).await.unwrap();
        let next = Arc::new(AtomicU64::new(0));
        let writers: JoinSet<()> = (0..WRITERS)
            .map(|_| write(database.database().collection("workflows"), Arc::clone(&next), count))
            .collect();
        writers.join_all().await;
        Self { database, count, serial: Arc::default() }
    }

    /// A change of a workflow, as an element of `updates`, and the place of its trigger afterwards.
    /// Workflows of the first organization never change.
    pub fn change(&self) -> (Document, Place) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let others = ORGANIZATIONS - 1;
        // The changes spread over the collection, because the factor and the count have no common
        // factor.
        let number = serial.wrapping_mul(7_919) % (self.count / ORGANIZATIONS * others);
        let workflow = number / others * ORGANIZATIONS + number % others + 1;
        let webhook = format!("wh_{workflow}_{serial}");
        let change = doc! { "$set": { "nodes.0.data.webhookId": &webhook } };
        let update = doc! { "q": { "_id": id(workflow) }, "u": change };
        (update, Place { serial, workflow, organization: organization(workflow), webhook })
    }

    /// Makes changes in one command, which is answered when the majority has them.
    pub async fn write(&self, updates: Vec<Document>) {
        let count = i32::try_from(updates.len()).unwrap();
        let command = doc! { "update": "workflows", "updates": updates, "ordered": false };
        let reply = self.database.database().run_command(command).await.unwrap();
        assert_eq!(reply.get_i32("nModified"), Ok(count), "{reply}");
    }
}

async fn write(collection: Collection<RawDocumentBuf>, next: Arc<AtomicU64>, count: u64) {
    loop {
        let first = next.fetch_add(INSERTED, Ordering::Relaxed);
        if first >= count {
            return;
        }
        let documents: Vec<_> = (first..count.min(first + INSERTED)).map(workflow).collect();
        let insert = collection.insert_many(documents).ordered(false);
        insert.write_concern(WriteConcern::nodes(1)).await.unwrap();
    }
}

fn id(n: u64) -> String {
    format!("workflow_{n:08}")
}

pub fn organization(n: u64) -> String {
    format!("org_{}", n % ORGANIZATIONS)
}

/// The first webhook of a workflow.
pub fn webhook(n: u64) -> String {
    format!("wh_{n}")
}

fn workflow(n: u64) -> RawDocumentBuf {
    let mut nodes = RawArrayBuf::new();
    let text = "lorem ipsum ".repeat(NODE_BYTES / 12);
    for number in 0..NODES {
        let node = format!("n{number}");
        let position = rawdoc! { "x": 12.5, "y": 100.0 };
        nodes.push(if number == 0 {
            let data = rawdoc! { "webhookId": webhook(n), "note": text.as_str() };
            rawdoc! { "id": node, "type": "WebhookTrigger", "position": position, "data": data }
        } else {
            let data = rawdoc! { "template": text.as_str() };
            rawdoc! { "id": node, "type": "SendMessage", "position": position, "data": data }
        });
    }
    rawdoc! { "_id": id(n), "organizationId": organization(n), "enabled": true, "nodes": nodes }
}
