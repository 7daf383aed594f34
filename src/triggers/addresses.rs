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
            self.remove_from((organization.clone(), webhook), document);
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
                self.remove_from((keys.organization.clone(), webhook), document);
            }
        }
    }

    fn remove_from(&mut self, key: AddressKey, document: &DocumentKey) {
        let Some(address) = self.addresses.get_mut(&key) else { return };
        let address = Arc::make_mut(address);
        address.remove(document);
        if address.triggers.is_empty() {
            self.addresses.remove(&key);
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
        match self.known.get(&identity).and_then(Weak::upgrade) {
            Some(known) if known.is_interchangeable(verification) => *verification = known,
            // Another answer to the same deliveries: not shared.
            Some(_) => {}
            None => {
                self.clean();
                self.known.insert(identity, Arc::downgrade(verification));
            }
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
