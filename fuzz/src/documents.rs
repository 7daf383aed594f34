//! Documents of workflows and users, as BSON.

use bson::RawDocument;
use hookgate::auth::{Callers, UsersSettings, UsersView};
use hookgate::metrics::Metrics;
use hookgate::mirror::document::{DocumentKey, IdString};
use hookgate::mirror::{Tables, View};
use hookgate::settings::Settings;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowsView};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

struct Views {
    users: Tables<UsersView>,
    workflows: Tables<WorkflowsView>,
}

thread_local! {
    static VIEWS: RefCell<Views> = RefCell::new(views());
}

fn views() -> Views {
    let mut settings = Settings::default();
    let users = UsersSettings::read(&mut settings.section("users"));
    let triggers = TriggersSettings::read(&mut settings.section("triggers"));
    let metrics = Metrics::new("", "").expect("metrics");
    let callers = Arc::new(Callers::new(Duration::from_secs(1)));
    let index = TriggerIndex::new(Duration::from_secs(1));
    Views {
        users: Tables::new(UsersView::new(users, &callers, Arc::clone(&metrics))),
        workflows: Tables::new(WorkflowsView::new(&triggers, &index, metrics)),
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

/// Adds the record of a document to the tables and removes it again.
fn apply<V: View>(tables: &mut Tables<V>, document: &RawDocument, key: Option<&DocumentKey>) {
    if let Ok(record) = tables.view().read(document) {
        let key = key.expect("a document that was read has an _id");
        tables.apply(vec![(key.clone(), Some(record))]);
        tables.apply(vec![(key.clone(), None)]);
    }
}
