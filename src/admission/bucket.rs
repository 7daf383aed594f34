//! How fast an organization may go (GCRA): one word of memory, and no lock.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// So many a second on average, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_second: NonZeroU32,
    pub(super) burst: NonZeroU32,
}

impl Rate {
    fn nanoseconds(self, amount: u64) -> u64 {
        amount.saturating_mul(SECOND / u64::from(self.per_second.get()))
    }

    /// The quota and the window in which it comes back. Windows are whole seconds: a burst that does not fill them
    /// would show another rate.
    pub(super) fn quota(self) -> (usize, Duration) {
        let (per_second, burst) = (self.per_second.get(), self.burst.get());
        let (quota, window) = match burst / per_second {
            window if window > 0 && burst.is_multiple_of(per_second) => (burst, window),
            _ => (per_second, 1),
        };
        (usize::try_from(quota).unwrap_or(usize::MAX), Duration::from_secs(window.into()))
    }
}

/// When the bucket is full again, in nanoseconds since a common beginning.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes `amount`, or says how long to wait for it. What is more than a burst is let through when the bucket is
    /// full, and takes as long to come back as any other.
    pub(super) fn take(&self, rate: Rate, amount: usize, now: u64) -> Result<(), Duration> {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        let price = rate.nanoseconds(amount);
        let room = rate.nanoseconds(rate.burst.get().into());
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(price);
            let is_room = next.saturating_sub(now) <= room;
            if !is_room && full_at > now {
                let enough = if price > room { full_at } else { next.saturating_sub(room) };
                return Err(Duration::from_nanos(enough.saturating_sub(now)));
            }
            let taken =
                self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed);
            match taken {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    pub(super) fn is_full(&self, now: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }

    /// Fills it.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).unwrap();
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_its_rate() {
        let (bucket, rate) = (Bucket::default(), rate(10, 3));
        let begin = 5 * SECOND;
        for _ in 0..3 {
            bucket.take(rate, 1, begin).unwrap();
        }
        assert_eq!(bucket.take(rate, 1, begin), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate, 2, begin), Err(Duration::from_millis(200)));
        bucket.take(rate, 1, begin + SECOND / 10).unwrap();
        assert!(bucket.take(rate, 1, begin + SECOND / 10).is_err());
        assert!(!bucket.is_full(begin + SECOND / 10));
        assert!(bucket.is_full(begin + 2 * SECOND));
        bucket.reset();
        bucket.take(rate, 3, begin).unwrap();
    }

    #[test]
    fn more_than_a_burst_waits_for_a_full_bucket_and_is_paid_for() {
        let (bucket, rate) = (Bucket::default(), rate(10, 20));
        bucket.take(rate, 100, SECOND).unwrap();
        assert_eq!(bucket.take(rate, 100, SECOND), Err(Duration::from_secs(10)));
        assert_eq!(bucket.take(rate, 1, SECOND), Err(Duration::from_millis(8100)));
        bucket.take(rate, 1, 10 * SECOND).unwrap();
        assert_eq!(bucket.take(rate, 100, 11 * SECOND), Err(Duration::from_millis(100)));
        bucket.take(rate, 100, 12 * SECOND).unwrap();
    }

    #[test]
    fn a_quota_shows_the_rate() {
        assert_eq!(rate(1, 3).quota(), (3, Duration::from_secs(3)));
        assert_eq!(rate(4, 6).quota(), (4, Duration::from_secs(1)));
        assert_eq!(rate(4, 2).quota(), (4, Duration::from_secs(1)));
    }
}
