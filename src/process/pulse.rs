//! Whether the worker threads make progress, for the watchdog of the service manager.
//!
//! Each worker beats by a timer of its own runtime, so requests cost nothing. Without a watchdog
//! there are no beats.

use crate::process::failpoint;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Looks that a worker may miss in a row.
const MAX_MISSED: u32 = 2;

/// The workers, with the number of looks since the last beat of each. One that has ended is gone.
#[derive(Debug, Clone, Default)]
pub struct Pulses(Arc<Mutex<Vec<Weak<AtomicU32>>>>);

/// Beats for one worker.
#[derive(Debug)]
pub struct Pulse {
    missed: Arc<AtomicU32>,
    interval: Duration,
}

impl Pulses {
    /// Adds a worker that beats in this interval.
    pub fn add(&self, interval: Duration) -> Pulse {
        let missed = Arc::new(AtomicU32::new(0));
        self.0.lock().push(Arc::downgrade(&missed));
        Pulse { missed, interval }
    }

    /// Looks at all workers; returns whether each one has beaten since the last few looks.
    pub fn look(&self) -> bool {
        let mut workers = self.0.lock();
        workers.retain(|worker| worker.strong_count() > 0);
        let worst = workers.iter().filter_map(Weak::upgrade);
        let worst = worst.map(|missed| missed.fetch_add(1, Ordering::Relaxed)).max();
        worst.is_none_or(|missed| missed <= MAX_MISSED)
    }
}

impl Pulse {
    /// Beats on the thread of the worker. Never returns.
    pub async fn beat(self) {
        loop {
            failpoint::hold("worker thread");
            self.missed.store(0, Ordering::Relaxed);
            tokio::time::sleep(self.interval).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    #[tokio::test]
    async fn one_worker_that_does_not_beat_is_noticed_until_it_ends() {
        let pulses = Pulses::default();
        assert!(pulses.look(), "no worker yet");
        let hour = Duration::from_secs(3600);
        let (alive, hanging) = (pulses.add(hour), pulses.add(hour));
        let beat = || alive.missed.store(0, Ordering::Relaxed);
        for _ in 0..=MAX_MISSED {
            assert!(pulses.look());
            beat();
        }
        assert!(!pulses.look());
        drop(hanging);
        assert!(pulses.look(), "a worker that has ended makes no progress");
        pulses.look();
        pulses.look();
        assert!(!pulses.look());
        let mut beats = pin!(alive.beat());
        assert!(beats.as_mut().now_or_never().is_none());
        assert!(pulses.look());
    }
}
