//! The index held against a model of it: whatever happens to documents, every webhook starts what the model says.
//!
//! In tests hashes are few (see [`crate::mirror::sharded`]), so that keys and documents that have the same are
//! the rule here.

use super::{Matches, TriggerIndex, TriggersSettings, WorkflowsView};
use crate::ids::{OrganizationId, WebhookId};
use crate::metrics::Metrics;
use crate::mirror::View;
use crate::mirror::document::DocumentKey;
use crate::mirror::steps::{Step, gauge, steps};
use crate::settings::Settings;
use bson::oid::ObjectId;
use bson::{RawBson, RawDocumentBuf, rawdoc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tokio::time::Instant;

/// One that is also the digits of an ObjectId, and one that begins as another does.
const ORGANIZATIONS: [&str; 4] = ["org", "org_2", "64d2f9c5e8a1d4e001a0b1c3", "ö"];
const WEBHOOKS: [&str; 6] = ["w", "_2w", "wh_1", "wh_2", "64d2f9c5e8a1d4e001a0b1c3", "ü\"\n"];
const DOCUMENTS: u8 = 12;

/// What a document says.
#[derive(Debug, Clone, PartialEq)]
struct Workflow {
    organization: &'static str,
    is_active: bool,
    /// Of each node.
    webhooks: Vec<&'static str>,
}

fn workflow() -> impl Strategy<Value = Workflow> {
    let webhooks = vec(select(&WEBHOOKS[..]), 0..6);
    let fields = (select(&ORGANIZATIONS[..]), prop::bool::weighted(0.9), webhooks);
    fields.prop_map(|(organization, is_active, webhooks)| Workflow {
        organization,
        is_active,
        webhooks,
    })
}

proptest! {
    #[test]
    fn every_webhook_starts_what_documents_say(steps in steps(DOCUMENTS, workflow())) {
        let mut index = Index::new();
        let mut model = Model::default();
        for step in steps {
            match &step {
                Step::Change(changes) => index.change(changes),
                Step::Reload(documents) => index.reload(documents),
            }
            step.apply_to(&mut model.0);
            for is_active in [true, false] {
                prop_assert_eq!(index.all(is_active), model.all(is_active));
            }
            prop_assert_eq!(index.counts(), model.counts());
        }
    }
}

/// What every webhook of every organization starts, or would if it were switched on: workflows and their nodes.
type Started = BTreeMap<(&'static str, &'static str), Vec<(String, String)>>;

#[derive(Default)]
struct Model(BTreeMap<u8, Workflow>);

impl Model {
    fn all(&self, is_active: bool) -> Started {
        keys()
            .map(|(organization, webhook)| {
                let found = self.0.iter().filter(|(_, workflow)| {
                    workflow.is_active == is_active && workflow.organization == organization
                });
                let found = found.filter_map(|(document, workflow)| {
                    let webhooks = workflow.webhooks.iter().enumerate();
                    let nodes: Vec<String> = webhooks
                        .filter(|(_, each)| **each == webhook)
                        .map(|(number, _)| format!("n{number}"))
                        .collect();
                    let json = serde_json::to_string(&nodes).unwrap();
                    (!nodes.is_empty()).then(|| (id_text(*document), json))
                });
                ((organization, webhook), found.collect())
            })
            .collect()
    }

    /// Triggers and workflows that have any.
    fn counts(&self) -> (usize, usize) {
        let webhooks_of = |workflow: &Workflow| {
            let webhooks: BTreeSet<&str> = workflow.webhooks.iter().copied().collect();
            if workflow.is_active { webhooks.len() } else { 0 }
        };
        let counts = self.0.values().map(webhooks_of).filter(|count| *count > 0);
        (counts.clone().sum(), counts.count())
    }
}

fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    ORGANIZATIONS.into_iter().flat_map(|organization| WEBHOOKS.map(|each| (organization, each)))
}

struct Index {
    readers: Arc<TriggerIndex>,
    view: WorkflowsView,
    metrics: Arc<Metrics>,
}

impl Index {
    fn new() -> Self {
        let readers = Arc::new(TriggerIndex::new(std::time::Duration::from_secs(30)));
        readers.freshness().set(Instant::now());
        let settings = TriggersSettings::read(&mut Settings::default().section("triggers"));
        let metrics = Metrics::new("", "").unwrap();
        let view = WorkflowsView::new(&settings, &readers, Arc::clone(&metrics));
        Self { readers, view, metrics }
    }

    fn change(&mut self, changes: &BTreeMap<u8, Option<Workflow>>) {
        let records = changes.iter().map(|(document, workflow)| match workflow {
            Some(workflow) => {
                let document = written(*document, workflow);
                let record = self.view.read(&document).unwrap();
                (DocumentKey::of(&document).unwrap(), Some(record))
            }
            None => (DocumentKey::of(&rawdoc! { "_id": id(*document) }).unwrap(), None),
        });
        let records = records.collect();
        self.view.apply(records);
    }

    fn reload(&mut self, documents: &[(u8, Workflow)]) {
        let mut load = self.view.begin_load();
        for (document, workflow) in documents {
            let document = written(*document, workflow);
            let record = self.view.read(&document).unwrap();
            self.view.load(&mut load, &DocumentKey::of(&document).unwrap(), record);
        }
        self.view.finish_load(load);
    }

    fn all(&self, is_active: bool) -> Started {
        keys()
            .map(|(organization, webhook)| {
                let read = if is_active { started } else { not_started };
                let started = read(&self.readers, organization, webhook);
                ((organization, webhook), started)
            })
            .collect()
    }

    /// As the metrics say.
    fn counts(&self) -> (usize, usize) {
        let names = ["hookgate_index_triggers", "hookgate_index_workflows"];
        let [triggers, workflows] = names.map(|name| gauge(&self.metrics, name));
        (triggers, workflows)
    }
}

fn started(index: &TriggerIndex, organization: &str, webhook: &str) -> Vec<(String, String)> {
    let (organization, webhook) = names(organization, webhook);
    index.matching(&organization, &webhook, texts).unwrap_or_default()
}

fn not_started(index: &TriggerIndex, organization: &str, webhook: &str) -> Vec<(String, String)> {
    let (organization, webhook) = names(organization, webhook);
    index.inactive(&organization, &webhook, texts)
}

fn names(organization: &str, webhook: &str) -> (OrganizationId, WebhookId) {
    (OrganizationId::new(organization).unwrap(), WebhookId::new(webhook).unwrap())
}

fn texts(matches: Matches<'_>) -> Vec<(String, String)> {
    matches.map(|each| (each.workflow.as_str().to_owned(), each.node_ids.to_owned())).collect()
}

/// Half of the documents have text for an `_id`, which comes before an ObjectId.
fn id(document: u8) -> RawBson {
    if document < DOCUMENTS / 2 {
        format!("wf_{document:02}").into()
    } else {
        ObjectId::from_bytes([document; 12]).into()
    }
}

fn id_text(document: u8) -> String {
    match id(document) {
        RawBson::ObjectId(id) => id.to_hex(),
        id => id.as_str().unwrap().to_owned(),
    }
}

fn written(document: u8, workflow: &Workflow) -> RawDocumentBuf {
    let mut nodes = bson::RawArrayBuf::new();
    for (number, webhook) in workflow.webhooks.iter().enumerate() {
        nodes.push(rawdoc! {
            "id": format!("n{number}"), "type": "WebhookTrigger", "data": { "webhookId": *webhook },
        });
    }
    // An organization that could be an ObjectId is one half of the time.
    let organization = match ObjectId::parse_str(workflow.organization) {
        Ok(id) if document.is_multiple_of(2) => RawBson::from(id),
        _ => workflow.organization.into(),
    };
    rawdoc! {
        "_id": id(document), "organizationId": organization, "enabled": workflow.is_active, "nodes": nodes,
    }
}

#[test]
fn who_reads_while_all_is_loaded_anew_never_misses_what_is_always_there() {
    let mut index = Index::new();
    // Documents 0 and 6 are always there, at their own webhook of their own organization; what goes on around them
    // is under the same hashes, often in the same group.
    let always = |document: u8| {
        let organization = ORGANIZATIONS[usize::from(document > 0)];
        Workflow { organization, is_active: true, webhooks: vec![WEBHOOKS[2]] }
    };
    let steady = [(0, always(0)), (6, always(6))];
    index.reload(&steady);
    let readers = Arc::clone(&index.readers);
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut seen = 0;
            let expected = [0, 6].map(|document| (id_text(document), r#"["n0"]"#.to_owned()));
            while !is_over.load(Ordering::Relaxed) {
                for (of, organization) in [(0, ORGANIZATIONS[0]), (1, ORGANIZATIONS[1])] {
                    let found = started(&readers, organization, WEBHOOKS[2]);
                    assert!(found.contains(&expected[of]), "not there in {found:?}");
                    assert!(!found.contains(&expected[1 - of]), "foreign one in {found:?}");
                    seen += 1;
                }
            }
            seen
        }
    });
    for round in 0..200_usize {
        let around = |document: u8| Workflow {
            organization: ORGANIZATIONS[(round + usize::from(document)) % ORGANIZATIONS.len()],
            is_active: !(round + usize::from(document)).is_multiple_of(5),
            webhooks: (0..3).map(|node| WEBHOOKS[(round + node) % WEBHOOKS.len()]).collect(),
        };
        let others = [1, 2, 3, 7, 8, 9];
        let changes = others.map(|document| (document, (round % 3 > 0).then(|| around(document))));
        index.change(&changes.into());
        index.change(&steady.clone().map(|(document, same)| (document, Some(same))).into());
        let mut all: Vec<_> = others.map(|document| (document, around(document))).into();
        all.extend(steady.clone());
        // Twice, and at first as it was.
        all.push((1, always(0)));
        index.reload(&all);
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}
