//! Detects from another thread whether the control thread is responsive.

use crate::process::failpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Interval between two beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Number of beats that the thread may miss before it counts as unresponsive: 30 s.
const MAX_MISSED: u32 = 30;

/// The number of beats that the control thread has missed in a row.
///
/// The watching thread counts them. While the machine or the whole process is suspended, neither
/// thread runs, so no beat is counted as missed.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU32>);

impl Heartbeat {
    /// Beats on the watched thread. Never returns.
    pub async fn beat(self) {
        loop {
            failpoint::hold("control thread");
            self.0.store(0, Ordering::Relaxed);
            tokio::time::sleep(BEAT_INTERVAL).await;
        }
    }

    /// Counts missed beats on another thread. Never returns.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(BEAT_INTERVAL).await;
            self.miss();
        }
    }

    fn miss(&self) {
        if self.0.fetch_add(1, Ordering::Relaxed) == MAX_MISSED {
            tracing::error!("control thread has been unresponsive for 30 s; /livez fails");
        }
    }

    pub fn is_alive(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= MAX_MISSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_thread_counts_as_alive_until_it_misses_more_than_thirty_beats() {
        let heartbeat = Heartbeat::default();
        for _ in 0..MAX_MISSED {
            assert!(heartbeat.is_alive());
            heartbeat.miss();
        }
        assert!(heartbeat.is_alive());
        heartbeat.miss();
        assert!(!heartbeat.is_alive());
        assert!(heartbeat.clone().beat().now_or_never().is_none());
        assert!(heartbeat.is_alive());
    }
}
