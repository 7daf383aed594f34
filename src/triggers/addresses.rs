//! The addresses of all workflows that are switched on.
//!
//! They are kept beside the index and never written to a snapshot, because they hold secrets. There
//! are none unless endpoints are enabled.

use crate::endpoints::verification::{Digest, Verification};
use crate::ids::{OrganizationId, WebhookId};
use crate::mirror::document::{DocumentKey, IdString};
use crate::mirror::{Freshness, StaleIndex};
use crate::triggers::address::{Address, AddressNode, AddressTrigger, NodeVerification};
use parking_lot::{RwLock, RwLockWriteGuard};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The trigger nodes of one workflow, by webhook, sorted.
pub(super) type NodesByWebhook = Vec<(WebhookId, Vec<AddressNode>)>;

type AddressKey = (OrganizationId, WebhookId);

/// The addresses of all workflows.
#[derive(Debug, Default)]
pub struct AddressTable {
    addresses: HashMap<AddressKey, Arc<Address>>,
    /// The organization and the webhooks under which each workflow has nodes.
    keys_of_workflow: HashMap<DocumentKey, WorkflowKeys>,
    verifications: SharedVerifications,
}

#[derive(Debug)]
struct WorkflowKeys {
    organization: OrganizationId,
    /// Sorted.
    webhooks: Vec<WebhookId>,
}

impl AddressTable {
    /// Replaces the nodes of a workflow.
    pub(super) fn upsert(
        &mut self,
        document: &DocumentKey,
        organization: &OrganizationId,
        nodes: NodesByWebhook,
    ) {
        let webhooks: Vec<WebhookId> = nodes.iter().map(|(webhook, _)| webhook.clone()).collect();
        // An address that stays keeps its last refusals.
        self.remove_except(document, organization, &webhooks);
        for (webhook, nodes) in nodes {
            let trigger = self.trigger(document, nodes);
            let address = self.addresses.entry((organization.clone(), webhook)).or_default();
            Arc::make_mut(address).set(trigger);
        }
        if !webhooks.is_empty() {
            let keys = WorkflowKeys { organization: organization.clone(), webhooks };
            self.keys_of_workflow.insert(document.clone(), keys);
        }
    }

    /// Removes the nodes of a workflow.
    pub(super) fn remove(&mut self, document: &DocumentKey) {
        let Some(WorkflowKeys { organization, webhooks }) = self.keys_of_workflow.remove(document)
        else {
            return;
        };
        for webhook in webhooks {
            self.remove_from(&(organization.clone(), webhook), document);
        }
    }

    /// Removes the nodes of a workflow except at some addresses.
    fn remove_except(
        &mut self,
        document: &DocumentKey,
        organization: &OrganizationId,
        kept: &[WebhookId],
    ) {
        let Some(keys) = self.keys_of_workflow.remove(document) else { return };
        let is_same = keys.organization == *organization;
        for webhook in keys.webhooks {
            if !is_same || kept.binary_search(&webhook).is_err() {
                self.remove_from(&(keys.organization.clone(), webhook), document);
            }
        }
    }

    fn remove_from(&mut self, key: &AddressKey, document: &DocumentKey) {
        let Some(address) = self.addresses.get_mut(key) else { return };
        let address = Arc::make_mut(address);
        address.remove(document);
        if address.triggers.is_empty() {
            self.addresses.remove(key);
        }
    }

    fn trigger(
        &mut self,
        document: &DocumentKey,
        mut nodes: Vec<AddressNode>,
    ) -> Arc<AddressTrigger> {
        for node in &mut nodes {
            if let NodeVerification::Described(verification) = &mut node.verification {
                self.verifications.share(verification);
            }
        }
        let workflow = IdString::from_key(document.as_bytes()).map_or("", |id| id.as_str()).into();
        Arc::new(AddressTrigger { workflow, nodes, document: document.clone() })
    }
}

impl Address {
    /// Adds the trigger of a workflow, or replaces it.
    fn set(&mut self, trigger: Arc<AddressTrigger>) {
        match self.position(&trigger.document) {
            Ok(at) => {
                if let Some(old) = self.triggers.get_mut(at) {
                    *old = trigger;
                }
            }
            Err(at) => self.triggers.insert(at, trigger),
        }
    }

    fn remove(&mut self, document: &DocumentKey) {
        if let Ok(at) = self.position(document) {
            self.triggers.remove(at);
        }
    }

    fn position(&self, document: &DocumentKey) -> Result<usize, usize> {
        self.triggers.binary_search_by(|trigger| trigger.document.cmp(document))
    }
}

/// The verifications of a table, so that equal ones are in memory once.
#[derive(Debug, Default)]
struct SharedVerifications {
    known: HashMap<Digest, Weak<Verification>>,
    /// The number of known ones at which those that are no longer used are removed.
    next_cleaning: usize,
}

impl SharedVerifications {
    /// Replaces a verification by an equal one that is already there.
    fn share(&mut self, verification: &mut Arc<Verification>) {
        let identity = verification.identity();
        if let Some(known) = self.known.get(&identity).and_then(Weak::upgrade) {
            *verification = known;
        } else {
            self.clean();
            self.known.insert(identity, Arc::downgrade(verification));
        }
    }

    fn clean(&mut self) {
        if self.known.len() >= self.next_cleaning {
            self.known.retain(|_, known| known.strong_count() > 0);
            self.next_cleaning = 2 * self.known.len() + 64;
        }
    }
}

/// The table that deliveries read. They hold its lock only while they look up one address.
#[derive(Debug, Default)]
pub(super) struct AddressIndex(RwLock<AddressTable>);

impl AddressIndex {
    /// The table, for changes.
    pub(super) fn table(&self) -> RwLockWriteGuard<'_, AddressTable> {
        self.0.write()
    }

    /// Publishes the table of a load.
    pub(super) fn replace(&self, table: AddressTable) {
        // The old table is dropped after the lock is released.
        let _old = std::mem::replace(&mut *self.table(), table);
    }

    /// An address; `None` if it is known that there is none.
    pub(super) fn look_up(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        freshness: &Freshness,
    ) -> Result<Option<Arc<Address>>, StaleIndex> {
        let key = (organization.clone(), webhook.clone());
        freshness.look_up(|| self.0.read().addresses.get(&key).map(Arc::clone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::verification::{Refusal, RefusalKind};
    use crate::triggers::address::{KeptFieldTexts, LastRefusal};
    use bson::{RawDocumentBuf, rawdoc};
    use std::time::{Duration, SystemTime};
    use tokio::time::Instant;

    fn document(id: &str) -> DocumentKey {
        DocumentKey::from_document(&rawdoc! { "_id": id }).unwrap()
    }

    fn organization(id: &str) -> OrganizationId {
        OrganizationId::new(id).unwrap()
    }

    fn webhook(id: &str) -> WebhookId {
        WebhookId::new(id).unwrap()
    }

    fn github(secret: &str, more: Option<(&str, i32)>) -> RawDocumentBuf {
        let mut description = rawdoc! { "scheme": "github", "secret": secret };
        if let Some((name, value)) = more {
            description.append(name, value);
        }
        description
    }

    fn described(description: &RawDocumentBuf) -> NodeVerification {
        NodeVerification::Described(Arc::new(Verification::from_document(description).unwrap()))
    }

    fn node(verification: NodeVerification) -> AddressNode {
        let (id, node_type) = ("n".into(), "WebhookTrigger".into());
        AddressNode { id, node_type, fields: KeptFieldTexts::default(), verification }
    }

    /// One node for each of these webhooks.
    fn nodes(webhooks: &[&str], description: &RawDocumentBuf) -> NodesByWebhook {
        let node = |id: &&str| (webhook(id), vec![node(described(description))]);
        webhooks.iter().map(node).collect()
    }

    fn verifications(address: &Address) -> Vec<&Arc<Verification>> {
        let nodes = address.triggers.iter().flat_map(|trigger| &trigger.nodes);
        nodes
            .filter_map(|node| match &node.verification {
                NodeVerification::Described(verification) => Some(verification),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn workflows_are_in_the_order_of_their_ids_and_leave_nothing() {
        let mut table = AddressTable::default();
        let description = github("0123456789abcdef", None);
        let found = |table: &AddressTable, owner: &str, id: &str| -> Vec<String> {
            let address = table.addresses.get(&(organization(owner), webhook(id)));
            let triggers = address.into_iter().flat_map(|address| &address.triggers);
            triggers.map(|trigger| trigger.workflow.to_string()).collect()
        };
        for id in ["w2", "w3", "w1"] {
            table.upsert(&document(id), &organization("o"), nodes(&["a", "b"], &description));
        }
        assert_eq!(found(&table, "o", "a"), ["w1", "w2", "w3"]);
        table.upsert(&document("w2"), &organization("o"), nodes(&["b", "c"], &description));
        assert_eq!(found(&table, "o", "a"), ["w1", "w3"]);
        assert_eq!(found(&table, "o", "b"), ["w1", "w2", "w3"]);
        table.upsert(&document("w1"), &organization("other"), nodes(&["a"], &description));
        assert_eq!(found(&table, "o", "a"), ["w3"]);
        assert_eq!(found(&table, "other", "a"), ["w1"]);
        table.upsert(&document("w1"), &organization("other"), Vec::new());
        table.remove(&document("w2"));
        table.remove(&document("w3"));
        table.remove(&document("none"));
        assert!(table.addresses.is_empty() && table.keys_of_workflow.is_empty());
    }

    #[test]
    fn equal_verifications_are_in_memory_once() {
        let mut table = AddressTable::default();
        let owner = organization("o");
        let (one, two) = (github("0123456789abcdef", None), github("fedcba9876543210", None));
        let answers_204 = github("0123456789abcdef", Some(("status", 204)));
        for (id, description) in [("w1", &one), ("w2", &two), ("w3", &one), ("w4", &answers_204)] {
            table.upsert(&document(id), &owner, nodes(&["a", "b"], description));
        }
        let address = table.addresses.get(&(owner.clone(), webhook("a"))).unwrap();
        let [w1, w2, w3, w4] = verifications(address)[..] else { panic!("four workflows") };
        assert!(Arc::ptr_eq(w1, w3) && !Arc::ptr_eq(w1, w2));
        // The same deliveries, answered differently.
        assert_ne!(w1.identity(), w4.identity());
        assert_eq!((w1.status().code(), w4.status().code()), (200, 204));
        // Twice each in w1 and w3.
        assert_eq!(Arc::strong_count(w1), 4);
        // Secrets that nothing refers to are gone, and in time the places where they were.
        let gone = Arc::downgrade(w2);
        table.remove(&document("w2"));
        assert!(gone.upgrade().is_none());
        for round in 0..1000 {
            let description = github(&format!("secret number {round:04}"), None);
            table.upsert(&document("w1"), &owner, nodes(&["a"], &description));
        }
        assert!(table.verifications.known.len() < 200, "{}", table.verifications.known.len());
    }

    /// A reader that holds an address is not disturbed by changes.
    #[test]
    fn an_address_that_was_looked_up_does_not_change() {
        let index = AddressIndex::default();
        let freshness = Freshness::new(Duration::from_secs(30));
        freshness.mark_current(Instant::now());
        let owner = organization("o");
        let upsert = |secret: &str| {
            let nodes = nodes(&["a"], &github(secret, None));
            index.table().upsert(&document("w1"), &owner, nodes);
        };
        let look_up = || index.look_up(&owner, &webhook("a"), &freshness).unwrap().unwrap();
        upsert("0123456789abcdef");
        let before = look_up();
        let identity = verifications(&before)[0].identity();
        let refusal = LastRefusal { at: SystemTime::UNIX_EPOCH, refusal: refusal() };
        before.last_refusals.set(identity, refusal.clone());
        upsert("fedcba9876543210");
        let after = look_up();
        assert_eq!(verifications(&before)[0].identity(), identity);
        assert_ne!(verifications(&after)[0].identity(), identity);
        assert_eq!(after.last_refusals.get(identity), Some(refusal));
        index.table().remove(&document("w1"));
        assert!(index.look_up(&owner, &webhook("a"), &freshness).unwrap().is_none());
        assert_eq!(before.triggers.len(), 1);
    }

    fn refusal() -> Refusal {
        Refusal { kind: RefusalKind::WrongSignature, part: None, off_by: None }
    }

    #[test]
    fn the_last_refusals_of_an_address_are_bounded() {
        let address = Address::default();
        let identity = |number: usize| {
            let description = github(&format!("secret number {number:04}"), None);
            Verification::from_document(&description).unwrap().identity()
        };
        let at = |number: usize| SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
        for number in 0..20 {
            let last = LastRefusal { at: at(number), refusal: refusal() };
            address.last_refusals.set(identity(number), last);
        }
        assert!(address.last_refusals.get(identity(3)).is_none());
        assert_eq!(address.last_refusals.get(identity(4)).unwrap().at, at(4));
        let again = LastRefusal { at: at(99), refusal: refusal() };
        address.last_refusals.set(identity(4), again);
        assert_eq!(address.last_refusals.get(identity(4)).unwrap().at, at(99));
        assert!(address.last_refusals.get(identity(5)).is_some());
    }
}
