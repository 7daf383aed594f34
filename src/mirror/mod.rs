//! Collections kept in memory: loaded whole, then followed change by change.
//!
//! A [`Mirror`] is kept equal to its source, which is MongoDB ([`mongo`]) or a file ([`mod@file`]).
//! Its [`MirroredCollection`] turns each document into a *record* and a record into entries. Its
//! [`CollectionIndexes`] keep the entries in two [`index::sharded`] maps. A reader finds the
//! postings of a key before or after a change, never in between.

pub mod active_field;
mod background;
pub mod document;
pub mod file;
pub mod filter;
mod freshness;
pub mod left_out;
pub mod index;
pub mod json_text;
pub mod skipped_parts;
pub mod mongo;
mod notices;
pub mod paths;
mod query;
pub mod path_survey;
mod survey;
pub mod snapshot;
#[cfg(test)]
pub mod steps;
pub mod collection_indexes;
pub mod collection;

pub use crate::mirror::collection::MirroredCollection;
pub use crate::mirror::collection_indexes::CollectionIndexes;
pub use crate::mirror::freshness::{Freshness, StaleIndex};

use crate::metrics::{ChangeKind, LoadReason, Metrics};
use crate::mirror::background::background;
use crate::mirror::collection_indexes::{CollectionLoad, DocumentChanges};
use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::left_out::LeftOut;
use crate::mirror::notices::Notices;
use crate::mirror::query::Query;
use crate::mirror::skipped_parts::SkippedParts;
use crate::mirror::snapshot::Snapshot;
use crate::process::lifecycle::{Condition, Reporter};
use bson::RawDocument;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::time::Instant;

/// The number of documents that are read before the other tasks of the thread run. One of these
/// tasks requests the next batch. Reading this many takes about a millisecond.
const READ_AT_ONCE: usize = 256;

/// The writer's side of a mirrored collection. Readers use the indexes of its collection.
#[derive(Debug)]
pub struct Mirror<C: MirroredCollection> {
    /// The lock is never contended: only the task that follows, or the thread that publishes a load
    /// for it, takes it.
    indexes: Arc<Mutex<CollectionIndexes<C>>>,
    notices: Notices,
    left_out: Arc<LeftOut>,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
}

impl<C: MirroredCollection> Mirror<C> {
    const NAME: &str = C::COLLECTION.as_str();

    pub fn new(
        collection: C,
        freshness: Arc<Freshness>,
        metrics: Arc<Metrics>,
        reporter: Reporter,
    ) -> Self {
        reporter.set(Condition::NotReady("not loaded yet".to_owned()));
        let indexes = Arc::new(Mutex::new(CollectionIndexes::new(collection)));
        let notices = Notices::new(Self::NAME);
        Self { indexes, notices, left_out: Arc::default(), freshness, metrics, reporter }
    }

    /// Records what is left out here, where reports read it.
    #[must_use]
    pub fn with_left_out(mut self, left_out: &Arc<LeftOut>) -> Self {
        self.left_out = Arc::clone(left_out);
        self
    }

    /// Publishes a snapshot. It is served until the first load.
    pub async fn restore(&mut self, snapshot: Arc<Snapshot>) {
        let (indexes, taken_at) = (Arc::clone(&self.indexes), snapshot.taken_at);
        background(move || indexes.lock().restore(&snapshot)).await;
        self.freshness.set_snapshot(taken_at);
        let at = humantime::format_rfc3339_seconds(taken_at);
        self.report(Condition::Degraded(vec![format!("served from a snapshot of {at}")]));
    }

    /// Adds a document to a load.
    pub fn load(&mut self, load: &mut Load<C>, key: &DocumentKey, document: &RawDocument) {
        load.documents += 1;
        match self.record_of(key, document) {
            Some(record) => {
                load.malformed.remove(key);
                load.indexes.upsert(key, record);
            }
            None => {
                load.malformed.insert(key.clone());
            }
        }
    }

    /// Begins a load. What is published does not change until [`Self::finish_load`].
    pub fn begin_load(&self) -> Load<C> {
        self.left_out.begin_load();
        Load { indexes: self.indexes().begin_load(), documents: 0, malformed: HashSet::new() }
    }

    /// Publishes a load in place of everything that was there, on another thread. It takes about a
    /// second for a million documents.
    pub async fn finish_load(&self, load: Load<C>, reason: LoadReason) {
        let (indexes, documents) = (Arc::clone(&self.indexes), load.documents);
        background(move || {
            let Load { indexes: loaded, malformed, .. } = load;
            let mut indexes = indexes.lock();
            indexes.finish_load(loaded);
            indexes.apply(malformed.into_iter().map(|key| (key, None)).collect());
        })
        .await;
        self.left_out.finish_load();
        self.metrics.index_load(C::COLLECTION, reason).increment(1);
        let reason = reason.as_str();
        tracing::info!(collection = Self::NAME, documents, reason, "collection loaded");
    }

    /// Frees the memory of a failed load on another thread. It may take as long as publishing.
    async fn drop_load(load: Load<C>) {
        background(move || drop(load)).await;
    }

    fn indexes(&self) -> MutexGuard<'_, CollectionIndexes<C>> {
        self.indexes.lock()
    }

    fn query(&self) -> Query {
        Query::from_collection(self.indexes().collection())
    }

    /// Adds a new or different document to changes.
    fn upsert(
        &mut self,
        changes: &mut DocumentChanges<C>,
        key: DocumentKey,
        document: &RawDocument,
    ) {
        self.metrics.index_change(C::COLLECTION, ChangeKind::Put).increment(1);
        let record = self.record_of(&key, document);
        changes.push((key, record));
    }

    /// Adds the removal of a document to changes.
    fn remove(&mut self, changes: &mut DocumentChanges<C>, key: DocumentKey) {
        self.metrics.index_change(C::COLLECTION, ChangeKind::Removed).increment(1);
        self.left_out.remove(&key);
        changes.push((key, None));
    }

    /// Publishes changes.
    fn apply(&mut self, changes: DocumentChanges<C>) {
        self.indexes().apply(changes);
    }

    /// Marks what is published next as possibly read in the middle of a change.
    fn mark_inconsistent(&self) {
        self.freshness.mark_inconsistent();
    }

    /// Records that a load was begun at this moment and is published. It does not include later
    /// changes yet.
    fn set_age_origin(&self, moment: Instant) {
        self.freshness.set_age_origin(moment);
    }

    /// Records that what is published is the state of the source at this moment.
    fn mark_current(&self, moment: Instant) {
        self.freshness.mark_current(moment);
    }

    /// Reports and logs the condition of the mirror. A stale mirror is at most degraded.
    fn report(&self, condition: Condition) {
        let condition = condition.merge(self.staleness());
        if !self.reporter.set(condition.clone()) {
            return;
        }
        match condition {
            Condition::Ready => tracing::info!(collection = Self::NAME, "collection is ready"),
            Condition::Degraded(notes) => {
                let notes = notes.join("; ");
                tracing::warn!(collection = Self::NAME, notes, "collection is degraded");
            }
            Condition::NotReady(reason) => {
                tracing::warn!(collection = Self::NAME, reason, "collection is not ready");
            }
        }
    }

    /// Degraded while misses are not trusted.
    fn staleness(&self) -> Condition {
        let freshness = &self.freshness;
        let Some(age) = freshness.age().filter(|_| !freshness.can_confirm_miss()) else {
            return Condition::Ready;
        };
        let reason = if age > freshness.max_staleness {
            let span = humantime::format_duration(freshness.max_staleness);
            format!("last confirmed current more than {span} ago")
        } else {
            "loaded, but not yet caught up with the change stream".to_owned()
        };
        Condition::Degraded(vec![format!("{reason}; misses get 503")])
    }

    /// Reads a document. A malformed document or part is counted, and logged the first time.
    fn record_of(&mut self, key: &DocumentKey, document: &RawDocument) -> Option<C::Record> {
        let read = self.indexes().collection().read(document);
        match read {
            Ok(record) => {
                self.skip_parts(key, &C::skipped(&record));
                Some(record)
            }
            Err(malformed) => {
                self.leave_out(key, &malformed);
                None
            }
        }
    }

    /// Counts a malformed document, and logs it the first time.
    fn leave_out(&mut self, key: &DocumentKey, malformed: &Malformed) {
        self.metrics.index_skipped(C::COLLECTION).increment(1);
        self.left_out.whole(key, malformed);
        self.notices.document(key, malformed);
    }

    /// Counts the malformed parts of a document, and logs them the first time.
    fn skip_parts(&mut self, key: &DocumentKey, skipped: &SkippedParts) {
        if skipped.malformed > 0 {
            let counter = self.metrics.index_skipped_parts(C::COLLECTION);
            counter.increment(skipped.malformed as u64);
        }
        self.left_out.parts(key, skipped);
        for part in &skipped.parts {
            self.notices.part(key, part);
        }
    }
}

/// A load of a collection that is not published yet.
#[derive(Debug)]
pub struct Load<C: MirroredCollection> {
    indexes: CollectionLoad<C>,
    documents: usize,
    /// Documents that were malformed when they were last read. A cursor may return a document
    /// twice, because it was moved between two batches, and the first version may have been good.
    malformed: HashSet<DocumentKey>,
}

#[cfg(test)]
mod fairness;
