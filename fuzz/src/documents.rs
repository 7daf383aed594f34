//! Documents of workflows and users, as BSON.

use bson::RawDocument;
use hookgate::auth::{Callers, UserCollection, UsersSettings};
use hookgate::endpoints::EndpointsSettings;
use hookgate::metrics::Metrics;
use hookgate::mirror::document::{DocumentKey, IdString};
use hookgate::mirror::{CollectionIndexes, MirroredCollection};
use hookgate::settings::SettingsReader;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowCollection};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

struct Views {
    users: CollectionIndexes<UserCollection>,
    workflows: CollectionIndexes<WorkflowCollection>,
}

thread_local! {
    static VIEWS: RefCell<Views> = RefCell::new(views());
}

fn views() -> Views {
    let file = "[endpoints]\nenabled = true\n".parse().expect("TOML");
    let mut settings = SettingsReader::new(file, std::iter::empty());
    let users = UsersSettings::read(&mut settings.section("users"));
    let mut triggers = TriggersSettings::read(&mut settings.section("triggers"));
    triggers.keep_verifications(&EndpointsSettings::read(&mut settings.section("endpoints")));
    let metrics = Metrics::new("", "").expect("metrics");
    let callers = Arc::new(Callers::new(Duration::from_secs(1)));
    let index = TriggerIndex::new(&triggers);
    Views {
        users: CollectionIndexes::new(UserCollection::new(users, &callers, Arc::clone(&metrics))),
        workflows: CollectionIndexes::new(WorkflowCollection::new(&triggers, &index, metrics)),
    }
}

/// A document is read or left out, and the index accepts a document that was read.
pub fn check(bytes: &[u8]) {
    let Ok(document) = RawDocument::from_bytes(bytes) else { return };
    let key = DocumentKey::from_document(document);
    VIEWS.with_borrow_mut(|views| {
        apply(&mut views.users, document, key.as_ref());
        apply(&mut views.workflows, document, key.as_ref());
    });
    if let Some(key) = &key {
        assert!(!key.to_string().is_empty() || IdString::from_key(key.as_bytes()).is_some());
    }
}

/// Adds the record of a document to the indexes and removes it again.
fn apply<V: MirroredCollection>(
    indexes: &mut CollectionIndexes<V>,
    document: &RawDocument,
    key: Option<&DocumentKey>,
) {
    if let Ok(record) = indexes.collection().read(document) {
        let key = key.expect("a document that was read has an _id");
        indexes.apply(vec![(key.clone(), Some(record))]);
        indexes.apply(vec![(key.clone(), None)]);
    }
}
