//! How current a mirror is.

use atomics::currency::Currency;
use std::sync::Arc;
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
    /// The moment whose state is published, in milliseconds from the epoch. It is inconsistent if
    /// it may have been read in the middle of a change: it is a snapshot, or ahead of the stream. A
    /// value that moved from one document to another meanwhile may be missing from both.
    currency: Currency,
    pub(in crate::mirror) max_staleness: Duration,
}

impl Freshness {
    /// `max_staleness` is the age up to which a miss is trusted.
    pub fn new(max_staleness: Duration) -> Arc<Self> {
        let now = Instant::now();
        let epoch = now.checked_sub(LONG_AGO).unwrap_or(now);
        Arc::new(Self { epoch, currency: Currency::default(), max_staleness })
    }

    /// Whether anything is published: a load or a snapshot.
    #[inline]
    pub fn is_loaded(&self) -> bool {
        self.currency.as_of().is_some()
    }

    /// The age of the published state; `None` if nothing is published yet.
    pub fn age(&self) -> Option<Duration> {
        let as_of = self.currency.as_of()?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(as_of)))
    }

    /// Whether a miss is trusted. A hit is served however old the mirror is.
    pub fn can_confirm_miss(&self) -> bool {
        !self.may_be_inconsistent() && self.age().is_some_and(|age| age <= self.max_staleness)
    }

    /// Calls `find`. Returns [`StaleIndex`] on a miss that the mirror cannot confirm.
    ///
    /// What is published may change between the miss and the check. So a miss is looked up again
    /// after the check.
    pub fn look_up<T>(&self, find: impl Fn() -> Option<T>) -> Result<Option<T>, StaleIndex> {
        if let Some(found) = find() {
            return Ok(Some(found));
        }
        let could_confirm_miss = self.can_confirm_miss();
        match find() {
            None if !could_confirm_miss || self.may_be_inconsistent() => Err(StaleIndex),
            found => Ok(found),
        }
    }

    pub(in crate::mirror) fn may_be_inconsistent(&self) -> bool {
        self.currency.is_inconsistent()
    }

    pub(in crate::mirror) fn mark_inconsistent(&self) {
        self.currency.mark_inconsistent();
    }

    /// Records that a snapshot of this time is published.
    pub(in crate::mirror) fn set_snapshot(&self, taken_at: SystemTime) {
        self.mark_inconsistent();
        let age = taken_at.elapsed().unwrap_or_default();
        self.set_age_origin(Instant::now().checked_sub(age).unwrap_or(self.epoch));
    }

    /// Records that the published state is that of the source at this moment.
    pub fn mark_current(&self, as_of: Instant) {
        self.currency.mark_current(self.milliseconds(as_of));
    }

    /// Records the moment of the published state, without a statement about its consistency.
    pub(in crate::mirror) fn set_age_origin(&self, as_of: Instant) {
        self.currency.set_age_origin(self.milliseconds(as_of));
    }

    fn milliseconds(&self, moment: Instant) -> u64 {
        let milliseconds = moment.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(milliseconds).unwrap_or(u64::MAX)
    }
}
