//! Compares the index with a model: after any history of documents, every webhook starts the
//! workflows that the model says.
//!
//! The index has few shards and hashes ([`ShardLayout::COLLIDING`]), so most keys and documents
//! collide.

use crate::endpoints::EndpointsSettings;
use crate::ids::{OrganizationId, WebhookId};
use crate::metrics::Metrics;
use crate::mirror::document::DocumentKey;
use crate::mirror::index::sharded::ShardLayout;
use crate::mirror::steps::{Step, gauge, steps};
use crate::mirror::{CollectionIndexes, MirroredCollection};
use crate::settings::SettingsReader;
use crate::triggers::{
    Address, Matches, NodeVerification, Trigger, TriggerIndex, TriggersSettings, WorkflowCollection,
};
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

/// One is the hex digits of an ObjectId, and one begins with another.
const ORGANIZATIONS: [&str; 4] = ["org", "org_2", "64d2f9c5e8a1d4e001a0b1c3", "ö"];
const WEBHOOKS: [&str; 6] = ["w", "_2w", "wh_1", "wh_2", "64d2f9c5e8a1d4e001a0b1c3", "ü\"\n"];
const DOCUMENTS: u8 = 12;

/// The content of a document.
#[derive(Debug, Clone, PartialEq)]
struct Workflow {
    organization: &'static str,
    is_active: bool,
    /// The webhook of each node.
    webhooks: Vec<&'static str>,
    /// The verification of each node, and further ones.
    verifications: Verifications,
}

/// The verification of a node: none, a description with this secret, a name, or a malformed one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verification {
    None,
    Secret(&'static str),
    Named(&'static str),
    Malformed,
}

type Verifications = [Verification; 6];

const VERIFICATIONS: [Verification; 6] = [
    Verification::None,
    Verification::Secret("0123456789abcdef"),
    Verification::Secret("fedcba9876543210"),
    Verification::Named("ci"),
    Verification::Named("unknown"),
    Verification::Malformed,
];

fn workflow() -> impl Strategy<Value = Workflow> {
    let webhooks = vec(select(&WEBHOOKS[..]), 0..6);
    let verification = prop_oneof![Just(Verification::None), select(&VERIFICATIONS[..])];
    let verifications = prop::array::uniform6(verification);
    let fields = (select(&ORGANIZATIONS[..]), prop::bool::weighted(0.9), webhooks, verifications);
    fields.prop_map(|(organization, is_active, webhooks, verifications)| Workflow {
        organization,
        is_active,
        webhooks,
        verifications,
    })
}

proptest! {
    #[test]
    fn every_webhook_starts_what_the_model_says(steps in steps(DOCUMENTS, workflow())) {
        let mut index = Index::new();
        let mut model = TriggersModel::default();
        for step in steps {
            match &step {
                Step::Change(changes) => index.change(changes),
                Step::Reload(documents) => index.reload(documents),
            }
            step.apply_to(&mut model.0);
            for is_active in [true, false] {
                prop_assert_eq!(index.all(is_active), model.all(is_active));
            }
            prop_assert_eq!(index.addresses(), model.addresses());
            prop_assert_eq!(index.counts(), model.counts());
        }
    }
}

/// The workflows of every webhook of every organization, each with its node ids.
type AllMatches = BTreeMap<(&'static str, &'static str), Vec<(String, String)>>;

#[derive(Default)]
struct TriggersModel(BTreeMap<u8, Workflow>);

impl TriggersModel {
    fn all(&self, is_active: bool) -> AllMatches {
        keys()
            .map(|(organization, webhook)| {
                let matching = self.0.iter().filter(|(_, workflow)| {
                    workflow.is_active == is_active && workflow.organization == organization
                });
                let matches = matching.filter_map(|(document, workflow)| {
                    let nodes = workflow.webhooks.iter().enumerate();
                    let nodes: Vec<String> = nodes
                        .filter(|(_, of_node)| **of_node == webhook)
                        .map(|(number, _)| format!("n{number}"))
                        .collect();
                    let json = serde_json::to_string(&nodes).unwrap();
                    (!nodes.is_empty()).then(|| (id_string(*document), json))
                });
                ((organization, webhook), matches.collect())
            })
            .collect()
    }

    /// The workflows of every address, each with its nodes and their verifications.
    fn addresses(&self) -> AllMatches {
        keys()
            .map(|(organization, webhook)| {
                let of_owner = self.0.iter().filter(|(_, workflow)| {
                    workflow.is_active && workflow.organization == organization
                });
                let triggers = of_owner.filter_map(|(document, workflow)| {
                    let nodes = workflow.webhooks.iter().zip(workflow.verifications).enumerate();
                    let nodes = nodes.filter(|(_, (of_node, _))| **of_node == webhook);
                    let nodes: Vec<(usize, Verification)> =
                        nodes.map(|(number, (_, verification))| (number, verification)).collect();
                    let has_any = nodes.iter().any(|(_, each)| *each != Verification::None);
                    let shown = |(number, each): &(usize, Verification)| match each {
                        Verification::None => format!("n{number} none"),
                        Verification::Secret(secret) => format!("n{number} secret {secret}"),
                        Verification::Named(name) => format!("n{number} named {name}"),
                        Verification::Malformed => format!("n{number} malformed"),
                    };
                    let shown: Vec<String> = nodes.iter().map(shown).collect();
                    has_any.then(|| (id_string(*document), shown.join(", ")))
                });
                ((organization, webhook), triggers.collect())
            })
            .collect()
    }

    /// The number of triggers, and of workflows that have any.
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
    ORGANIZATIONS.into_iter().flat_map(|owner| WEBHOOKS.map(|webhook| (owner, webhook)))
}

struct Index {
    readers: Arc<TriggerIndex>,
    indexes: CollectionIndexes<WorkflowCollection>,
    metrics: Arc<Metrics>,
}

impl Index {
    fn new() -> Self {
        let text = "[endpoints]\nenabled = true\n[endpoints.verification.ci]\nscheme = \"none\"\n";
        let mut reader = SettingsReader::new(toml::from_str(text).unwrap(), std::iter::empty());
        let mut settings = TriggersSettings::read(&mut reader.section("triggers"));
        settings.keep_verifications(&EndpointsSettings::read(&mut reader.section("endpoints")));
        let readers = Arc::new(TriggerIndex::with_layout(&settings, ShardLayout::COLLIDING));
        readers.freshness().mark_current(Instant::now());
        let metrics = Metrics::new("", "").unwrap();
        let collection = WorkflowCollection::new(&settings, &readers, Arc::clone(&metrics));
        Self { readers, indexes: CollectionIndexes::new(collection), metrics }
    }

    fn change(&mut self, changes: &BTreeMap<u8, Option<Workflow>>) {
        let records = changes.iter().map(|(document, workflow)| match workflow {
            Some(workflow) => {
                let document = bson_document(*document, workflow);
                let record = self.indexes.collection().read(&document).unwrap();
                (DocumentKey::from_document(&document).unwrap(), Some(record))
            }
            None => (DocumentKey::from_document(&rawdoc! { "_id": id(*document) }).unwrap(), None),
        });
        let records = records.collect();
        self.indexes.apply(records);
    }

    fn reload(&mut self, documents: &[(u8, Workflow)]) {
        let mut load = self.indexes.begin_load();
        for (document, workflow) in documents {
            let document = bson_document(*document, workflow);
            let record = self.indexes.collection().read(&document).unwrap();
            load.upsert(&DocumentKey::from_document(&document).unwrap(), record);
        }
        self.indexes.finish_load(load);
    }

    fn all(&self, is_active: bool) -> AllMatches {
        keys()
            .map(|(organization, webhook)| {
                let read = if is_active { active_matches } else { inactive_matches };
                let matches = read(&self.readers, organization, webhook);
                ((organization, webhook), matches)
            })
            .collect()
    }

    fn addresses(&self) -> AllMatches {
        keys()
            .map(|(organization, webhook)| {
                let (organization_id, webhook_id) = ids(organization, webhook);
                let address = self.readers.address(&organization_id, &webhook_id).unwrap();
                ((organization, webhook), address.as_deref().map(shown).unwrap_or_default())
            })
            .collect()
    }

    /// The same numbers, from the metrics.
    fn counts(&self) -> (usize, usize) {
        let names = ["hookgate_index_triggers", "hookgate_index_workflows"];
        let [triggers, workflows] = names.map(|name| gauge(&self.metrics, name));
        (triggers, workflows)
    }
}

/// The workflows of an address, as the model shows them. Asserts that equal verifications are
/// shared.
fn shown(address: &Address) -> Vec<(String, String)> {
    let mut described: BTreeMap<[u8; 32], Arc<_>> = BTreeMap::new();
    let mut triggers = Vec::new();
    for trigger in &address.triggers {
        let mut nodes = Vec::new();
        for node in &trigger.nodes {
            let verification = match &node.verification {
                NodeVerification::Described(verification) => {
                    let identity = *verification.identity().as_bytes();
                    let known =
                        described.entry(identity).or_insert_with(|| Arc::clone(verification));
                    assert!(Arc::ptr_eq(known, verification));
                    secret_with(identity)
                }
                NodeVerification::Named(name) => format!("named {name}"),
                NodeVerification::Malformed(_) => "malformed".to_owned(),
                NodeVerification::None => "none".to_owned(),
            };
            nodes.push(format!("{} {verification}", node.id));
        }
        triggers.push((trigger.workflow.to_string(), nodes.join(", ")));
    }
    triggers
}

/// The description with this identity.
fn secret_with(identity: [u8; 32]) -> String {
    let secrets = VERIFICATIONS.into_iter().filter_map(|each| match each {
        Verification::Secret(secret) => Some(secret),
        _ => None,
    });
    let has_identity = |secret: &&str| {
        let description = rawdoc! { "scheme": "github", "secret": *secret };
        let read = crate::endpoints::verification::Verification::from_document(&description);
        *read.unwrap().identity().as_bytes() == identity
    };
    let mut found = secrets.filter(has_identity);
    format!("secret {}", found.next().expect("a description of this test"))
}

fn active_matches(
    index: &TriggerIndex,
    organization: &str,
    webhook: &str,
) -> Vec<(String, String)> {
    let (organization, webhook) = ids(organization, webhook);
    index.matching(&organization, &webhook, collect).unwrap_or_default()
}

fn inactive_matches(
    index: &TriggerIndex,
    organization: &str,
    webhook: &str,
) -> Vec<(String, String)> {
    let (organization, webhook) = ids(organization, webhook);
    index.inactive(&organization, &webhook, collect)
}

fn ids(organization: &str, webhook: &str) -> (OrganizationId, WebhookId) {
    (OrganizationId::new(organization).unwrap(), WebhookId::new(webhook).unwrap())
}

fn collect(matches: Matches<'_>) -> Vec<(String, String)> {
    let strings =
        |trigger: Trigger<'_>| (trigger.workflow.as_str().to_owned(), trigger.node_ids.to_owned());
    matches.map(strings).collect()
}

/// The `_id` of a document: a string for the first half, which sorts before an ObjectId.
fn id(document: u8) -> RawBson {
    if document < DOCUMENTS / 2 {
        format!("wf_{document:02}").into()
    } else {
        ObjectId::from_bytes([document; 12]).into()
    }
}

fn id_string(document: u8) -> String {
    match id(document) {
        RawBson::ObjectId(id) => id.to_hex(),
        id => id.as_str().unwrap().to_owned(),
    }
}

fn bson_document(document: u8, workflow: &Workflow) -> RawDocumentBuf {
    let mut nodes = bson::RawArrayBuf::new();
    for (number, webhook) in workflow.webhooks.iter().enumerate() {
        let mut data = rawdoc! { "webhookId": *webhook };
        match workflow.verifications[number] {
            Verification::None => {}
            Verification::Secret(secret) => {
                data.append("verification", rawdoc! { "scheme": "github", "secret": secret });
            }
            Verification::Named(name) => data.append("verification", name),
            Verification::Malformed => data.append("verification", 5),
        }
        nodes.push(rawdoc! { "id": format!("n{number}"), "type": "WebhookTrigger", "data": data });
    }
    // An organization that may be an ObjectId is one in every second document.
    let organization = match ObjectId::parse_str(workflow.organization) {
        Ok(id) if document.is_multiple_of(2) => RawBson::from(id),
        _ => workflow.organization.into(),
    };
    rawdoc! {
        "_id": id(document), "organizationId": organization, "enabled": workflow.is_active, "nodes": nodes,
    }
}

#[test]
fn a_reader_finds_unchanged_documents_while_others_are_changed_and_reloaded() {
    let mut index = Index::new();
    // Documents 0 and 6 never change. Each has a webhook of its own organization. The other
    // documents have the same hashes, and often share a group with them.
    let unchanged = |document: u8| {
        let organization = ORGANIZATIONS[usize::from(document > 0)];
        let verifications = [Verification::None; 6];
        Workflow { organization, is_active: true, webhooks: vec![WEBHOOKS[2]], verifications }
    };
    let steady = [(0, unchanged(0)), (6, unchanged(6))];
    index.reload(&steady);
    let readers = Arc::clone(&index.readers);
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut look_ups = 0;
            let expected = [0, 6].map(|document| (id_string(document), r#"["n0"]"#.to_owned()));
            while !is_over.load(Ordering::Relaxed) {
                for (at, organization) in [(0, ORGANIZATIONS[0]), (1, ORGANIZATIONS[1])] {
                    let found = active_matches(&readers, organization, WEBHOOKS[2]);
                    assert!(found.contains(&expected[at]), "missing in {found:?}");
                    assert!(
                        !found.contains(&expected[1 - at]),
                        "another organization's in {found:?}"
                    );
                    look_ups += 1;
                }
            }
            look_ups
        }
    });
    for round in 0..200_usize {
        let other = |document: u8| Workflow {
            organization: ORGANIZATIONS[(round + usize::from(document)) % ORGANIZATIONS.len()],
            is_active: !(round + usize::from(document)).is_multiple_of(5),
            webhooks: (0..3).map(|node| WEBHOOKS[(round + node) % WEBHOOKS.len()]).collect(),
            verifications: [Verification::None; 6],
        };
        let others = [1, 2, 3, 7, 8, 9];
        let changes = others.map(|document| (document, (round % 3 > 0).then(|| other(document))));
        index.change(&changes.into());
        index.change(&steady.clone().map(|(document, workflow)| (document, Some(workflow))).into());
        let mut all: Vec<_> = others.map(|document| (document, other(document))).into();
        all.extend(steady.clone());
        // Document 1 occurs twice, with different contents.
        all.push((1, unchanged(0)));
        index.reload(&all);
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}
