//! The workflows that a webhook starts.

mod document;
mod skipped;

use crate::ids::{OrganizationId, WebhookId};
use crate::metrics::{Collection, Metrics};
pub use crate::mirror::StaleIndex;
use crate::mirror::document::{DocumentKey, IdString, Malformed};
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::{Posting, Postings};
use crate::mirror::index::sharded::{ShardLayout, ShardedIndex};
use crate::mirror::index::writer::{Entry, Writer};
use crate::mirror::skipped_parts::SkippedParts;
use crate::mirror::snapshot::SavedIndex;
use crate::mirror::{Freshness, MirroredCollection};
use crate::settings::Section;
pub use crate::triggers::document::WorkflowRecord;
use crate::triggers::skipped::SkippedIndex;
pub use crate::triggers::skipped::{SkippedNode, SkippedTable};
use bson::{Document, RawDocument};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The section `[triggers]`.
#[derive(Debug, Clone)]
pub struct TriggersSettings {
    pub source: DocumentSource,
    pub file: PathBuf,
    pub collection: String,
    /// The age of workflows and users up to which a miss is trusted, 1 s to a day.
    pub max_staleness: Duration,
    /// The file of the snapshot; `None` if none is kept.
    pub snapshot_file: Option<PathBuf>,
    fields: document::Fields,
}

/// The source of workflows and users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentSource {
    File,
    MongoDb,
}

impl TriggersSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            source: section.value("source", DocumentSource::MongoDb),
            file: section.value("file", PathBuf::from("config/workflows.json")),
            collection: section.name("collection", "workflows"),
            max_staleness: section.duration(
                "max_staleness",
                "30s",
                Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60),
            ),
            snapshot_file: Some(section.value("snapshot_file", PathBuf::new()))
                .filter(|file| !file.as_os_str().is_empty()),
            fields: document::Fields {
                nodes: section.name("nodes_field", "nodes"),
                organization: section.name("organization_field", "organizationId"),
                active: section.value("active_field", "enabled".to_owned()),
            },
        }
    }
}

impl TriggersSettings {
    /// The dotted path of the array of nodes.
    pub fn nodes_field(&self) -> &str {
        &self.fields.nodes
    }

    /// The settings that determine which records the documents become. They identify a snapshot.
    pub fn source_names(&self) -> [&str; 4] {
        let document::Fields { nodes, organization, active } = &self.fields;
        [&self.collection, nodes, organization, active]
    }
}

/// Iterates over the workflows that a webhook starts, in the order of their ids.
#[derive(Debug, Clone)]
pub struct Matches<'a>(Option<Postings<'a>>);

/// A workflow that a webhook starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger<'a> {
    pub workflow: IdString<'a>,
    /// The ids of the workflow's matching nodes, as a JSON array.
    pub node_ids: &'a str,
}

impl<'a> Trigger<'a> {
    #[inline]
    fn read(Posting { document, data }: Posting<'a>) -> Option<Self> {
        Some(Self {
            workflow: IdString::from_key(document)?,
            node_ids: std::str::from_utf8(data).ok()?,
        })
    }
}

impl<'a> Iterator for Matches<'a> {
    type Item = Trigger<'a>;

    #[inline]
    fn next(&mut self) -> Option<Trigger<'a>> {
        let posting = self.0.as_mut()?.next()?;
        Some(Trigger::read(posting).expect("a posting is readable"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.as_ref().map_or(0, ExactSizeIterator::len);
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
    freshness: Arc<Freshness>,
}

impl TriggerIndex {
    pub fn new(max_staleness: Duration) -> Self {
        Self::with_layout(max_staleness, ShardLayout::default())
    }

    fn with_layout(max_staleness: Duration, layout: ShardLayout) -> Self {
        Self {
            triggers: Arc::new(ShardedIndex::new(layout)),
            inactive: Arc::new(ShardedIndex::new(layout)),
            skipped: Arc::default(),
            freshness: Freshness::new(max_staleness),
        }
    }

    /// Calls `read` with the workflows of the organization that this webhook starts.
    pub fn matching<R>(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        read: impl FnOnce(Matches<'_>) -> R,
    ) -> Result<R, StaleIndex> {
        let key = key(organization, webhook);
        self.triggers.lookup(key, &self.freshness, |postings| read(Matches(postings)))
    }

    /// Calls `read` with the workflows that this webhook would start if they were switched on.
    pub fn inactive<R>(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        read: impl FnOnce(Matches<'_>) -> R,
    ) -> R {
        self.inactive.read(key(organization, webhook), |postings| read(Matches(postings)))
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

    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// The indexes of a snapshot.
    pub fn saved_indexes(&self) -> [SavedIndex; 2] {
        [(TRIGGERS, &self.triggers), (INACTIVE, &self.inactive)].map(|(name, map)| SavedIndex {
            name,
            map: Arc::clone(map),
            is_readable: |posting| Trigger::read(posting).is_some(),
        })
    }
}

// The names of the indexes in a snapshot.
const TRIGGERS: &str = "triggers";
const INACTIVE: &str = "inactive";

#[inline]
fn key<'a>(organization: &'a OrganizationId, webhook: &'a WebhookId) -> IndexKey<'a> {
    IndexKey::new(organization.as_str()).with_second(webhook.as_str())
}

/// Files the triggers of workflows: those that are switched on, and those that are switched off.
#[derive(Debug)]
pub struct WorkflowCollection {
    fields: document::Fields,
    triggers: Arc<ShardedIndex>,
    inactive: Arc<ShardedIndex>,
    skipped: Arc<SkippedIndex>,
    metrics: Arc<Metrics>,
}

impl WorkflowCollection {
    pub fn new(settings: &TriggersSettings, index: &TriggerIndex, metrics: Arc<Metrics>) -> Self {
        Self {
            fields: settings.fields.clone(),
            triggers: Arc::clone(&index.triggers),
            inactive: Arc::clone(&index.inactive),
            skipped: Arc::clone(&index.skipped),
            metrics,
        }
    }
}

impl MirroredCollection for WorkflowCollection {
    const COLLECTION: Collection = Collection::Workflows;
    const INDEX_NAMES: [&'static str; 2] = [TRIGGERS, INACTIVE];

    type Record = WorkflowRecord;
    type Extras = SkippedTable;

    fn indexes(&self) -> [Arc<ShardedIndex>; 2] {
        [&self.triggers, &self.inactive].map(Arc::clone)
    }

    fn projection(&self) -> Document {
        self.fields.projection()
    }

    fn read(&self, document: &RawDocument) -> Result<WorkflowRecord, Malformed> {
        WorkflowRecord::read(document, &self.fields)
    }

    fn skipped(record: &WorkflowRecord) -> SkippedParts {
        record.skipped_nodes.parts.clone()
    }

    fn entries(_: &DocumentKey, record: WorkflowRecord) -> [Vec<Entry>; 2] {
        let WorkflowRecord { organization, is_active, triggers, .. } = record;
        let entry = |(webhook, node_ids): (WebhookId, Box<str>)| Entry {
            key: key(&organization, &webhook).to_bytes(),
            data: node_ids.into_string().into_bytes(),
        };
        let entries = triggers.into_iter().map(entry).collect();
        if is_active { [entries, Vec::new()] } else { [Vec::new(), entries] }
    }

    fn collect_extras(
        skipped: &mut SkippedTable,
        document: &DocumentKey,
        record: &mut WorkflowRecord,
    ) {
        skipped.upsert(document, &record.organization, std::mem::take(&mut record.skipped_nodes));
    }

    fn on_load(&mut self, skipped: SkippedTable) {
        self.skipped.replace(skipped);
    }

    fn on_change(&mut self, document: &DocumentKey, record: Option<&mut WorkflowRecord>) {
        match record {
            Some(record) => Self::collect_extras(&mut self.skipped.table(), document, record),
            None => self.skipped.table().remove(document),
        }
    }

    fn on_publish(&mut self, [triggers, _]: &[Writer; 2]) {
        self.metrics.index_triggers.set(triggers.postings() as f64);
        self.metrics.index_workflows.set(triggers.documents() as f64);
    }
}

#[cfg(test)]
mod model;
