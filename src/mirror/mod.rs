//! A collection kept in memory: loaded whole, then followed change by change.
//!
//! A [`Mirror`] holds what each document has come to (its *record*) and publishes the sum of all
//! records through its [`View`]. Readers see one published state or the next, never one half
//! built. The documents come from MongoDB ([`mongo`]) or from a file ([`mod@file`]).

pub mod document;
pub mod file;
pub mod mongo;

use crate::lifecycle::{Condition, Reporter};
use crate::metrics::{ChangeKind, Collection, LoadReason, Metrics};
use bson::{Document, RawDocument};
use document::{DocumentKey, Malformed};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Malformed documents that are remembered as logged. Beyond this many they are only counted.
const LOGGED_DOCUMENTS: usize = 10_000;

/// What is made of a collection.
pub trait View: Send + 'static {
    const COLLECTION: Collection;

    /// What one document comes to.
    type Record: Send;

    /// What of a document is asked of the database, as an aggregation's `$project`.
    fn projection(&self) -> Document;

    /// Reads a document: projected or whole, the fields are in the same places.
    fn read(&self, document: &RawDocument) -> Result<Self::Record, Malformed>;

    /// Swaps what readers see for the sum of these records.
    fn publish(&self, records: &HashMap<DocumentKey, Self::Record>);
}

/// How current a mirror is. Written by its follower, read by everybody.
#[derive(Debug)]
pub struct Freshness {
    epoch: Instant,
    /// Milliseconds from the epoch to the moment whose state is published, plus one; 0 is never.
    as_of: AtomicU64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { epoch: Instant::now(), as_of: AtomicU64::new(0) }
    }
}

impl Freshness {
    /// Whether there has been a complete load.
    pub fn is_loaded(&self) -> bool {
        self.as_of.load(Ordering::Acquire) > 0
    }

    /// How long ago the published state was known to be the state of the source.
    pub fn age(&self) -> Option<Duration> {
        let as_of = self.as_of.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(as_of)))
    }

    fn set(&self, as_of: Instant) {
        let millis = as_of.saturating_duration_since(self.epoch).as_millis();
        self.as_of.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }
}

/// A change of one document.
#[derive(Debug)]
pub enum Change<'a> {
    Put(DocumentKey, &'a RawDocument),
    Removed(DocumentKey),
}

/// The writer's side of a mirrored collection.
#[derive(Debug)]
pub struct Mirror<V: View> {
    view: V,
    records: HashMap<DocumentKey, V::Record>,
    logged: HashSet<DocumentKey>,
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
        Self { view, records: HashMap::new(), logged: HashSet::new(), freshness, metrics, reporter }
    }

    /// Takes one document into a load.
    fn load(&mut self, load: &mut Load<V>, key: DocumentKey, document: &RawDocument) {
        if let Some(record) = self.record_of(&key, document) {
            load.records.insert(key, record);
        }
    }

    /// Publishes a load in place of all there was.
    fn finish_load(&mut self, load: Load<V>, reason: LoadReason) {
        self.records = load.records;
        self.view.publish(&self.records);
        self.metrics.index_load(V::COLLECTION, reason).increment(1);
        tracing::info!(
            collection = Self::NAME,
            documents = self.records.len(),
            reason = reason.word(),
            "collection loaded"
        );
    }

    /// Applies changes and publishes the outcome once.
    fn apply<'a>(&mut self, changes: impl Iterator<Item = Change<'a>>) {
        for change in changes {
            let (key, record, kind) = match change {
                Change::Put(key, document) => {
                    let record = self.record_of(&key, document);
                    (key, record, ChangeKind::Put)
                }
                Change::Removed(key) => (key, None, ChangeKind::Removed),
            };
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
            self.metrics.index_change(V::COLLECTION, kind).increment(1);
        }
        self.view.publish(&self.records);
    }

    /// Says that what is published is the state of the source at that moment.
    fn current_as_of(&self, moment: Instant) {
        self.freshness.set(moment);
    }

    fn report(&self, condition: Condition) {
        if !self.reporter.set(condition.clone()) {
            return;
        }
        match condition {
            Condition::Ready => tracing::info!(collection = Self::NAME, "collection is ready"),
            Condition::Degraded(notes) => {
                tracing::warn!(collection = Self::NAME, ?notes, "collection is degraded");
            }
            Condition::NotReady(reason) => {
                tracing::warn!(collection = Self::NAME, reason, "collection is not ready");
            }
        }
    }

    /// Reads a document; a malformed one is counted, and logged the first time.
    fn record_of(&mut self, key: &DocumentKey, document: &RawDocument) -> Option<V::Record> {
        match self.view.read(document) {
            Ok(record) => Some(record),
            Err(malformed) => {
                self.leave_out(key, &malformed);
                None
            }
        }
    }

    fn leave_out(&mut self, key: &DocumentKey, malformed: &Malformed) {
        self.metrics.index_skipped(V::COLLECTION).increment(1);
        if self.logged.len() < LOGGED_DOCUMENTS && self.logged.insert(key.clone()) {
            tracing::warn!(
                collection = Self::NAME,
                id = %key,
                reason = %malformed,
                "malformed document left out"
            );
        }
    }
}

/// A complete load in the making, beside what is published.
#[derive(Debug)]
struct Load<V: View> {
    records: HashMap<DocumentKey, V::Record>,
}

impl<V: View> Default for Load<V> {
    fn default() -> Self {
        Self { records: HashMap::new() }
    }
}
