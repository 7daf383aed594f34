//! The page of metrics, made once for all who ask at one time.

use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A page takes a millisecond to make. If each of many connections had one of its own, health checks would wait for all
/// of them.
#[derive(Debug, Default)]
pub struct MetricsPage {
    /// Numbers what happens: who asks, and what is made.
    next: AtomicU64,
    /// The last page, and the number at which it was begun.
    last: Mutex<Option<(u64, Bytes)>>,
}

impl MetricsPage {
    /// A page that is no older than this call.
    pub(super) async fn get(&self, render: impl FnOnce() -> String) -> Bytes {
        let asked = self.next.fetch_add(1, Ordering::Relaxed);
        // All connections whose requests have arrived ask before a page is made.
        tokio::task::yield_now().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, page)) = &*last
            && *begun > asked
        {
            return page.clone();
        }
        let begun = self.next.fetch_add(1, Ordering::Relaxed);
        let page = Bytes::from(render());
        *last = Some((begun, page.clone()));
        page
    }
}
