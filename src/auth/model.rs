//! Callers held against a model of them: whatever happens to users, every key and every id speaks for whom the
//! model says.
//!
//! In tests hashes are few (see [`crate::mirror::sharded`]), so that keys and documents that have the same are
//! the rule here.

use super::callers::{Callers, Known};
use super::users::{UsersSettings, UsersView};
use crate::ids::{OrganizationId, UserId};
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
use tokio::time::Instant;

const ORGANIZATIONS: [&str; 3] = ["org", "org_2", "64d2f9c5e8a1d4e001a0b1c3"];
const KEYS: [&str; 6] = ["key", "key_2", "k", "ü", "key_3", "key_4"];
const DOCUMENTS: u8 = 8;

/// What a document says.
#[derive(Debug, Clone, PartialEq)]
struct User {
    organization: &'static str,
    is_active: bool,
    keys: Vec<&'static str>,
}

fn user() -> impl Strategy<Value = User> {
    // Mostly of one organization, so that keys that are shared are not all refused.
    let organization = prop_oneof![3 => Just(ORGANIZATIONS[0]), 1 => select(&ORGANIZATIONS[..])];
    let fields = (organization, prop::bool::weighted(0.7), vec(select(&KEYS[..]), 0..4));
    fields.prop_map(|(organization, is_active, keys)| User { organization, is_active, keys })
}

proptest! {
    #[test]
    fn every_key_and_id_speaks_for_whom_documents_say(steps in steps(DOCUMENTS, user())) {
        let metrics = Metrics::new("", "").unwrap();
        let callers = Arc::new(Callers::new(std::time::Duration::from_secs(30)));
        callers.freshness().set(Instant::now());
        let settings = UsersSettings::read(&mut Settings::default().section("users"));
        let mut view = UsersView::new(settings, &callers, Arc::clone(&metrics));
        let mut model = Model::default();
        for step in steps {
            match &step {
                Step::Change(changes) => change(&mut view, changes),
                Step::Reload(documents) => reload(&mut view, documents),
            }
            step.apply_to(&mut model.0);
            for key in KEYS {
                prop_assert_eq!(callers.api_key(key), model.api_key(key), "{}", key);
            }
            for document in 0..DOCUMENTS {
                let id = id_text(document);
                let (user, known) = (UserId::new(&id).unwrap(), model.user(&id));
                prop_assert_eq!(callers.is_switched_off(&user), known == Known::SwitchedOff, "{}", id);
                prop_assert_eq!(callers.user(&user), known, "{}", id);
            }
            prop_assert_eq!(counts(&metrics), model.counts());
        }
    }
}

fn change(view: &mut UsersView, changes: &BTreeMap<u8, Option<User>>) {
    let records = changes.iter().map(|(document, user)| match user {
        Some(user) => {
            let document = written(*document, user);
            (DocumentKey::of(&document).unwrap(), Some(view.read(&document).unwrap()))
        }
        None => (DocumentKey::of(&rawdoc! { "_id": id(*document) }).unwrap(), None),
    });
    let records = records.collect();
    view.apply(records);
}

fn reload(view: &mut UsersView, documents: &[(u8, User)]) {
    let mut load = view.begin_load();
    for (document, user) in documents {
        let document = written(*document, user);
        let record = view.read(&document).unwrap();
        view.load(&mut load, &DocumentKey::of(&document).unwrap(), record);
    }
    view.finish_load(load);
}

/// API keys and those that are several organizations', as the metrics say.
fn counts(metrics: &Metrics) -> (usize, usize) {
    let names = ["hookgate_index_api_keys", "hookgate_index_conflicting_api_keys"];
    let [keys, conflicting] = names.map(|name| gauge(metrics, name));
    (keys, conflicting)
}

#[derive(Default)]
struct Model(BTreeMap<u8, User>);

impl Model {
    fn api_key(&self, key: &str) -> Known {
        speaks(self.0.iter().filter(|(_, user)| user.keys.contains(&key)))
    }

    fn user(&self, id: &str) -> Known {
        speaks(self.0.iter().filter(|(document, _)| id_text(**document) == id))
    }

    fn counts(&self) -> (usize, usize) {
        let organizations = |key: &str| -> BTreeSet<&str> {
            let owners = self.0.values().filter(|user| user.keys.contains(&key));
            owners.map(|user| user.organization).collect()
        };
        let counts = KEYS.map(|key| organizations(key).len());
        let at_least = |least| counts.iter().filter(|count| **count >= least).count();
        (at_least(1), at_least(2))
    }
}

/// One of several, all of one organization: the first by name of those that are switched on.
fn speaks<'a>(users: impl Iterator<Item = (&'a u8, &'a User)> + Clone) -> Known {
    let organizations: BTreeSet<&str> = users.clone().map(|(_, user)| user.organization).collect();
    let active = users.filter(|(_, user)| user.is_active).map(|(document, _)| id_text(*document));
    match (organizations.len(), active.min()) {
        (0 | 2.., _) => Known::Nobody,
        (1, None) => Known::SwitchedOff,
        (1, Some(user)) => Known::Active {
            organization: OrganizationId::new(organizations.first().unwrap()).unwrap(),
            user: UserId::new(&user).unwrap(),
        },
    }
}

/// The last two differ in type alone.
fn id(document: u8) -> RawBson {
    let digits = ObjectId::from_bytes([document.min(6); 12]);
    match document {
        0..4 => format!("user_{document}").into(),
        7 => digits.to_hex().into(),
        _ => digits.into(),
    }
}

fn id_text(document: u8) -> String {
    match id(document) {
        RawBson::ObjectId(id) => id.to_hex(),
        id => id.as_str().unwrap().to_owned(),
    }
}

fn written(document: u8, user: &User) -> RawDocumentBuf {
    let mut keys = bson::RawArrayBuf::new();
    for key in &user.keys {
        keys.push(*key);
    }
    // A single one is a text half of the time.
    let keys = match user.keys.as_slice() {
        [key] if document.is_multiple_of(2) => RawBson::from(*key),
        _ => keys.into(),
    };
    rawdoc! {
        "_id": id(document), "organizationId": user.organization, "enabled": user.is_active, "apiKey": keys,
    }
}
