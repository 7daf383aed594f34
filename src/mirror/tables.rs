//! Loading, restoring and changing the indexes of a view.

use crate::mirror::document::DocumentKey;
use crate::mirror::index::load::IndexLoad;
use crate::mirror::index::writer::{ChangeSet, Writer};
use crate::mirror::snapshot::Snapshot;
use crate::mirror::view::View;

/// Changed documents, each at most once: its record, or `None` if it is gone or malformed. They are
/// applied together.
pub type DocumentChanges<V> = Vec<(DocumentKey, Option<<V as View>::Record>)>;

/// A view with the writers of its two indexes.
#[derive(Debug)]
pub struct Tables<V> {
    view: V,
    writers: [Writer; 2],
}

/// A load of both indexes. Readers do not see it until it is finished.
#[derive(Debug)]
pub struct TablesLoad<V: View> {
    indexes: [IndexLoad; 2],
    pub(in crate::mirror) extras: V::Extras,
}

impl<V: View> Tables<V> {
    pub fn new(view: V) -> Self {
        let writers = view.indexes().map(Writer::new);
        Self { view, writers }
    }

    pub fn view(&self) -> &V {
        &self.view
    }

    pub fn begin_load(&self) -> TablesLoad<V> {
        let indexes = self.writers.each_ref().map(Writer::begin_load);
        TablesLoad { indexes, extras: V::Extras::default() }
    }

    /// Publishes a load in place of everything that was there.
    pub fn finish_load(&mut self, load: TablesLoad<V>) {
        for (writer, loaded) in self.writers.iter_mut().zip(load.indexes) {
            writer.replace(loaded);
        }
        self.view.on_load(load.extras);
        self.view.on_publish(&self.writers);
    }

    /// Publishes a snapshot in place of everything that was there.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        let mut load = self.begin_load();
        for (name, index) in V::TABLES.iter().zip(&mut load.indexes) {
            for (document, entries) in snapshot.documents(name) {
                index.upsert(document, &entries);
            }
        }
        self.finish_load(load);
    }

    /// Publishes changes.
    pub fn apply(&mut self, changes: DocumentChanges<V>) {
        let mut sets = [ChangeSet::default(), ChangeSet::default()];
        for (document, mut record) in changes {
            self.view.on_change(&document, record.as_mut());
            let entries = record.map(|record| V::entries(&document, record)).unwrap_or_default();
            for (set, entries) in sets.iter_mut().zip(entries) {
                set.upsert(document.as_bytes(), entries);
            }
        }
        for (writer, set) in self.writers.iter_mut().zip(sets) {
            writer.apply(set);
        }
        self.view.on_publish(&self.writers);
    }
}

impl<V: View> TablesLoad<V> {
    /// Adds a document. If a document is added twice, the last record counts.
    pub fn upsert(&mut self, document: &DocumentKey, mut record: V::Record) {
        V::collect_extras(&mut self.extras, document, &mut record);
        let entries = V::entries(document, record);
        for (index, entries) in self.indexes.iter_mut().zip(&entries) {
            index.upsert(document.as_bytes(), entries);
        }
    }
}
