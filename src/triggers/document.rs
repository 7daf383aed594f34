//! Reading the triggers of a workflow from its document.

use crate::ids::{OrganizationId, WebhookId, WorkflowId};
use crate::mirror::document::{Malformed, array, id_text, identifier};
use crate::mirror::paths::projected;
use crate::triggers::address_nodes::{AddressReader, ValidNode};
use crate::triggers::addresses::NodesByWebhook;
use crate::triggers::fields::Fields;
use crate::triggers::kept_fields;
use crate::triggers::posting::PostingLayout;
use crate::triggers::skipped::{SkippedNode, SkippedNodes};
use bson::{RawBsonRef, RawDocument};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Bytes of node ids and kept fields of one workflow, over all of its webhooks.
const MAX_KEPT_BYTES: usize = 1 << 20;
const TOO_MUCH_KEPT: &str = "few enough webhooks: their fields for jobs exceed 1 MiB";

/// What is kept of a workflow.
#[derive(Debug)]
pub struct WorkflowRecord {
    pub(super) organization: OrganizationId,
    pub(super) is_active: bool,
    /// Each webhook with the data of its posting.
    pub(super) triggers: Vec<(WebhookId, Vec<u8>)>,
    /// The trigger nodes that start nothing.
    pub(super) skipped_nodes: SkippedNodes,
    /// What is kept for the addresses of the webhooks. Empty if endpoints are not enabled, and for a
    /// workflow that is switched off.
    pub(super) addresses: NodesByWebhook,
}

impl WorkflowRecord {
    pub(super) fn read(
        document: &RawDocument,
        fields: &Fields,
        layout: &PostingLayout,
    ) -> Result<Self, Malformed> {
        identifier(document, "_id", WorkflowId::new)?;
        let organization = identifier(document, &fields.organization, OrganizationId::new)?;
        let is_active = fields.active.is_active(document)?;
        let kept = kept_fields::texts(document, &fields.kept.workflow, "workflow")?;
        let (webhooks, mut skipped_nodes) = read_nodes(document, fields)?;
        let mut addresses = addresses(&webhooks, fields, &organization, &kept, &mut skipped_nodes);
        if !is_active {
            addresses.clear();
        }
        let posting = |(webhook, nodes): (WebhookId, MatchingNodes<'_>)| {
            let of_node = kept_fields::texts(nodes.first, &fields.kept.node, "node")?;
            let ids = serde_json::to_string(&nodes.ids).expect("strings can be encoded as JSON");
            Ok((webhook, layout.write(ids, nodes.first_type, kept.iter().chain(&of_node))))
        };
        let triggers: Vec<_> =
            webhooks.into_iter().map(posting).collect::<Result<_, Malformed>>()?;
        // The fields of the workflow are in the posting of each of its webhooks.
        let bytes: usize = triggers.iter().map(|(_, data)| data.len()).sum();
        if !fields.kept.is_empty() && bytes > MAX_KEPT_BYTES {
            return Err(Malformed::wrong(&fields.nodes, TOO_MUCH_KEPT));
        }
        Ok(Self { organization, is_active, triggers, skipped_nodes, addresses })
    }
}

/// The trigger nodes of a webhook.
struct MatchingNodes<'a> {
    ids: Vec<Cow<'a, str>>,
    first: &'a RawDocument,
    first_type: &'a str,
    /// All of them with their types, if endpoints are enabled.
    all: Vec<(&'a RawDocument, &'a str)>,
}

/// Reads the verifications of the trigger nodes.
fn addresses(
    webhooks: &BTreeMap<WebhookId, MatchingNodes<'_>>,
    fields: &Fields,
    organization: &OrganizationId,
    kept: &[String],
    skipped: &mut SkippedNodes,
) -> NodesByWebhook {
    let Some(field) = &fields.verification else { return Vec::new() };
    let mut reader = AddressReader::new(field, organization, kept, &fields.kept.node);
    let mut addresses = Vec::new();
    for (webhook, MatchingNodes { ids, all, .. }) in webhooks {
        let nodes = ids.iter().zip(all);
        let nodes = nodes.map(|(id, &(document, node_type))| ValidNode { id, node_type, document });
        let nodes = reader.read(webhook, &nodes.collect::<Vec<_>>());
        if !nodes.is_empty() {
            addresses.push((webhook.clone(), nodes));
        }
    }
    for (id, fault) in reader.faults {
        skipped.add_without_endpoint(&id, fault);
    }
    addresses
}

/// Groups the trigger nodes of a document by their webhook.
fn read_nodes<'a>(
    document: &'a RawDocument,
    fields: &'a Fields,
) -> Result<(BTreeMap<WebhookId, MatchingNodes<'a>>, SkippedNodes), Malformed> {
    let mut webhooks: BTreeMap<WebhookId, MatchingNodes<'_>> = BTreeMap::new();
    let mut skipped_nodes = SkippedNodes::default();
    let mut number = 0;
    for node in array(document, &fields.nodes)? {
        let RawBsonRef::Document(node) = node.map_err(|_| Malformed::Unreadable)? else { continue };
        let Some(node_type) = trigger_type(node, fields) else { continue };
        number += 1;
        match TriggerNode::read(node, fields) {
            TriggerNode::Valid { webhook, id } => {
                let nodes = webhooks.entry(webhook).or_insert_with(|| MatchingNodes {
                    ids: Vec::new(),
                    first: node,
                    first_type: node_type,
                    all: Vec::new(),
                });
                nodes.ids.push(id);
                if fields.verification.is_some() {
                    nodes.all.push((node, node_type));
                }
            }
            TriggerNode::Skipped { webhook, node } => skipped_nodes.add(number, webhook, node),
        }
    }
    Ok((webhooks, skipped_nodes))
}

/// The type of a node; `None` if it is not a trigger.
pub(super) fn trigger_type<'a>(node: &RawDocument, fields: &'a Fields) -> Option<&'a str> {
    let Ok(Some(RawBsonRef::String(node_type))) = projected(node, &fields.node_type) else {
        return None;
    };
    fields.node_types.iter().find(|known| *known == node_type).map(String::as_str)
}

/// A trigger node of a document.
enum TriggerNode<'a> {
    Valid { webhook: WebhookId, id: Cow<'a, str> },
    Skipped { webhook: Option<WebhookId>, node: SkippedNode },
}

impl<'a> TriggerNode<'a> {
    /// Reads a node. A node without a webhook id is not configured yet, whatever else is wrong with
    /// it.
    fn read(node: &'a RawDocument, fields: &Fields) -> Self {
        let id = node_id(node, &fields.node_id);
        let skipped = |webhook, fault| {
            let id = id.as_ref().ok();
            Self::Skipped { webhook, node: SkippedNode::new(id.map(Cow::as_ref), fault) }
        };
        match (webhook_of(node, &fields.webhook_id), &id) {
            (Err(malformed), _) => skipped(None, Some(malformed)),
            (Ok(None), _) => skipped(None, None),
            (Ok(webhook), Err(malformed)) => skipped(webhook, Some(malformed.clone())),
            (Ok(Some(webhook)), Ok(id)) => Self::Valid { webhook, id: id.clone() },
        }
    }
}

/// The id of a node.
fn node_id<'a>(node: &'a RawDocument, path: &str) -> Result<Cow<'a, str>, Malformed> {
    let value = projected(node, path)?.ok_or_else(|| Malformed::Missing(path.to_owned()))?;
    id_text(value)
        .ok_or_else(|| Malformed::wrong(path, "a string, an ObjectId, an integer or a UUID"))
}

/// The webhook id of a node, if it has one.
fn webhook_of(node: &RawDocument, path: &str) -> Result<Option<WebhookId>, Malformed> {
    let malformed = || Malformed::wrong(path, "a string of 1 to 256 bytes");
    match projected(node, path).map_err(|_| malformed())? {
        None | Some(RawBsonRef::String("")) => Ok(None),
        Some(RawBsonRef::String(string)) => {
            WebhookId::new(string).map(Some).map_err(|_| malformed())
        }
        Some(_) => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;
    use bson::oid::ObjectId;
    use bson::{RawBson, RawDocumentBuf, rawdoc};

    const NODE_TYPE: &str = "WebhookTrigger";

    fn read(document: &RawDocumentBuf) -> Result<WorkflowRecord, Malformed> {
        read_with("", document)
    }

    /// Reads a document with further settings.
    fn read_with(settings: &str, document: &RawDocumentBuf) -> Result<WorkflowRecord, Malformed> {
        let file = format!("[triggers]\nnodes_field = \"graph.nodes\"\n{settings}");
        let file = toml::from_str(&file).unwrap();
        let mut settings = SettingsReader::new(file, std::iter::empty());
        let fields = Fields::read(&mut settings.section("triggers"));
        let layout = PostingLayout::new(&fields.node_types, 0);
        WorkflowRecord::read(document, &fields, &layout)
    }

    /// The webhooks of a record, each with the data of its posting.
    fn triggers(record: &WorkflowRecord) -> Vec<(&str, &str)> {
        let triggers = record.triggers.iter();
        triggers.map(|(webhook, data)| (webhook.as_str(), str::from_utf8(data).unwrap())).collect()
    }

    #[test]
    fn nodes_are_grouped_by_webhook() {
        let node = |id: &str, webhook: &str| rawdoc! { "id": id, "type": NODE_TYPE, "data": { "webhookId": webhook } };
        let record = read(&rawdoc! {
            "_id": "w", "organizationId": "o",
            "graph": { "nodes": [node("n1", "b"), { "id": 5, "type": "Other" }, 7, node("n2", "a"), node("n\"3", "b")] },
        });
        assert_eq!(triggers(&record.unwrap()), [("a", r#"["n2"]"#), ("b", r#"["n1","n\"3"]"#)]);
    }

    #[test]
    fn a_switch_is_a_boolean_or_null() {
        let document = |enabled: RawBson| {
            rawdoc! { "_id": "w", "organizationId": "o", "enabled": enabled,
            "graph": { "nodes": [{ "id": "n", "type": NODE_TYPE, "data": { "webhookId": "a" } }] } }
        };
        assert!(read(&document(RawBson::Null)).unwrap().is_active);
        assert!(!read(&document(false.into())).unwrap().is_active);
        assert!(read(&document("no".into())).is_err());
    }

    #[test]
    fn a_malformed_document_is_not_read() {
        for malformed in [
            rawdoc! { "_id": "w", "organizationId": "o", "graph": { "nodes": "missing" } },
            rawdoc! { "_id": "w", "graph": { "nodes": [] } },
            rawdoc! { "_id": 5.5, "organizationId": "o", "graph": { "nodes": [] } },
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
            (rawdoc! { "id": 5.5, "data": { "webhookId": "a" } }, 1),
        ] {
            let record = read_with(node.clone()).unwrap();
            let skipped = &record.skipped_nodes.parts;
            assert_eq!((skipped.malformed, skipped.unconfigured), (faults, 1 - faults), "{node:?}");
            assert_eq!(record.triggers.len(), 1, "{node:?}");
            assert_eq!(triggers(&record), [("a", r#"["good"]"#)]);
        }
    }

    #[test]
    fn ids_of_nodes_are_strings_in_every_kind() {
        let object_id = ObjectId::new();
        let uuid = bson::Uuid::from_bytes([0xab; 16]);
        for (id, text) in [
            (RawBson::from(7), "7".to_owned()),
            (7_i64.into(), "7".to_owned()),
            (7.0.into(), "7".to_owned()),
            (object_id.into(), object_id.to_hex()),
            (bson::Binary::from(uuid).into(), "abababab-abab-abab-abab-abababababab".to_owned()),
        ] {
            let node = rawdoc! { "id": id, "type": NODE_TYPE, "data": { "webhookId": "a" } };
            let document = rawdoc! { "_id": 1, "organizationId": 2, "graph": { "nodes": [node] } };
            let record = read(&document).unwrap();
            assert_eq!(triggers(&record), [("a", format!("[\"{text}\"]").as_str())]);
            assert_eq!(record.organization.as_str(), "2");
        }
    }

    #[test]
    fn a_node_is_read_at_the_configured_paths() {
        let settings = r#"
            node_types = ["hook", "form"]
            node_type_field = "meta.kind"
            node_id_field = "meta.key"
            webhook_id_field = "path"
        "#;
        let node =
            |kind: &str, key: i32| rawdoc! { "meta": { "kind": kind, "key": key }, "path": "a" };
        let in_array = rawdoc! { "meta": [{ "kind": "hook", "key": 9 }], "path": "a" };
        let nodes =
            rawdoc! { "nodes": [node("form", 1), node("other", 2), node("hook", 3), in_array] };
        let document = rawdoc! { "_id": "w", "organizationId": "o", "graph": nodes };
        let record = read_with(settings, &document).unwrap();
        let [(_, data)] = record.triggers.as_slice() else { panic!("{record:?}") };
        assert!(data.starts_with(b"\x09[\"1\",\"3\"]"), "{data:?}");
        assert!(data.ends_with(b"form"), "{data:?}");
        assert_eq!(record.skipped_nodes.parts.malformed, 0);
    }
}
