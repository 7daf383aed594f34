//! A collection kept in memory: loaded whole, then followed change by change.
//!
//! A [`Mirror`] reads documents and hands what each has come to (its *record*) to its [`View`], which keeps them in
//! [`sharded`] maps. Readers see what is under a key before a change or behind it, never anything half
//! built. The documents come from MongoDB ([`mongo`]) or from a file ([`mod@file`]).

mod background;
pub mod document;
pub mod file;
pub mod key;
mod keys_of;
pub mod left_out;
pub mod load;
pub mod mongo;
mod notices;
pub mod shard;
pub mod sharded;
pub mod snapshot;
#[cfg(test)]
pub mod steps;
mod survey;
#[cfg(test)]
mod turns;
pub mod writer;

use crate::lifecycle::{Condition, Reporter};
use crate::metrics::{ChangeKind, Collection, LoadReason, Metrics};
use background::background;
use bson::{Document, RawDocument};
use document::{DocumentKey, Malformed};
use left_out::LeftOut;
use notices::Notices;
use snapshot::Snapshot;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Older than any snapshot that is worth serving.
const LONG_AGO: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Documents that are read before others on the thread have a turn, the request for the next batch among them: about a
/// millisecond.
const READ_AT_ONCE: usize = 256;

/// What is made of a collection.
pub trait View: Send + 'static {
    const COLLECTION: Collection;

    /// What one document comes to.
    type Record: Send;

    /// All documents, in the making beside what readers see.
    type Load: Send + 'static;

    /// What of a document is asked of the database, as an aggregation's `$project`.
    fn projection(&self) -> Document;

    /// Reads a document: projected or whole, the fields are in the same places.
    fn read(&self, document: &RawDocument) -> Result<Self::Record, Malformed>;

    /// What of a document was left out although the rest of it was read.
    fn left_out(record: &Self::Record) -> LeftOut;

    fn begin_load(&self) -> Self::Load;

    fn load(&self, load: &mut Self::Load, document: &DocumentKey, record: Self::Record);

    /// Puts a load in place of all there was.
    fn finish_load(&mut self, load: Self::Load);

    /// Puts what a snapshot holds in place of all there was.
    fn restore(&mut self, snapshot: &Snapshot);

    /// What is worth a look in what was loaded.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Applies changes, one of each document: what it comes to now, or that there is nothing of it any more.
    fn apply(&mut self, changes: Vec<(DocumentKey, Option<Self::Record>)>);
}

/// Nothing was found, and the mirror is not loaded yet or not current enough to say that there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKnown;

/// How current a mirror is. Written by its follower, read by everybody.
#[derive(Debug)]
pub struct Freshness {
    epoch: Instant,
    /// Milliseconds from the epoch to the moment whose state is published, plus one; 0 is never.
    as_of: AtomicU64,
    /// Whether what is published may have been read in the middle of a change: a snapshot, or a load that has not caught
    /// up yet. What moved from one document to another meanwhile may be in neither.
    may_be_torn: AtomicBool,
    max_staleness: Duration,
}

impl Freshness {
    /// `max_staleness` is how old a mirror may be and still deny that there is something.
    pub fn new(max_staleness: Duration) -> Arc<Self> {
        // Before any moment that a state may be of.
        let now = Instant::now();
        let epoch = now.checked_sub(LONG_AGO).unwrap_or(now);
        Arc::new(Self {
            epoch,
            as_of: AtomicU64::new(0),
            may_be_torn: AtomicBool::new(false),
            max_staleness,
        })
    }

    /// Whether there has been a complete load.
    #[inline]
    pub fn is_loaded(&self) -> bool {
        self.as_of() > 0
    }

    /// How long ago the published state was known to be the state of the source.
    pub fn age(&self) -> Option<Duration> {
        let as_of = self.as_of().checked_sub(1)?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(as_of)))
    }

    /// Whether what is not found is not there: what is found may be served however old it is, but only a
    /// mirror that is current can say that there is nothing.
    pub fn can_deny(&self) -> bool {
        !self.may_be_torn() && self.age().is_some_and(|age| age <= self.max_staleness)
    }

    fn may_be_torn(&self) -> bool {
        self.may_be_torn.load(Ordering::Acquire)
    }

    fn set_snapshot(&self, taken_at: SystemTime) {
        self.may_be_torn.store(true, Ordering::Release);
        let age = taken_at.elapsed().unwrap_or_default();
        self.set_as_of(Instant::now().checked_sub(age).unwrap_or(self.epoch));
    }

    /// Says of which moment the published state is.
    pub fn set(&self, as_of: Instant) {
        self.set_as_of(as_of);
        self.may_be_torn.store(false, Ordering::Release);
    }

    /// Rises with the moment whose state is published; 0 is never.
    fn as_of(&self) -> u64 {
        self.as_of.load(Ordering::Acquire)
    }

    fn set_as_of(&self, as_of: Instant) {
        let millis = as_of.saturating_duration_since(self.epoch).as_millis();
        self.as_of.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }
}

/// What changed documents come to, one of each: they are applied together.
type Changes<V> = Vec<(DocumentKey, Option<<V as View>::Record>)>;

/// The writer's side of a mirrored collection.
#[derive(Debug)]
pub struct Mirror<V: View> {
    /// Locked by one task at a time, or by the thread that puts a load in place for it: nobody waits.
    view: Arc<Mutex<V>>,
    notices: Notices,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
}

impl<V: View> Mirror<V> {
    const NAME: &str = V::COLLECTION.word();

    pub fn new(
        view: V,
        freshness: Arc<Freshness>,
        metrics: Arc<Metrics>,
        reporter: Reporter,
    ) -> Self {
        reporter.set(Condition::NotReady("not loaded yet".to_owned()));
        let (view, notices) = (Arc::new(Mutex::new(view)), Notices::new(Self::NAME));
        Self { view, notices, freshness, metrics, reporter }
    }

    /// Serves what a snapshot holds until there is a load.
    pub async fn restore(&mut self, snapshot: Arc<Snapshot>) {
        let (view, taken_at) = (Arc::clone(&self.view), snapshot.taken_at);
        background(move || locked(&view).restore(&snapshot)).await;
        self.freshness.set_snapshot(taken_at);
        let at = humantime::format_rfc3339_seconds(taken_at);
        self.report(Condition::Degraded(vec![format!("served from a snapshot of {at}")]));
    }

    /// Takes one document into a load.
    pub fn load(&mut self, load: &mut Load<V>, key: &DocumentKey, document: &RawDocument) {
        load.documents += 1;
        match self.record_of(key, document) {
            Some(record) => {
                load.malformed.remove(key);
                self.view().load(&mut load.view, key, record);
            }
            None => {
                load.malformed.insert(key.clone());
            }
        }
    }

    /// Begins to take all documents in beside what is published.
    pub fn begin_load(&self) -> Load<V> {
        Load { view: self.view().begin_load(), documents: 0, malformed: HashSet::new() }
    }

    /// Publishes a load in place of all there was. That takes about a second a million, on a thread of its own: readers see
    /// one shard after the other change, as they would in any case.
    pub async fn finish_load(&self, load: Load<V>, reason: LoadReason) {
        let (view, documents) = (Arc::clone(&self.view), load.documents);
        background(move || {
            let Load { view: loaded, malformed, .. } = load;
            let mut view = locked(&view);
            view.finish_load(loaded);
            view.apply(malformed.into_iter().map(|key| (key, None)).collect());
        })
        .await;
        self.metrics.index_load(V::COLLECTION, reason).increment(1);
        let reason = reason.word();
        tracing::info!(collection = Self::NAME, documents, reason, "collection loaded");
    }

    /// Frees the memory of a load that has failed, which may take as long as to publish it.
    async fn drop_load(load: Load<V>) {
        background(move || drop(load)).await;
    }

    fn view(&self) -> MutexGuard<'_, V> {
        locked(&self.view)
    }

    /// Takes a document as it is now into changes.
    fn put(&mut self, changes: &mut Changes<V>, key: DocumentKey, document: &RawDocument) {
        self.metrics.index_change(V::COLLECTION, ChangeKind::Put).increment(1);
        let record = self.record_of(&key, document);
        changes.push((key, record));
    }

    /// Takes into changes that a document is no more.
    fn remove(&mut self, changes: &mut Changes<V>, key: DocumentKey) {
        self.metrics.index_change(V::COLLECTION, ChangeKind::Removed).increment(1);
        changes.push((key, None));
    }

    /// Applies changes and publishes the outcome.
    fn apply(&mut self, changes: Changes<V>) {
        self.view().apply(changes);
    }

    /// Says that what is about to be published may have been read in the middle of a change.
    fn tear(&self) {
        self.freshness.may_be_torn.store(true, Ordering::Release);
    }

    /// Says that there is a load, which was begun at that moment and has not caught up with what was changed meanwhile.
    fn loaded_as_of(&self, moment: Instant) {
        self.freshness.set_as_of(moment);
    }

    /// Says that what is published is the state of the source at that moment.
    fn current_as_of(&self, moment: Instant) {
        self.freshness.set(moment);
    }

    /// Says how it stands, unless it is too old for that to be true.
    fn report(&self, condition: Condition) {
        let condition = condition.and(self.staleness());
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

    fn staleness(&self) -> Condition {
        let freshness = &self.freshness;
        let Some(age) = freshness.age().filter(|_| !freshness.can_deny()) else {
            return Condition::Ready;
        };
        let why = if age > freshness.max_staleness {
            let span = humantime::format_duration(freshness.max_staleness);
            format!("not known to be current for more than {span}")
        } else {
            "not known to be complete until changes are followed".to_owned()
        };
        Condition::Degraded(vec![format!("{why}: misses are answered 503")])
    }

    /// Reads a document; one that is malformed, or has parts that are, is counted, and logged the first time.
    fn record_of(&mut self, key: &DocumentKey, document: &RawDocument) -> Option<V::Record> {
        let read = self.view().read(document);
        match read {
            Ok(record) => {
                self.leave_out_parts(key, &V::left_out(&record));
                Some(record)
            }
            Err(malformed) => {
                self.leave_out(key, &malformed);
                None
            }
        }
    }

    fn leave_out(&mut self, key: &DocumentKey, malformed: &Malformed) {
        self.metrics.index_skipped(V::COLLECTION).increment(1);
        self.notices.document(key, malformed);
    }

    fn leave_out_parts(&mut self, key: &DocumentKey, left_out: &LeftOut) {
        if left_out.malformed > 0 {
            let counter = self.metrics.index_skipped_parts(V::COLLECTION);
            counter.increment(left_out.malformed as u64);
        }
        for part in &left_out.parts {
            self.notices.part(key, part);
        }
    }
}

fn locked<V>(view: &Mutex<V>) -> MutexGuard<'_, V> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A complete load in the making, beside what is published.
#[derive(Debug)]
pub struct Load<V: View> {
    view: V::Load,
    documents: usize,
    /// A document that comes twice, since it was moved meanwhile, may have been good before.
    malformed: HashSet<DocumentKey>,
}
