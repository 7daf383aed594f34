//! A property test that compares [`Callers`] with a simple model, for random changes and reloads.
//!
//! There are few hash values ([`ShardLayout::COLLIDING`]), so collisions of keys and of
//! documents are frequent.

use crate::auth::callers::{Callers, UserLookup};
use crate::auth::users::{UserCollection, UsersSettings};
use crate::ids::{OrganizationId, UserId};
use crate::metrics::Metrics;
use crate::mirror::document::DocumentKey;
use crate::mirror::index::sharded::ShardLayout;
use crate::mirror::steps::{Step, gauge, steps};
use crate::mirror::{CollectionIndexes, MirroredCollection};
use crate::settings::SettingsReader;
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

/// The content of a user document.
#[derive(Debug, Clone, PartialEq)]
struct User {
    organization: &'static str,
    is_active: bool,
    keys: Vec<&'static str>,
}

fn user() -> impl Strategy<Value = User> {
    // Most users have one organization, so not all shared keys are in conflict.
    let organization = prop_oneof![3 => Just(ORGANIZATIONS[0]), 1 => select(&ORGANIZATIONS[..])];
    let fields = (organization, prop::bool::weighted(0.7), vec(select(&KEYS[..]), 0..4));
    fields.prop_map(|(organization, is_active, keys)| User { organization, is_active, keys })
}

proptest! {
    #[test]
    fn every_key_and_id_resolves_to_the_user_of_the_model(steps in steps(DOCUMENTS, user())) {
        let metrics = Metrics::new("", "").unwrap();
        let staleness = std::time::Duration::from_secs(30);
        let callers = Arc::new(Callers::with_layout(staleness, ShardLayout::COLLIDING));
        callers.freshness().mark_current(Instant::now());
        let settings = UsersSettings::read(&mut SettingsReader::default().section("users"));
        let mut users = CollectionIndexes::new(UserCollection::new(settings, &callers, Arc::clone(&metrics)));
        let mut model = CallersModel::default();
        for step in steps {
            match &step {
                Step::Change(changes) => change(&mut users, changes),
                Step::Reload(documents) => reload(&mut users, documents),
            }
            step.apply_to(&mut model.0);
            for key in KEYS {
                prop_assert_eq!(callers.api_key(key), model.api_key(key), "{}", key);
            }
            for document in 0..DOCUMENTS {
                let id = id_string(document);
                let user = UserId::new(&id).unwrap();
                prop_assert_eq!(callers.user(&user, None), model.user(&id), "{}", id);
                for organization in ORGANIZATIONS {
                    let (claimed, expected) = (OrganizationId::new(organization).unwrap(), model.user_of_claim(&id, organization));
                    prop_assert_eq!(callers.is_switched_off(&user, &claimed), expected == UserLookup::Disabled, "{}", id);
                    prop_assert_eq!(callers.user(&user, Some(&claimed)), expected, "{}", id);
                }
            }
            prop_assert_eq!(counts(&metrics), model.counts());
        }
    }
}

fn change(users: &mut CollectionIndexes<UserCollection>, changes: &BTreeMap<u8, Option<User>>) {
    let records = changes.iter().map(|(document, user)| match user {
        Some(user) => {
            let document = to_bson(*document, user);
            let record = users.collection().read(&document).unwrap();
            (DocumentKey::from_document(&document).unwrap(), Some(record))
        }
        None => (DocumentKey::from_document(&rawdoc! { "_id": id(*document) }).unwrap(), None),
    });
    let records = records.collect();
    users.apply(records);
}

fn reload(users: &mut CollectionIndexes<UserCollection>, documents: &[(u8, User)]) {
    let mut load = users.begin_load();
    for (document, user) in documents {
        let document = to_bson(*document, user);
        let record = users.collection().read(&document).unwrap();
        load.upsert(&DocumentKey::from_document(&document).unwrap(), record);
    }
    users.finish_load(load);
}

/// The number of API keys, and of the keys and ids that several organizations have, by the metrics.
fn counts(metrics: &Metrics) -> [usize; 3] {
    let names = ["api_keys", "conflicting_api_keys", "conflicting_user_ids"];
    names.map(|name| gauge(metrics, &format!("hookgate_index_{name}")))
}

#[derive(Default)]
struct CallersModel(BTreeMap<u8, User>);

impl CallersModel {
    fn api_key(&self, key: &str) -> UserLookup {
        expected_lookup(self.0.iter().filter(|(_, user)| user.keys.contains(&key)))
    }

    fn user(&self, id: &str) -> UserLookup {
        expected_lookup(self.0.iter().filter(|(document, _)| id_string(**document) == id))
    }

    /// The users of the claimed organization, or all if none is of it. All that are switched off
    /// are refused, also if they have several organizations.
    fn user_of_claim(&self, id: &str, claimed: &str) -> UserLookup {
        let with_id = self.0.iter().filter(|(document, _)| id_string(**document) == id);
        let own = with_id.clone().filter(|(_, user)| user.organization == claimed);
        let users: Vec<_> = if own.clone().count() > 0 { own.collect() } else { with_id.collect() };
        if !users.is_empty() && users.iter().all(|(_, user)| !user.is_active) {
            return UserLookup::Disabled;
        }
        expected_lookup(users.into_iter())
    }

    fn counts(&self) -> [usize; 3] {
        let organizations = |is_one: &dyn Fn(u8, &User) -> bool| {
            let users = self.0.iter().filter(|(document, user)| is_one(**document, user));
            users.map(|(_, user)| user.organization).collect::<BTreeSet<&str>>().len()
        };
        let of_keys = KEYS.map(|key| organizations(&|_, user| user.keys.contains(&key)));
        let ids: BTreeSet<String> = (0..DOCUMENTS).map(id_string).collect();
        let of_ids = ids.iter().map(|id| organizations(&|document, _| id_string(document) == *id));
        let at_least = |least| of_keys.iter().filter(|count| **count >= least).count();
        [at_least(1), at_least(2), of_ids.filter(|count| *count >= 2).count()]
    }
}

/// The expected lookup of several users: of one organization, the first active one by id.
fn expected_lookup<'a>(users: impl Iterator<Item = (&'a u8, &'a User)> + Clone) -> UserLookup {
    let organizations: BTreeSet<&str> = users.clone().map(|(_, user)| user.organization).collect();
    let active = users.filter(|(_, user)| user.is_active).map(|(document, _)| id_string(*document));
    match (organizations.len(), active.min()) {
        (0 | 2.., _) => UserLookup::NotFound,
        (1, None) => UserLookup::Disabled,
        (1, Some(user)) => UserLookup::Active {
            organization: OrganizationId::new(organizations.first().unwrap()).unwrap(),
            user: UserId::new(&user).unwrap(),
        },
    }
}

/// The ids of the last two documents differ only in type.
fn id(document: u8) -> RawBson {
    let digits = ObjectId::from_bytes([document.min(6); 12]);
    match document {
        0..4 => format!("user_{document}").into(),
        7 => digits.to_hex().into(),
        _ => digits.into(),
    }
}

fn id_string(document: u8) -> String {
    match id(document) {
        RawBson::ObjectId(id) => id.to_hex(),
        id => id.as_str().unwrap().to_owned(),
    }
}

fn to_bson(document: u8, user: &User) -> RawDocumentBuf {
    let mut keys = bson::RawArrayBuf::new();
    for key in &user.keys {
        keys.push(*key);
    }
    // A single key is a string in half of the documents.
    let keys = match user.keys.as_slice() {
        [key] if document.is_multiple_of(2) => RawBson::from(*key),
        _ => keys.into(),
    };
    rawdoc! {
        "_id": id(document), "organizationId": user.organization, "enabled": user.is_active, "apiKey": keys,
    }
}
