//! How current a mirror is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How long before the start of the process the epoch is. Longer than the age of any snapshot that
/// is worth serving.
const LONG_AGO: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// A miss that is not trusted, because the mirror is not loaded, stale or inconsistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleIndex;

/// How current a mirror is. Its follower writes it; requests and reports read it.
#[derive(Debug)]
pub struct Freshness {
    epoch: Instant,
    /// Milliseconds from the epoch to the moment whose state is published, plus one. 0 if nothing
    /// is published yet.
    as_of: AtomicU64,
    /// Whether what is published may have been read in the middle of a change: it is a snapshot, or
    /// a load that has not caught up. A value that moved from one document to another meanwhile may
    /// be missing from both.
    is_inconsistent: AtomicBool,
    pub(in crate::mirror) max_staleness: Duration,
}

impl Freshness {
    /// `max_staleness` is the age up to which a miss is trusted.
    pub fn new(max_staleness: Duration) -> Arc<Self> {
        let now = Instant::now();
        let epoch = now.checked_sub(LONG_AGO).unwrap_or(now);
        Arc::new(Self {
            epoch,
            as_of: AtomicU64::new(0),
            is_inconsistent: AtomicBool::new(false),
            max_staleness,
        })
    }

    /// Whether anything is published: a load or a snapshot.
    #[inline]
    pub fn is_loaded(&self) -> bool {
        self.as_of() > 0
    }

    /// The age of the published state; `None` if nothing is published yet.
    pub fn age(&self) -> Option<Duration> {
        let as_of = self.as_of().checked_sub(1)?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(as_of)))
    }

    /// Whether a miss is trusted. A hit is served however old the mirror is.
    pub fn can_confirm_miss(&self) -> bool {
        !self.may_be_inconsistent() && self.age().is_some_and(|age| age <= self.max_staleness)
    }

    pub(in crate::mirror) fn may_be_inconsistent(&self) -> bool {
        self.is_inconsistent.load(Ordering::Acquire)
    }

    pub(in crate::mirror) fn mark_inconsistent(&self) {
        self.is_inconsistent.store(true, Ordering::Release);
    }

    /// Records that a snapshot of this time is published.
    pub(in crate::mirror) fn set_snapshot(&self, taken_at: SystemTime) {
        self.mark_inconsistent();
        let age = taken_at.elapsed().unwrap_or_default();
        self.set_age_origin(Instant::now().checked_sub(age).unwrap_or(self.epoch));
    }

    /// Records that the published state is that of the source at this moment.
    pub fn mark_current(&self, as_of: Instant) {
        self.set_age_origin(as_of);
        self.is_inconsistent.store(false, Ordering::Release);
    }

    /// The moment of the published state, as it is stored.
    fn as_of(&self) -> u64 {
        self.as_of.load(Ordering::Acquire)
    }

    /// Records the moment of the published state, without a statement about its consistency.
    pub(in crate::mirror) fn set_age_origin(&self, as_of: Instant) {
        let millis = as_of.saturating_duration_since(self.epoch).as_millis();
        self.as_of.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }
}
