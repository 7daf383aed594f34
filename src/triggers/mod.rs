//! The workflows that a webhook starts.

mod address;
mod address_nodes;
mod addresses;
mod document;
mod fields;
mod kept_fields;
mod posting;
mod settings;
mod shape;
mod skipped;

use crate::ids::{OrganizationId, WebhookId};
use crate::metrics::{Collection, Metrics};
pub use crate::mirror::StaleIndex;
use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::Postings;
use crate::mirror::index::sharded::{ShardLayout, ShardedIndex};
use crate::mirror::index::writer::{Entry, Writer};
use crate::mirror::path_survey::PathSurvey;
use crate::mirror::skipped_parts::SkippedParts;
use crate::mirror::snapshot::SavedIndex;
use crate::mirror::{Freshness, MirroredCollection};
pub use crate::triggers::address::{
    Address, AddressNode, AddressTrigger, KeptFieldTexts, LastRefusal, LastRefusals,
    NodeVerification,
};
use crate::triggers::addresses::AddressIndex;
pub use crate::triggers::addresses::AddressTable;
pub use crate::triggers::document::WorkflowRecord;
use crate::triggers::fields::Fields;
pub use crate::triggers::kept_fields::{KeptField, KeptFields};
use crate::triggers::posting::PostingLayout;
pub use crate::triggers::posting::{KeptTexts, Trigger};
pub use crate::triggers::settings::{DocumentSource, TriggersSettings};
use crate::triggers::skipped::SkippedIndex;
pub use crate::triggers::skipped::{SkippedNode, SkippedTable};
use bson::{Document, RawDocument};
use std::mem::take;
use std::sync::Arc;

/// Iterates over the workflows that a webhook starts, in the order of their ids.
#[derive(Debug, Clone)]
pub struct Matches<'a> {
    postings: Option<Postings<'a>>,
    layout: &'a PostingLayout,
}

impl<'a> Iterator for Matches<'a> {
    type Item = Trigger<'a>;

    #[inline]
    fn next(&mut self) -> Option<Trigger<'a>> {
        let posting = self.postings.as_mut()?.next()?;
        Some(self.layout.read(posting).expect("a posting is readable"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.postings.as_ref().map_or(0, ExactSizeIterator::len);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Matches<'_> {}

/// The triggers of all workflows, for reading.
#[derive(Debug)]
pub struct TriggerIndex {
    triggers: Arc<ShardedIndex>,
    /// The triggers of workflows that are switched off. A preview reports them.
    inactive: Arc<ShardedIndex>,
    skipped: Arc<SkippedIndex>,
    /// `None` if endpoints are not enabled.
    addresses: Option<Arc<AddressIndex>>,
    posting_layout: Arc<PostingLayout>,
    freshness: Arc<Freshness>,
}

impl TriggerIndex {
    pub fn new(settings: &TriggersSettings) -> Self {
        Self::with_layout(settings, ShardLayout::default())
    }

    fn with_layout(settings: &TriggersSettings, layout: ShardLayout) -> Self {
        Self {
            triggers: Arc::new(ShardedIndex::new(layout)),
            inactive: Arc::new(ShardedIndex::new(layout)),
            skipped: Arc::default(),
            addresses: settings.fields.verification.as_ref().map(|_| Arc::default()),
            posting_layout: Arc::new(settings.posting_layout()),
            freshness: Freshness::new(settings.max_staleness),
        }
    }

    /// Calls `read` with the workflows of the organization that this webhook starts.
    pub fn matching<R>(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        read: impl FnOnce(Matches<'_>) -> R,
    ) -> Result<R, StaleIndex> {
        let organization = organization.canonical();
        let key = key(&organization, webhook);
        self.triggers.lookup(key, &self.freshness, |postings| read(self.matches(postings)))
    }

    /// Calls `read` with the workflows that this webhook would start if they were switched on.
    pub fn inactive<R>(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        read: impl FnOnce(Matches<'_>) -> R,
    ) -> R {
        let organization = organization.canonical();
        self.inactive.read(key(&organization, webhook), |postings| read(self.matches(postings)))
    }

    #[inline]
    fn matches<'a>(&'a self, postings: Option<Postings<'a>>) -> Matches<'a> {
        Matches { postings, layout: &self.posting_layout }
    }

    /// At most `most` trigger nodes that may be the reason why a webhook starts nothing, each with
    /// the id of its workflow.
    pub fn skipped(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        most: usize,
    ) -> Vec<(String, SkippedNode)> {
        self.skipped.of_webhook(organization, webhook, most)
    }

    /// The trigger nodes that a delivery to this address can start. `None` if there are none, or if
    /// none of them has a verification. Always `None` if endpoints are not enabled.
    ///
    /// Addresses are not in a snapshot, so [`StaleIndex`] is returned until the first load.
    pub fn address(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
    ) -> Result<Option<Arc<Address>>, StaleIndex> {
        let Some(addresses) = &self.addresses else { return Ok(None) };
        addresses.look_up(organization, webhook, &self.freshness)
    }

    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// The indexes of a snapshot.
    pub fn saved_indexes(&self) -> [SavedIndex; 2] {
        [(TRIGGERS, &self.triggers), (INACTIVE, &self.inactive)].map(|(name, map)| {
            let layout = Arc::clone(&self.posting_layout);
            SavedIndex::new(name, map, move |posting| layout.is_readable(posting))
        })
    }
}

// The names of the indexes in a snapshot.
const TRIGGERS: &str = "triggers";
const INACTIVE: &str = "inactive";

#[inline]
fn key<'a>(organization: &'a str, webhook: &'a WebhookId) -> IndexKey<'a> {
    IndexKey::new(organization).with_second(webhook.as_str())
}

/// What a load of workflows gathers beside the entries of the indexes.
#[derive(Debug, Default)]
pub struct WorkflowExtras {
    skipped: SkippedTable,
    addresses: AddressTable,
}

/// Files the triggers of workflows: those that are switched on, and those that are switched off.
#[derive(Debug)]
pub struct WorkflowCollection {
    fields: Fields,
    filter: Document,
    posting_layout: Arc<PostingLayout>,
    triggers: Arc<ShardedIndex>,
    inactive: Arc<ShardedIndex>,
    skipped: Arc<SkippedIndex>,
    addresses: Option<Arc<AddressIndex>>,
    metrics: Arc<Metrics>,
}

impl WorkflowCollection {
    /// `index` must have been made with the same settings.
    pub fn new(settings: &TriggersSettings, index: &TriggerIndex, metrics: Arc<Metrics>) -> Self {
        Self {
            fields: settings.fields.clone(),
            filter: settings.filter.query().clone(),
            posting_layout: Arc::clone(&index.posting_layout),
            triggers: Arc::clone(&index.triggers),
            inactive: Arc::clone(&index.inactive),
            skipped: Arc::clone(&index.skipped),
            addresses: index.addresses.clone(),
            metrics,
        }
    }
}

impl MirroredCollection for WorkflowCollection {
    const COLLECTION: Collection = Collection::Workflows;
    const INDEX_NAMES: [&'static str; 2] = [TRIGGERS, INACTIVE];

    type Record = WorkflowRecord;
    type Extras = WorkflowExtras;

    fn indexes(&self) -> [Arc<ShardedIndex>; 2] {
        [&self.triggers, &self.inactive].map(Arc::clone)
    }

    fn filter(&self) -> Document {
        self.filter.clone()
    }

    fn projection(&self) -> Document {
        self.fields.projection()
    }

    fn read(&self, document: &RawDocument) -> Result<WorkflowRecord, Malformed> {
        WorkflowRecord::read(document, &self.fields, &self.posting_layout)
    }

    fn skipped(record: &WorkflowRecord) -> SkippedParts {
        record.skipped_nodes.parts.clone()
    }

    fn entries(_: &DocumentKey, record: WorkflowRecord) -> [Vec<Entry>; 2] {
        let WorkflowRecord { organization, is_active, triggers, .. } = record;
        let organization = organization.canonical();
        let entry = |(webhook, data): (WebhookId, Vec<u8>)| Entry {
            key: key(&organization, &webhook).to_bytes(),
            data,
        };
        let entries = triggers.into_iter().map(entry).collect();
        if is_active { [entries, Vec::new()] } else { [Vec::new(), entries] }
    }

    fn collect_extras(
        extras: &mut WorkflowExtras,
        document: &DocumentKey,
        record: &mut WorkflowRecord,
    ) {
        let WorkflowRecord { organization, skipped_nodes, addresses, .. } = record;
        extras.skipped.upsert(document, organization, take(skipped_nodes));
        extras.addresses.upsert(document, organization, take(addresses));
    }

    fn on_load(&mut self, extras: WorkflowExtras) {
        self.skipped.replace(extras.skipped);
        if let Some(addresses) = &self.addresses {
            addresses.replace(extras.addresses);
        }
    }

    fn on_change(&mut self, document: &DocumentKey, record: Option<&mut WorkflowRecord>) {
        let mut skipped = self.skipped.table();
        let addresses = self.addresses.as_ref().map(|addresses| addresses.table());
        if let Some(record) = record {
            let WorkflowRecord { organization, skipped_nodes, addresses: nodes, .. } = record;
            skipped.upsert(document, organization, take(skipped_nodes));
            if let Some(mut addresses) = addresses {
                addresses.upsert(document, organization, take(nodes));
            }
        } else {
            skipped.remove(document);
            if let Some(mut addresses) = addresses {
                addresses.remove(document);
            }
        }
    }

    fn shape(&self, documents: &[&RawDocument]) -> PathSurvey {
        shape::shape(documents, &self.fields, &self.posting_layout)
    }

    fn on_publish(&mut self, [triggers, _]: &[Writer; 2]) {
        self.metrics.index_triggers.set(triggers.postings() as f64);
        self.metrics.index_workflows.set(triggers.documents() as f64);
    }
}

#[cfg(test)]
mod model;
