//! What a workflow's document says about its triggers.

use crate::ids::{OrganizationId, WebhookId, WorkflowId};
use crate::mirror::document::{Malformed, array, field, identifier, is_active};
use bson::{Document, RawBsonRef, RawDocument, doc};
use std::collections::BTreeMap;

/// The type of the nodes that webhooks start.
const NODE_TYPE: &str = "WebhookTrigger";

/// Where things stand in a document, as dotted paths.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) nodes: String,
    pub(super) organization: String,
    /// Empty: every workflow counts as switched on.
    pub(super) active: String,
}

impl Fields {
    /// Only the organization, the switch and the nodes that matter leave the server. What is no
    /// array comes as the name of its type, so that one bad document neither ends the cursor nor
    /// sends its bulk.
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

/// What a workflow's document comes to.
#[derive(Debug)]
pub struct WorkflowRecord {
    pub(super) organization: OrganizationId,
    pub(super) is_active: bool,
    /// By webhook: the ids of the nodes it reaches, as a JSON array.
    pub(super) triggers: Vec<(WebhookId, Box<str>)>,
}

impl WorkflowRecord {
    pub(super) fn read(document: &RawDocument, fields: &Fields) -> Result<Self, Malformed> {
        identifier(document, "_id", WorkflowId::new)?;
        let organization = identifier(document, &fields.organization, OrganizationId::new)?;
        let is_active = is_active(document, &fields.active)?;
        let mut nodes_of: BTreeMap<WebhookId, Vec<&str>> = BTreeMap::new();
        for node in array(document, &fields.nodes)? {
            let RawBsonRef::Document(node) = node.map_err(|_| Malformed::Unreadable)? else {
                continue;
            };
            if !matches!(node.get("type"), Ok(Some(RawBsonRef::String(NODE_TYPE)))) {
                continue;
            }
            let Some(RawBsonRef::String(id)) = field(node, "id")? else {
                return Err(Malformed::wrong("id of a WebhookTrigger node", "a text"));
            };
            let webhook = match field(node, "data.webhookId")? {
                Some(RawBsonRef::String(text)) => WebhookId::new(text).ok(),
                _ => None,
            };
            let webhook = webhook.ok_or_else(|| {
                Malformed::wrong("webhookId of a WebhookTrigger node", "a text of 1 to 256 bytes")
            })?;
            nodes_of.entry(webhook).or_default().push(id);
        }
        let triggers = nodes_of.into_iter().map(|(webhook, nodes)| {
            let json = serde_json::to_string(&nodes).expect("texts can be written as JSON");
            (webhook, json.into_boxed_str())
        });
        Ok(Self { organization, is_active, triggers: triggers.collect() })
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
    fn nodes_of_one_webhook_come_together() {
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
    fn what_is_switched_off_is_told_from_what_is_malformed() {
        let document = |enabled: bson::RawBson| {
            rawdoc! { "_id": "w", "organizationId": "o", "enabled": enabled,
            "graph": { "nodes": [{ "id": "n", "type": NODE_TYPE, "data": { "webhookId": "a" } }] } }
        };
        assert!(read(&document(bson::RawBson::Null)).unwrap().is_active);
        assert!(!read(&document(false.into())).unwrap().is_active);
        assert!(read(&document("no".into())).is_err());
    }

    #[test]
    fn malformed_documents_are_told_from_good_ones() {
        let node = |node: RawDocumentBuf| rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": [node] } };
        for malformed in [
            rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": "missing" } },
            rawdoc! { "_id": "w", "graph": { "nodes": [] } },
            rawdoc! { "_id": 5, "organizationId": "o", "graph": { "nodes": [] } },
            node(rawdoc! { "id": "n", "type": NODE_TYPE, "data": { "webhookId": 5 } }),
            node(rawdoc! { "id": "n", "type": NODE_TYPE }),
            node(rawdoc! { "type": NODE_TYPE, "data": { "webhookId": "a" } }),
        ] {
            assert!(read(&malformed).is_err(), "{malformed:?}");
        }
        assert!(
            read(&rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": [] } }).is_ok()
        );
    }
}
