//! Trigger nodes that start nothing although their workflow is read: they are malformed, or not
//! configured yet, like a new node in an editor. A preview reports them as reasons why a webhook
//! starts nothing.

use crate::ids::{OrganizationId, WebhookId};
use crate::mirror::document::{DocumentKey, IdString, Malformed};
use crate::mirror::skipped_parts::SkippedParts;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};

/// The number of bytes of a node's id that are kept.
const KEPT_ID_BYTES: usize = 64;

/// A trigger node that starts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedNode {
    /// Its id, truncated if it is long; `None` if it is not a string.
    pub id: Option<Box<str>>,
    /// Why it is malformed; `None` if it has no webhook id yet.
    fault: Option<Malformed>,
}

impl SkippedNode {
    pub(super) fn new(id: Option<&str>, fault: Option<Malformed>) -> Self {
        let truncated = |id: &str| id.get(..id.floor_char_boundary(KEPT_ID_BYTES)).map(Box::from);
        Self { id: id.and_then(truncated), fault }
    }

    /// Why the node starts nothing.
    pub fn reason(&self) -> String {
        let unconfigured = || "the webhook id is not set yet".to_owned();
        self.fault.as_ref().map_or_else(unconfigured, Malformed::to_string)
    }
}

/// The skipped nodes of one workflow.
#[derive(Debug, Default)]
pub(super) struct SkippedNodes {
    pub(super) parts: SkippedParts,
    /// The named ones, each with its webhook id if that is readable.
    nodes: Vec<(Option<WebhookId>, SkippedNode)>,
}

impl SkippedNodes {
    /// Adds a node. `number` is its position among the trigger nodes, from 1.
    pub(super) fn add(&mut self, number: usize, webhook: Option<WebhookId>, node: SkippedNode) {
        let name = || match &node.id {
            Some(id) => format!("node {id}"),
            None => format!("trigger node no. {number}"),
        };
        if self.parts.add(name, node.fault.clone()) {
            self.nodes.push((webhook, node));
        }
    }

    /// Counts a node that has no endpoint. It is no reason why a webhook starts nothing.
    pub(super) fn add_without_endpoint(&mut self, id: &str, fault: Malformed) {
        let node = SkippedNode::new(Some(id), Some(fault));
        self.parts.add(|| format!("node {}", node.id.as_deref().unwrap_or_default()), node.fault);
    }
}

/// An organization and a webhook. `None` stands for nodes whose webhook id is unreadable or not
/// set.
type SkippedKey = (OrganizationId, Option<WebhookId>);

/// The skipped nodes of all workflows.
#[derive(Debug, Default)]
pub struct SkippedTable {
    nodes: HashMap<SkippedKey, BTreeMap<DocumentKey, Vec<SkippedNode>>>,
    /// The keys under which each workflow has nodes.
    keys_of_workflow: HashMap<DocumentKey, Vec<SkippedKey>>,
}

impl SkippedTable {
    /// Replaces the nodes of a workflow.
    pub(super) fn upsert(
        &mut self,
        document: &DocumentKey,
        organization: &OrganizationId,
        skipped: SkippedNodes,
    ) {
        self.remove(document);
        let mut keys: Vec<SkippedKey> = Vec::new();
        for (webhook, node) in skipped.nodes {
            let key = (organization.clone(), webhook);
            let workflows = self.nodes.entry(key.clone()).or_default();
            workflows.entry(document.clone()).or_default().push(node);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if !keys.is_empty() {
            self.keys_of_workflow.insert(document.clone(), keys);
        }
    }

    /// Removes the nodes of a workflow.
    pub(super) fn remove(&mut self, document: &DocumentKey) {
        for key in self.keys_of_workflow.remove(document).into_iter().flatten() {
            let Some(workflows) = self.nodes.get_mut(&key) else { continue };
            workflows.remove(document);
            if workflows.is_empty() {
                self.nodes.remove(&key);
            }
        }
    }
}

/// The table that previews read. They hold its lock only while they copy what they report.
#[derive(Debug, Default)]
pub(super) struct SkippedIndex(Mutex<SkippedTable>);

impl SkippedIndex {
    pub(super) fn table(&self) -> MutexGuard<'_, SkippedTable> {
        self.0.lock()
    }

    /// Publishes the table of a load.
    pub(super) fn replace(&self, table: SkippedTable) {
        // The old table is dropped after the lock is released.
        let _old = std::mem::replace(&mut *self.table(), table);
    }

    /// At most `most` nodes that may be the reason why a webhook starts nothing, each with the id
    /// of its workflow: first those with its id, then those without a readable webhook id.
    pub(super) fn of_webhook(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        most: usize,
    ) -> Vec<(String, SkippedNode)> {
        let table = self.table();
        let keys = [Some(webhook.clone()), None].map(|webhook| (organization.clone(), webhook));
        let workflows = keys.iter().filter_map(|key| table.nodes.get(key)).flatten();
        let nodes = workflows.flat_map(|(document, nodes)| {
            let id = IdString::from_key(document.as_bytes()).map_or("", |id| id.as_str());
            nodes.iter().map(move |node| (id.to_owned(), node.clone()))
        });
        nodes.take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn nodes(webhooks: &[Option<&str>]) -> SkippedNodes {
        let mut skipped = SkippedNodes::default();
        for (at, webhook) in webhooks.iter().enumerate() {
            let webhook = webhook.map(|webhook| WebhookId::new(webhook).unwrap());
            skipped.add(at + 1, webhook, SkippedNode::new(Some(&format!("n{at}")), None));
        }
        skipped
    }

    #[test]
    fn nodes_are_found_by_webhook_and_removed_with_their_workflow() {
        let skipped = SkippedIndex::default();
        let document = |id: &str| DocumentKey::from_document(&rawdoc! { "_id": id }).unwrap();
        let organization = |id: &str| OrganizationId::new(id).unwrap();
        let upsert = |id: &str, owner: &str, webhooks: &[Option<&str>]| {
            skipped.table().upsert(&document(id), &organization(owner), nodes(webhooks));
        };
        let found = |owner: &str, webhook: &str, most: usize| -> Vec<String> {
            let webhook = WebhookId::new(webhook).unwrap();
            let found = skipped.of_webhook(&organization(owner), &webhook, most).into_iter();
            found.map(|(workflow, node)| format!("{workflow} {}", node.id.unwrap())).collect()
        };
        upsert("w1", "o", &[None, Some("a"), Some("b"), None]);
        upsert("w2", "o", &[Some("a")]);
        upsert("w3", "other", &[Some("a")]);
        assert_eq!(found("o", "a", 9), ["w1 n1", "w2 n0", "w1 n0", "w1 n3"]);
        assert_eq!(found("o", "a", 2), ["w1 n1", "w2 n0"]);
        assert_eq!(found("o", "c", 9), ["w1 n0", "w1 n3"]);
        upsert("w1", "other", &[Some("b")]);
        assert_eq!(found("o", "a", 9), ["w2 n0"]);
        assert_eq!(found("other", "b", 9), ["w1 n0"]);
        for id in ["w1", "w2", "w3"] {
            skipped.table().remove(&document(id));
        }
        assert!(skipped.table().nodes.is_empty() && skipped.table().keys_of_workflow.is_empty());
    }

    #[test]
    fn the_first_nodes_of_a_workflow_are_kept_and_all_are_counted() {
        let skipped = nodes(&[None; 25]);
        assert_eq!((skipped.nodes.len(), skipped.parts.unconfigured), (10, 25));
        let long = SkippedNode::new(Some(&"ä".repeat(100)), None);
        assert_eq!(long.id.as_deref(), Some(&*"ä".repeat(32)));
    }
}
