//! Loading, restoring and changing the indexes of a collection.

use crate::mirror::collection::MirroredCollection;
use crate::mirror::document::DocumentKey;
use crate::mirror::index::load::IndexLoad;
use crate::mirror::index::writer::{ChangeSet, Writer};
use crate::mirror::snapshot::Snapshot;

/// Changed documents, each at most once: its record, or `None` if it is gone or malformed. They are
/// applied together.
pub type DocumentChanges<C> = Vec<(DocumentKey, Option<<C as MirroredCollection>::Record>)>;

/// A collection with the writers of its two indexes.
#[derive(Debug)]
pub struct CollectionIndexes<C> {
    collection: C,
    writers: [Writer; 2],
}

/// A load of both indexes. Readers do not see it until it is finished.
#[derive(Debug)]
pub struct CollectionLoad<C: MirroredCollection> {
    indexes: [IndexLoad; 2],
    pub(in crate::mirror) extras: C::Extras,
}

impl<C: MirroredCollection> CollectionIndexes<C> {
    pub fn new(collection: C) -> Self {
        let writers = collection.indexes().map(Writer::new);
        Self { collection, writers }
    }

    pub fn collection(&self) -> &C {
        &self.collection
    }

    pub fn begin_load(&self) -> CollectionLoad<C> {
        let indexes = self.writers.each_ref().map(Writer::begin_load);
        CollectionLoad { indexes, extras: C::Extras::default() }
    }

    /// Publishes a load in place of everything that was there.
    pub fn finish_load(&mut self, load: CollectionLoad<C>) {
        for (writer, loaded) in self.writers.iter_mut().zip(load.indexes) {
            writer.replace(loaded);
        }
        self.collection.on_load(load.extras);
        self.collection.on_publish(&self.writers);
    }

    /// Publishes a snapshot in place of everything that was there.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        let mut load = self.begin_load();
        for (name, index) in C::INDEX_NAMES.iter().zip(&mut load.indexes) {
            for (document, entries) in snapshot.documents(name) {
                index.upsert(document, &entries);
            }
        }
        self.finish_load(load);
    }

    /// Publishes changes.
    pub fn apply(&mut self, changes: DocumentChanges<C>) {
        let mut sets = [ChangeSet::default(), ChangeSet::default()];
        for (document, mut record) in changes {
            self.collection.on_change(&document, record.as_mut());
            let entries = record.map(|record| C::entries(&document, record)).unwrap_or_default();
            for (set, entries) in sets.iter_mut().zip(entries) {
                set.upsert(document.as_bytes(), entries);
            }
        }
        for (writer, set) in self.writers.iter_mut().zip(sets) {
            writer.apply(set);
        }
        self.collection.on_publish(&self.writers);
    }
}

impl<C: MirroredCollection> CollectionLoad<C> {
    /// Adds a document. If a document is added twice, the last record counts.
    pub fn upsert(&mut self, document: &DocumentKey, mut record: C::Record) {
        C::collect_extras(&mut self.extras, document, &mut record);
        let entries = C::entries(document, record);
        for (index, entries) in self.indexes.iter_mut().zip(&entries) {
            index.upsert(document.as_bytes(), entries);
        }
    }
}
