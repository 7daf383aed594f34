//! The index, and the map that it is compared with.

use crate::meter::own_time_of;
use crate::triggers::{NODE_IDS, organization, record, webhook, workflow};
use hashbrown::{DefaultHashBuilder, Equivalent, HashMap};
use hookgate::ids::{OrganizationId, WebhookId, WorkflowId};
use hookgate::metrics::Metrics;
use hookgate::mirror::CollectionIndexes;
use hookgate::settings::SettingsReader;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowCollection};
use std::hash::Hash;
use std::hint::black_box;
use std::time::Duration;

/// Records that are created before they are loaded, so that creating them is not measured.
const CHUNK: u64 = 10_000;

pub struct Index {
    pub readers: TriggerIndex,
    pub indexes: CollectionIndexes<WorkflowCollection>,
    pub triggers: u64,
}

impl Index {
    pub fn empty() -> Self {
        let settings = TriggersSettings::read(&mut SettingsReader::default().section("triggers"));
        let readers = TriggerIndex::new(&settings);
        readers.freshness().mark_current(tokio::time::Instant::now());
        let collection =
            WorkflowCollection::new(&settings, &readers, Metrics::new("", "").unwrap());
        Self { readers, indexes: CollectionIndexes::new(collection), triggers: 0 }
    }

    /// Replaces everything by workflows `0..triggers`; returns the CPU time without that of
    /// creating the records.
    pub fn load(&mut self, triggers: u64) -> Duration {
        let indexes = &mut self.indexes;
        let mut load = indexes.begin_load();
        let mut time = Duration::ZERO;
        for chunk in 0..triggers.div_ceil(CHUNK) {
            let of_chunk = chunk * CHUNK..triggers.min((chunk + 1) * CHUNK);
            let records: Vec<_> = of_chunk.map(|n| record(indexes.collection(), n, 0)).collect();
            time += own_time_of(|| {
                for (document, record) in records {
                    load.upsert(&document, record);
                }
            });
        }
        self.triggers = triggers;
        time + own_time_of(|| indexes.finish_load(load))
    }
}

/// Moves workflows to other webhooks in one batch; returns the CPU time without that of creating
/// the records.
pub fn change(
    indexes: &mut CollectionIndexes<WorkflowCollection>,
    workflows: impl Iterator<Item = u64>,
    version: u64,
) -> Duration {
    let records = workflows.map(|n| record(indexes.collection(), n, version));
    let records = records.map(|(document, record)| (document, Some(record))).collect();
    own_time_of(|| indexes.apply(records))
}

/// Reads what a request needs; returns the number of workflows.
pub fn look_up(index: &TriggerIndex, organization: &OrganizationId, webhook: &WebhookId) -> usize {
    let read = index.matching(organization, webhook, |matches| {
        matches.map(|each| read_result(each.workflow.as_str(), each.node_ids)).count()
    });
    read.unwrap_or_default()
}

type Names = (OrganizationId, WebhookId);
type Workflows = Box<[(WorkflowId, Box<str>)]>;

/// A map of the same keys that never changes.
pub struct Plain(HashMap<Names, Workflows, DefaultHashBuilder>);

#[derive(Hash)]
struct Borrowed<'a>(&'a OrganizationId, &'a WebhookId);

impl Equivalent<Names> for Borrowed<'_> {
    fn equivalent(&self, (organization, webhook): &Names) -> bool {
        self.1 == webhook && self.0 == organization
    }
}

impl Plain {
    pub fn new(triggers: u64) -> Self {
        let entry = |n| {
            let value: Workflows = Box::new([(workflow(n), NODE_IDS.into())]);
            ((organization(n), webhook(n, 0)), value)
        };
        Self((0..triggers).map(entry).collect())
    }

    pub fn look_up(&self, organization: &OrganizationId, webhook: &WebhookId) -> usize {
        let found = self.0.get(&Borrowed(organization, webhook));
        let found = found.map(AsRef::as_ref).unwrap_or_default();
        found.iter().map(|(workflow, nodes)| read_result(workflow.as_str(), nodes)).count()
    }
}

/// Reads the strings of a result.
fn read_result(workflow: &str, nodes: &str) {
    let last = |text: &str| text.as_bytes().last().copied();
    black_box((last(workflow), last(nodes)));
}
