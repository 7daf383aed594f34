//! Whether the control thread turns, as another thread sees it.

use crate::failpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const BEAT: Duration = Duration::from_secs(1);

/// So many beats are missed before the thread counts as standing still: half a minute.
const MOST_MISSED: u32 = 30;

/// Beats that are missed are counted by the thread that watches. When the machine or the whole process has been stopped for a
/// while, none was missed: neither thread has turned.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU32>);

impl Heartbeat {
    /// Beats on the thread that is watched. Never ends.
    pub async fn beat(self) {
        loop {
            failpoint::hold("control thread");
            self.0.store(0, Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Counts on another thread. Never ends.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(BEAT).await;
            self.miss();
        }
    }

    fn miss(&self) {
        if self.0.fetch_add(1, Ordering::Relaxed) == MOST_MISSED {
            tracing::error!("the control thread has not turned for 30 s, /livez fails");
        }
    }

    pub fn is_alive(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= MOST_MISSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn it_lives_until_more_than_thirty_beats_are_missed() {
        let heartbeat = Heartbeat::default();
        for _ in 0..MOST_MISSED {
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
