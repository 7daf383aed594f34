//! Trigger nodes that start nothing although their workflow counts: malformed ones, and those that are not configured
//! yet, as most are for a while in an editor. They are kept for those who ask why nothing has started.

use crate::ids::{OrganizationId, WebhookId};
use crate::mirror::document::{DocumentKey, IdText, Malformed};
use crate::mirror::left_out::LeftOut;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a node's id that are shown.
const SHOWN_ID_BYTES: usize = 64;

/// A trigger node that starts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedNode {
    /// Its id, cut if it is long; `None` if it is no string.
    pub id: Option<Box<str>>,
    /// What is wrong with it; `None`: it has no webhook id yet.
    fault: Option<Malformed>,
}

impl SkippedNode {
    pub(super) fn new(id: Option<&str>, fault: Option<Malformed>) -> Self {
        let shown = |id: &str| id.get(..id.floor_char_boundary(SHOWN_ID_BYTES)).map(Box::from);
        Self { id: id.and_then(shown), fault }
    }

    pub fn reason(&self) -> String {
        let none = || "the webhook id is not set yet".to_owned();
        self.fault.as_ref().map_or_else(none, Malformed::to_string)
    }
}

/// The skipped nodes of one workflow.
#[derive(Debug, Default)]
pub(super) struct SkippedNodes {
    pub(super) left_out: LeftOut,
    /// Those that are named, each with its webhook id where that can be read.
    nodes: Vec<(Option<WebhookId>, SkippedNode)>,
}

impl SkippedNodes {
    /// Adds the trigger node with this number, counted from one.
    pub(super) fn add(&mut self, number: usize, webhook: Option<WebhookId>, node: SkippedNode) {
        let name = || match &node.id {
            Some(id) => format!("node {id}"),
            None => format!("trigger node no. {number}"),
        };
        if self.left_out.add(name, node.fault.clone()) {
            self.nodes.push((webhook, node));
        }
    }
}

/// An organization, and a webhook of it; `None` stands for nodes whose webhook id cannot be read or is not set.
type Place = (OrganizationId, Option<WebhookId>);

/// The skipped nodes of all workflows.
#[derive(Debug, Default)]
pub(super) struct SkippedTable {
    nodes: HashMap<Place, BTreeMap<DocumentKey, Vec<SkippedNode>>>,
    /// Where each workflow has any.
    places: HashMap<DocumentKey, Vec<Place>>,
}

impl SkippedTable {
    /// Puts the nodes of a workflow in place of those it had.
    pub(super) fn put(
        &mut self,
        document: &DocumentKey,
        organization: &OrganizationId,
        skipped: SkippedNodes,
    ) {
        self.remove(document);
        let mut places: Vec<Place> = Vec::new();
        for (webhook, node) in skipped.nodes {
            let place = (organization.clone(), webhook);
            let workflows = self.nodes.entry(place.clone()).or_default();
            workflows.entry(document.clone()).or_default().push(node);
            if !places.contains(&place) {
                places.push(place);
            }
        }
        if !places.is_empty() {
            self.places.insert(document.clone(), places);
        }
    }

    pub(super) fn remove(&mut self, document: &DocumentKey) {
        for place in self.places.remove(document).into_iter().flatten() {
            let Some(workflows) = self.nodes.get_mut(&place) else { continue };
            workflows.remove(document);
            if workflows.is_empty() {
                self.nodes.remove(&place);
            }
        }
    }
}

/// A table that is read by previews, which lock it for moments.
#[derive(Debug, Default)]
pub(super) struct Skipped(Mutex<SkippedTable>);

impl Skipped {
    pub(super) fn table(&self) -> MutexGuard<'_, SkippedTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first nodes that may be why a webhook starts nothing: those with its id, then those whose webhook id is unknown.
    /// Each comes with the id of its workflow.
    pub(super) fn of_webhook(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        most: usize,
    ) -> Vec<(String, SkippedNode)> {
        let table = self.table();
        let places = [Some(webhook.clone()), None].map(|webhook| (organization.clone(), webhook));
        let workflows = places.iter().filter_map(|place| table.nodes.get(place)).flatten();
        let nodes = workflows.flat_map(|(document, nodes)| {
            let id = IdText::of(document.as_bytes()).map_or("", |id| id.as_str());
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
    fn nodes_are_found_by_webhook_and_go_with_their_workflow() {
        let skipped = Skipped::default();
        let document = |id: &str| DocumentKey::of(&rawdoc! { "_id": id }).unwrap();
        let organization = |id: &str| OrganizationId::new(id).unwrap();
        let put = |id: &str, of: &str, webhooks: &[Option<&str>]| {
            skipped.table().put(&document(id), &organization(of), nodes(webhooks));
        };
        let found = |of: &str, webhook: &str, most: usize| -> Vec<String> {
            let webhook = WebhookId::new(webhook).unwrap();
            let found = skipped.of_webhook(&organization(of), &webhook, most).into_iter();
            found.map(|(workflow, node)| format!("{workflow} {}", node.id.unwrap())).collect()
        };
        put("w1", "o", &[None, Some("a"), Some("b"), None]);
        put("w2", "o", &[Some("a")]);
        put("w3", "other", &[Some("a")]);
        assert_eq!(found("o", "a", 9), ["w1 n1", "w2 n0", "w1 n0", "w1 n3"]);
        assert_eq!(found("o", "a", 2), ["w1 n1", "w2 n0"]);
        assert_eq!(found("o", "c", 9), ["w1 n0", "w1 n3"]);
        put("w1", "other", &[Some("b")]);
        assert_eq!(found("o", "a", 9), ["w2 n0"]);
        assert_eq!(found("other", "b", 9), ["w1 n0"]);
        for id in ["w1", "w2", "w3"] {
            skipped.table().remove(&document(id));
        }
        assert!(skipped.table().nodes.is_empty() && skipped.table().places.is_empty());
    }

    #[test]
    fn of_a_workflow_with_many_the_first_are_kept_and_all_are_counted() {
        let skipped = nodes(&[None; 25]);
        assert_eq!((skipped.nodes.len(), skipped.left_out.unconfigured), (10, 25));
        let long = SkippedNode::new(Some(&"ä".repeat(100)), None);
        assert_eq!(long.id.as_deref(), Some(&*"ä".repeat(32)));
    }
}
