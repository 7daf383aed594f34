//! The measured triggers: workflow `n` has one, at a webhook of its own.

use bson::oid::ObjectId;
use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
use hookgate::ids::{OrganizationId, WebhookId, WorkflowId};
use hookgate::mirror::MirroredCollection;
use hookgate::mirror::document::DocumentKey;
use hookgate::triggers::{WorkflowCollection, WorkflowRecord};

/// Bytes of a trigger's strings: organization, webhook, workflow and nodes.
pub const TEXT_BYTES: usize = 24 + 27 + 24 + NODE_IDS.len();

pub const NODE_IDS: &str = r#"["n1"]"#;

/// Workflows of one organization.
const WORKFLOWS: u64 = 50;

/// The kind of an id, so that ids of different kinds differ.
#[derive(Clone, Copy)]
enum Kind {
    Organization = 1,
    Webhook,
    Workflow,
}

pub fn organization(n: u64) -> OrganizationId {
    OrganizationId::new(&digits(Kind::Organization, n / WORKFLOWS).to_hex()).unwrap()
}

/// The webhook of a workflow. Each `version` is another webhook.
pub fn webhook(n: u64, version: u64) -> WebhookId {
    let digits = digits(Kind::Webhook, n ^ version << 48).to_hex();
    WebhookId::new(&format!("wh_{digits}")).unwrap()
}

pub fn workflow(n: u64) -> WorkflowId {
    WorkflowId::new(&digits(Kind::Workflow, n).to_hex()).unwrap()
}

pub fn record(
    collection: &WorkflowCollection,
    n: u64,
    version: u64,
) -> (DocumentKey, WorkflowRecord) {
    let document = document(n, version);
    (DocumentKey::from_document(&document).unwrap(), collection.read(&document).unwrap())
}

fn document(n: u64, version: u64) -> RawDocumentBuf {
    document_at(n, n, [webhook(n, version)].into_iter())
}

/// A workflow of another one's organization that is at all these webhooks.
pub fn document_at(
    n: u64,
    neighbour: u64,
    webhooks: impl Iterator<Item = WebhookId>,
) -> RawDocumentBuf {
    let mut nodes = RawArrayBuf::new();
    for webhook in webhooks {
        nodes.push(rawdoc! {
            "id": "n1", "type": "WebhookTrigger", "data": { "webhookId": webhook.as_str() },
        });
    }
    rawdoc! {
        "_id": digits(Kind::Workflow, n),
        "organizationId": digits(Kind::Organization, neighbour / WORKFLOWS),
        "nodes": nodes,
    }
}

/// Twelve bytes without order.
fn digits(kind: Kind, n: u64) -> ObjectId {
    let seed = n | (kind as u64) << 60;
    let [high, low] = [mixed(seed), mixed(!seed)].map(u64::to_be_bytes);
    let bytes = [high, low].concat();
    ObjectId::from_bytes(bytes[..12].try_into().unwrap())
}

/// Maps different numbers to different numbers.
pub fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
