//! Reading the triggers of a workflow from its document.

use crate::ids::{OrganizationId, WebhookId, WorkflowId};
use crate::mirror::document::{Malformed, array, identifier, is_active};
use crate::triggers::skipped::{SkippedNode, SkippedNodes};
use bson::{Document, RawBsonRef, RawDocument, doc};
use std::collections::BTreeMap;

/// The type of trigger nodes.
const NODE_TYPE: &str = "WebhookTrigger";

/// The dotted paths of a document's fields.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) nodes: String,
    pub(super) organization: String,
    /// If this is empty, every workflow is switched on.
    pub(super) active: String,
}

impl Fields {
    /// The `$project` stage that returns the organization, the switch and the trigger nodes. If the
    /// nodes are not an array, it returns the name of their type instead: then a malformed document
    /// neither fails the cursor nor transfers its content.
    pub(super) fn projection(&self) -> Document {
        let nodes = format!("${}", self.nodes);
        let mut projection = doc! { "_id": 1, &self.organization: 1 };
        projection.insert(
            &self.nodes,
            doc! { "$cond": [
                { "$isArray": [&nodes] },
                { "$map": {
                    "input": { "$filter": { "input": &nodes, "as": "node", "cond": { "$eq": ["$$node.type", NODE_TYPE] } } },
                    "as": "node",
                    "in": { "id": "$$node.id", "type": "$$node.type", "data": { "webhookId": "$$node.data.webhookId" } },
                } },
                { "$type": &nodes },
            ] },
        );
        if !self.active.is_empty() {
            projection.insert(&self.active, 1);
        }
        projection
    }
}

/// What is kept of a workflow.
#[derive(Debug)]
pub struct WorkflowRecord {
    pub(super) organization: OrganizationId,
    pub(super) is_active: bool,
    /// Each webhook with the ids of its trigger nodes as a JSON array.
    pub(super) triggers: Vec<(WebhookId, Box<str>)>,
    /// The trigger nodes that start nothing.
    pub(super) skipped_nodes: SkippedNodes,
}

impl WorkflowRecord {
    pub(super) fn read(document: &RawDocument, fields: &Fields) -> Result<Self, Malformed> {
        identifier(document, "_id", WorkflowId::new)?;
        let organization = identifier(document, &fields.organization, OrganizationId::new)?;
        let is_active = is_active(document, &fields.active)?;
        let mut nodes_by_webhook: BTreeMap<WebhookId, Vec<&str>> = BTreeMap::new();
        let mut skipped_nodes = SkippedNodes::default();
        let nodes = array(document, &fields.nodes)?.into_iter();
        let mut number = 0;
        for node in nodes {
            let node = node.map_err(|_| Malformed::Unreadable)?;
            let RawBsonRef::Document(node) = node else { continue };
            if !matches!(node.get("type"), Ok(Some(RawBsonRef::String(NODE_TYPE)))) {
                continue;
            }
            number += 1;
            match TriggerNode::read(node) {
                TriggerNode::Valid { webhook, id } => {
                    nodes_by_webhook.entry(webhook).or_default().push(id);
                }
                TriggerNode::Skipped { webhook, node } => skipped_nodes.add(number, webhook, node),
            }
        }
        let triggers = nodes_by_webhook.into_iter().map(|(webhook, nodes)| {
            let json = serde_json::to_string(&nodes).expect("strings can be encoded as JSON");
            (webhook, json.into_boxed_str())
        });
        Ok(Self { organization, is_active, triggers: triggers.collect(), skipped_nodes })
    }
}

/// A trigger node of a document.
enum TriggerNode<'a> {
    Valid { webhook: WebhookId, id: &'a str },
    Skipped { webhook: Option<WebhookId>, node: SkippedNode },
}

impl<'a> TriggerNode<'a> {
    /// Reads a node. A node without a webhook id is not configured yet, whatever else is wrong with
    /// it.
    fn read(node: &'a RawDocument) -> Self {
        let id_field = node.get("id");
        let id = match id_field {
            Ok(Some(RawBsonRef::String(id))) => Some(id),
            _ => None,
        };
        let skipped = |webhook, fault| Self::Skipped { webhook, node: SkippedNode::new(id, fault) };
        match (webhook_of(node), id) {
            (Err(malformed), _) => skipped(None, Some(malformed)),
            (Ok(None), _) => skipped(None, None),
            (Ok(Some(webhook)), Some(id)) => Self::Valid { webhook, id },
            (Ok(webhook), None) => {
                let fault = match id_field {
                    Ok(None | Some(RawBsonRef::Null)) => Malformed::Missing("id"),
                    _ => Malformed::wrong("id", "a string"),
                };
                skipped(webhook, Some(fault))
            }
        }
    }
}

/// The webhook id of a node, if it has one. `data` of another type is read as MongoDB's projection
/// of `data.webhookId` shows it: an array stays an array, and any other value has no webhook id.
fn webhook_of(node: &RawDocument) -> Result<Option<WebhookId>, Malformed> {
    let malformed = || Malformed::wrong("data.webhookId", "a string of 1 to 256 bytes");
    let webhook = match node.get("data").map_err(|_| malformed())? {
        Some(RawBsonRef::Document(data)) => data.get("webhookId").map_err(|_| malformed())?,
        Some(array @ RawBsonRef::Array(_)) => Some(array),
        _ => None,
    };
    match webhook {
        None | Some(RawBsonRef::Null | RawBsonRef::String("")) => Ok(None),
        Some(RawBsonRef::String(string)) => {
            WebhookId::new(string).map(Some).map_err(|_| malformed())
        }
        Some(_) => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, rawdoc};

    fn read(document: &RawDocumentBuf) -> Result<WorkflowRecord, Malformed> {
        let fields = Fields {
            nodes: "graph.nodes".to_owned(),
            organization: "organizationId".to_owned(),
            active: "enabled".to_owned(),
        };
        WorkflowRecord::read(document, &fields)
    }

    #[test]
    fn nodes_are_grouped_by_webhook() {
        let node = |id: &str, webhook: &str| rawdoc! { "id": id, "type": NODE_TYPE, "data": { "webhookId": webhook } };
        let record = read(&rawdoc! {
            "_id": "w", "organizationId": "o",
            "graph": { "nodes": [node("n1", "b"), { "id": 5, "type": "Other" }, 7, node("n2", "a"), node("n\"3", "b")] },
        });
        let triggers = record.unwrap().triggers;
        let triggers: Vec<_> =
            triggers.iter().map(|(webhook, nodes)| (webhook.as_str(), &**nodes)).collect();
        assert_eq!(triggers, [("a", r#"["n2"]"#), ("b", r#"["n1","n\"3"]"#)]);
    }

    #[test]
    fn a_switch_is_a_boolean_or_null() {
        let document = |enabled: bson::RawBson| {
            rawdoc! { "_id": "w", "organizationId": "o", "enabled": enabled,
            "graph": { "nodes": [{ "id": "n", "type": NODE_TYPE, "data": { "webhookId": "a" } }] } }
        };
        assert!(read(&document(bson::RawBson::Null)).unwrap().is_active);
        assert!(!read(&document(false.into())).unwrap().is_active);
        assert!(read(&document("no".into())).is_err());
    }

    #[test]
    fn a_malformed_document_is_not_read() {
        for malformed in [
            rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": "missing" } },
            rawdoc! { "_id": "w", "graph": { "nodes": [] } },
            rawdoc! { "_id": 5, "organizationId": "o", "graph": { "nodes": [] } },
        ] {
            assert!(read(&malformed).is_err(), "{malformed:?}");
        }
        assert!(
            read(&rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": [] } }).is_ok()
        );
    }

    #[test]
    fn a_skipped_node_leaves_the_other_nodes() {
        let read_with = |mut node: RawDocumentBuf| {
            node.append("type", NODE_TYPE);
            let good = rawdoc! { "id": "good", "type": NODE_TYPE, "data": { "webhookId": "a" } };
            read(&rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": [good, node] } })
        };
        for (node, faults) in [
            (rawdoc! { "id": "n" }, 0),
            (rawdoc! { "data": {} }, 0),
            (rawdoc! { "id": 5, "data": null }, 0),
            (rawdoc! { "id": "n", "data": "a" }, 0),
            (rawdoc! { "id": "n", "data": { "webhookId": null } }, 0),
            (rawdoc! { "id": "n", "data": { "webhookId": "" } }, 0),
            (rawdoc! { "id": "n", "data": { "webhookId": 5 } }, 1),
            (rawdoc! { "id": "n", "data": { "webhookId": "w".repeat(257) } }, 1),
            (rawdoc! { "id": "n", "data": [{ "webhookId": "a" }] }, 1),
            (rawdoc! { "data": { "webhookId": "a" } }, 1),
            (rawdoc! { "id": null, "data": { "webhookId": "a" } }, 1),
            (rawdoc! { "id": 5, "data": { "webhookId": "a" } }, 1),
        ] {
            let record = read_with(node.clone()).unwrap();
            let skipped = &record.skipped_nodes.parts;
            assert_eq!((skipped.malformed, skipped.unconfigured), (faults, 1 - faults), "{node:?}");
            assert_eq!(record.triggers.len(), 1, "{node:?}");
            assert_eq!(&*record.triggers[0].1, r#"["good"]"#);
        }
    }
}
