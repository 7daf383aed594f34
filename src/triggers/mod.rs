//! Which workflows a webhook starts.

mod document;

use crate::ids::{OrganizationId, WebhookId, WorkflowId};
use crate::metrics::{Collection, Metrics};
use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::{Freshness, View};
use crate::settings::Section;
use arc_swap::ArcSwap;
use bson::{Document, RawDocument};
pub use document::WorkflowRecord;
use hashbrown::{Equivalent, HashMap as BorrowedKeyMap};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The section `[triggers]`.
#[derive(Debug, Clone)]
pub struct TriggersSettings {
    pub source: Source,
    pub file: PathBuf,
    pub collection: String,
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
            fields: document::Fields {
                nodes: section.name("nodes_field", "nodes"),
                organization: section.name("organization_field", "organizationId"),
                active: section.value("active_field", "enabled".to_owned()),
            },
        }
    }
}

/// A workflow that a webhook starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub workflow: WorkflowId,
    /// The ids of the workflow's matching nodes, as a JSON array.
    pub node_ids: Box<str>,
}

/// The triggers are not loaded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the triggers are not loaded yet")]
pub struct NotLoaded;

type TriggerMap = BorrowedKeyMap<TriggerKey, Arc<[Trigger]>>;

/// All triggers, for reading.
#[derive(Debug, Default)]
pub struct TriggerIndex {
    triggers: ArcSwap<TriggerMap>,
    freshness: Arc<Freshness>,
}

impl TriggerIndex {
    /// The workflows of the organization that this webhook starts, in the order of their ids.
    pub fn matching(
        &self,
        organization: &OrganizationId,
        webhook: &WebhookId,
    ) -> Result<Arc<[Trigger]>, NotLoaded> {
        if !self.freshness.is_loaded() {
            return Err(NotLoaded);
        }
        let triggers = self.triggers.load();
        let found = triggers.get(&BorrowedKey { organization, webhook });
        Ok(found.map(Arc::clone).unwrap_or_default())
    }

    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }
}

/// Makes the index out of the documents of workflows.
#[derive(Debug)]
pub struct WorkflowsView {
    fields: document::Fields,
    index: Arc<TriggerIndex>,
    metrics: Arc<Metrics>,
}

impl WorkflowsView {
    pub fn new(
        settings: &TriggersSettings,
        index: Arc<TriggerIndex>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { fields: settings.fields.clone(), index, metrics }
    }
}

impl View for WorkflowsView {
    const COLLECTION: Collection = Collection::Workflows;

    type Record = WorkflowRecord;

    fn projection(&self) -> Document {
        self.fields.projection()
    }

    fn read(&self, document: &RawDocument) -> Result<WorkflowRecord, Malformed> {
        WorkflowRecord::read(document, &self.fields)
    }

    fn publish(&self, records: &HashMap<DocumentKey, WorkflowRecord>) {
        let mut lists: BorrowedKeyMap<TriggerKey, Vec<Trigger>> = BorrowedKeyMap::new();
        for record in records.values() {
            for (webhook, node_ids) in &record.triggers {
                let key = TriggerKey {
                    organization: record.organization.clone(),
                    webhook: webhook.clone(),
                };
                let trigger =
                    Trigger { workflow: record.workflow.clone(), node_ids: node_ids.clone() };
                lists.entry(key).or_default().push(trigger);
            }
        }
        let triggers = lists.values().map(Vec::len).sum::<usize>();
        let workflows = records.values().filter(|record| !record.triggers.is_empty()).count();
        let sorted = lists.into_iter().map(|(key, mut list)| {
            list.sort_unstable_by(|one, other| one.workflow.cmp(&other.workflow));
            (key, Arc::from(list))
        });
        self.index.triggers.store(Arc::new(sorted.collect()));
        self.metrics.index_triggers.set(triggers as f64);
        self.metrics.index_workflows.set(workflows as f64);
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TriggerKey {
    organization: OrganizationId,
    webhook: WebhookId,
}

/// A look-up needs no key of its own. The fields stand in the order of [`TriggerKey`]'s, so that
/// both hash alike.
#[derive(Hash)]
struct BorrowedKey<'a> {
    organization: &'a OrganizationId,
    webhook: &'a WebhookId,
}

impl Equivalent<TriggerKey> for BorrowedKey<'_> {
    fn equivalent(&self, key: &TriggerKey) -> bool {
        *self.organization == key.organization && *self.webhook == key.webhook
    }
}
