//! A token bucket for the rate of an organization (GCRA): one word of memory, and no lock.

use crate::atomic::{AtomicU64, Ordering};
use std::num::NonZeroU32;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// The average rate, and the burst that is allowed after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

impl Rate {
    /// The time in which `amount` refills.
    fn nanoseconds(self, amount: u64) -> u64 {
        amount.saturating_mul(SECOND / u64::from(self.per_second.get()))
    }

    /// The quota and the window in which it refills, for the `RateLimit-Policy` header. Windows are
    /// whole seconds. If the burst is not a multiple of the rate, it would show a wrong rate, so
    /// the rate of one second is returned.
    pub fn quota(self) -> (usize, Duration) {
        let (per_second, burst) = (self.per_second.get(), self.burst.get());
        let (quota, window) = match burst / per_second {
            window if window > 0 && burst.is_multiple_of(per_second) => (burst, window),
            _ => (per_second, 1),
        };
        (usize::try_from(quota).unwrap_or(usize::MAX), Duration::from_secs(window.into()))
    }
}

/// A bucket: the time when it is full again, in nanoseconds since the epoch of its owner.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes `amount`, or returns how long to wait for it. An amount above the burst is allowed if
    /// the bucket is full, and refills at the same rate.
    pub fn try_take(&self, rate: Rate, amount: usize, now: u64) -> Result<(), Duration> {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        let cost = rate.nanoseconds(amount);
        let capacity = rate.nanoseconds(rate.burst.get().into());
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(cost);
            let fits = next.saturating_sub(now) <= capacity;
            if !fits && full_at > now {
                let ready_at =
                    if cost > capacity { full_at } else { next.saturating_sub(capacity) };
                return Err(Duration::from_nanos(ready_at.saturating_sub(now)));
            }
            let exchanged =
                self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed);
            match exchanged {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }

    pub fn is_full(&self, now: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }

    /// Whether nothing can be taken now.
    pub fn is_empty(&self, rate: Rate, now: u64) -> bool {
        let capacity = rate.nanoseconds(rate.burst.get().into());
        let full_at = self.0.load(Ordering::Relaxed);
        full_at > now && (full_at - now).saturating_add(rate.nanoseconds(1)) > capacity
    }

    /// Fills the bucket.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).unwrap();
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    #[test]
    fn a_burst_is_allowed_at_once_and_the_rest_at_the_rate() {
        let (bucket, rate) = (Bucket::default(), rate(10, 3));
        let begin = 5 * SECOND;
        for _ in 0..3 {
            bucket.try_take(rate, 1, begin).unwrap();
        }
        assert_eq!(bucket.try_take(rate, 1, begin), Err(Duration::from_millis(100)));
        assert_eq!(bucket.try_take(rate, 2, begin), Err(Duration::from_millis(200)));
        bucket.try_take(rate, 1, begin + SECOND / 10).unwrap();
        assert!(bucket.try_take(rate, 1, begin + SECOND / 10).is_err());
        assert!(!bucket.is_full(begin + SECOND / 10));
        assert!(bucket.is_empty(rate, begin + SECOND / 10));
        assert!(!bucket.is_empty(rate, begin + SECOND / 5));
        assert!(bucket.is_full(begin + 2 * SECOND));
        bucket.reset();
        bucket.try_take(rate, 3, begin).unwrap();
    }

    #[test]
    fn an_amount_above_the_burst_needs_a_full_bucket_and_empties_it_for_longer() {
        let (bucket, rate) = (Bucket::default(), rate(10, 20));
        bucket.try_take(rate, 100, SECOND).unwrap();
        assert_eq!(bucket.try_take(rate, 100, SECOND), Err(Duration::from_secs(10)));
        assert_eq!(bucket.try_take(rate, 1, SECOND), Err(Duration::from_millis(8100)));
        bucket.try_take(rate, 1, 10 * SECOND).unwrap();
        assert_eq!(bucket.try_take(rate, 100, 11 * SECOND), Err(Duration::from_millis(100)));
        bucket.try_take(rate, 100, 12 * SECOND).unwrap();
    }

    #[test]
    fn a_quota_and_its_window_equal_the_rate() {
        assert_eq!(rate(1, 3).quota(), (3, Duration::from_secs(3)));
        assert_eq!(rate(4, 6).quota(), (4, Duration::from_secs(1)));
        assert_eq!(rate(4, 2).quota(), (4, Duration::from_secs(1)));
    }
}
