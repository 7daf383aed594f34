//! Which workflows a webhook starts.

mod document;
#[cfg(test)]
mod model;
mod skipped;

use crate::ids::{OrganizationId, WebhookId};
use crate::metrics::{Collection, Metrics};
use crate::mirror::document::{DocumentKey, IdText, Malformed};
use crate::mirror::key::Key;
use crate::mirror::left_out::LeftOut;
use crate::mirror::load::Load;
use crate::mirror::shard::{Posting, Postings};
use crate::mirror::sharded::Sharded;
use crate::mirror::snapshot::{Snapshot, Table};
use crate::mirror::writer::{Changes, Entry, Writer};
use crate::mirror::{Freshness, NotKnown, View};
use crate::settings::Section;
use bson::{Document, RawDocument};
pub use document::WorkflowRecord;
pub use skipped::SkippedNode;
use skipped::{Skipped, SkippedTable};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The section `[triggers]`.
#[derive(Debug, Clone)]
pub struct TriggersSettings {
    pub source: Source,
    pub file: PathBuf,
    pub collection: String,
    /// How old workflows and users may be for a miss to be believed, 1 s to a day.
    pub max_staleness: Duration,
    /// Where a snapshot of the index is kept; `None`: nowhere.
    pub snapshot_file: Option<PathBuf>,
    fields: document::Fields,
}

/// Where workflows and users come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    File,
    MongoDb,
}

impl TriggersSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            source: section.value("source", Source::MongoDb),
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
    /// What decides on what is made of a document.
    pub fn source_names(&self) -> [&str; 4] {
        let document::Fields { nodes, organization, active } = &self.fields;
        [&self.collection, nodes, organization, active]
    }
}

/// The workflows that a webhook starts.
#[derive(Debug, Clone)]
pub struct Matches<'a>(Option<Postings<'a>>);

/// A workflow that a webhook starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger<'a> {
    pub workflow: IdText<'a>,
    /// The ids of the workflow's matching nodes, as a JSON array.
    pub node_ids: &'a str,
}

impl<'a> Trigger<'a> {
    #[inline]
    fn read(Posting { document, data }: Posting<'a>) -> Option<Self> {
        Some(Self { workflow: IdText::of(document)?, node_ids: std::str::from_utf8(data).ok()? })
    }
}

impl<'a> Iterator for Matches<'a> {
    type Item = Trigger<'a>;

    #[inline]
    fn next(&mut self) -> Option<Trigger<'a>> {
        let posting = self.0.as_mut()?.next()?;
        Some(Trigger::read(posting).expect("postings are as they were written"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.as_ref().map_or(0, ExactSizeIterator::len);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Matches<'_> {}

/// Nothing was found, and the triggers are not loaded yet or too old to say that there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the triggers are not known well enough")]
pub struct Unknown;

/// All triggers, for reading.
#[derive(Debug)]
pub struct TriggerIndex {
    triggers: Arc<Sharded>,
    /// Where workflows that are switched off have their triggers, for who asks why nothing has started.
    inactive: Arc<Sharded>,
    skipped: Arc<Skipped>,
    freshness: Arc<Freshness>,
}

impl TriggerIndex {
    pub fn new(max_staleness: Duration) -> Self {
        let freshness = Freshness::new(max_staleness);
        Self {
            triggers: Arc::default(),
            inactive: Arc::default(),
            skipped: Arc::default(),
            freshness,
        }
    }

    /// Reads the workflows of the organization that this webhook starts, in the order of their ids. They are there
    /// while they are read.
    pub fn matching<R>(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        read: impl FnOnce(Matches<'_>) -> R,
    ) -> Result<R, Unknown> {
        let key = key(organization, webhook);
        let found = self.triggers.look(key, &self.freshness, |postings| read(Matches(postings)));
        found.map_err(|NotKnown| Unknown)
    }

    /// Reads the workflows that would be started if they were switched on.
    pub fn inactive<R>(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
        read: impl FnOnce(Matches<'_>) -> R,
    ) -> R {
        self.inactive.read(key(organization, webhook), |postings| read(Matches(postings)))
    }

    /// The first trigger nodes that may be why a webhook starts nothing, each with the id of its workflow.
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

    /// What goes into a snapshot.
    pub fn tables(&self) -> [Table; 2] {
        [(TRIGGERS, &self.triggers), (INACTIVE, &self.inactive)].map(|(name, map)| Table {
            name,
            map: Arc::clone(map),
            is_readable: |posting| Trigger::read(posting).is_some(),
        })
    }
}

/// The names of the maps in a snapshot.
const TRIGGERS: &str = "triggers";
const INACTIVE: &str = "inactive";

#[inline]
fn key<'a>(organization: &'a OrganizationId, webhook: &'a WebhookId) -> Key<'a> {
    Key::of(organization.as_str()).and(webhook.as_str())
}

/// Makes the index out of the documents of workflows.
#[derive(Debug)]
pub struct WorkflowsView {
    fields: document::Fields,
    triggers: Writer,
    inactive: Writer,
    skipped: Arc<Skipped>,
    metrics: Arc<Metrics>,
}

/// All workflows in the making.
#[derive(Debug)]
pub struct WorkflowsLoad {
    triggers: Load,
    inactive: Load,
    skipped: SkippedTable,
}

impl WorkflowsView {
    pub fn new(settings: &TriggersSettings, index: &TriggerIndex, metrics: Arc<Metrics>) -> Self {
        let triggers = Writer::new(Arc::clone(&index.triggers));
        let inactive = Writer::new(Arc::clone(&index.inactive));
        let skipped = Arc::clone(&index.skipped);
        Self { fields: settings.fields.clone(), triggers, inactive, skipped, metrics }
    }

    fn show(&self) {
        self.metrics.index_triggers.set(self.triggers.postings() as f64);
        self.metrics.index_workflows.set(self.triggers.documents() as f64);
    }
}

impl View for WorkflowsView {
    const COLLECTION: Collection = Collection::Workflows;

    type Record = WorkflowRecord;
    type Load = WorkflowsLoad;

    fn projection(&self) -> Document {
        self.fields.projection()
    }

    fn read(&self, document: &RawDocument) -> Result<WorkflowRecord, Malformed> {
        WorkflowRecord::read(document, &self.fields)
    }

    fn left_out(record: &WorkflowRecord) -> LeftOut {
        record.skipped.left_out.clone()
    }

    fn begin_load(&self) -> WorkflowsLoad {
        let (triggers, inactive) = (self.triggers.begin_load(), self.inactive.begin_load());
        WorkflowsLoad { triggers, inactive, skipped: SkippedTable::default() }
    }

    fn load(&self, load: &mut WorkflowsLoad, document: &DocumentKey, mut record: WorkflowRecord) {
        let skipped = std::mem::take(&mut record.skipped);
        load.skipped.put(document, &record.organization, skipped);
        let (triggers, inactive) = record.into_entries();
        load.triggers.put(document.as_bytes(), &triggers);
        load.inactive.put(document.as_bytes(), &inactive);
    }

    fn finish_load(&mut self, load: WorkflowsLoad) {
        self.triggers.replace(load.triggers);
        self.inactive.replace(load.inactive);
        // The old table is dropped when nobody is kept from reading.
        let _old = std::mem::replace(&mut *self.skipped.table(), load.skipped);
        self.show();
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        let mut load = self.begin_load();
        for (name, table) in [(TRIGGERS, &mut load.triggers), (INACTIVE, &mut load.inactive)] {
            for (document, entries) in snapshot.documents(name) {
                table.put(document, &entries);
            }
        }
        self.finish_load(load);
    }

    fn apply(&mut self, records: Vec<(DocumentKey, Option<WorkflowRecord>)>) {
        let (mut triggers, mut inactive) = (Changes::default(), Changes::default());
        for (document, mut record) in records {
            match &mut record {
                Some(record) => {
                    let skipped = std::mem::take(&mut record.skipped);
                    self.skipped.table().put(&document, &record.organization, skipped);
                }
                None => self.skipped.table().remove(&document),
            }
            let (started, not_started) =
                record.map(WorkflowRecord::into_entries).unwrap_or_default();
            triggers.put(document.as_bytes(), started);
            inactive.put(document.as_bytes(), not_started);
        }
        self.triggers.apply(triggers);
        self.inactive.apply(inactive);
        self.show();
    }
}

impl WorkflowRecord {
    /// What is started, and what would be if it were switched on; of one of them there is nothing.
    fn into_entries(self) -> (Vec<Entry>, Vec<Entry>) {
        let Self { organization, is_active, triggers, .. } = self;
        let entry = |(webhook, node_ids): (WebhookId, Box<str>)| Entry {
            key: key(&organization, &webhook).to_bytes(),
            data: node_ids.into_string().into_bytes(),
        };
        let entries = triggers.into_iter().map(entry).collect();
        if is_active { (entries, Vec::new()) } else { (Vec::new(), entries) }
    }
}
