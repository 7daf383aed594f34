//! Renders a page once for all simultaneous requests.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page, as it was last rendered. Rendering takes about a millisecond. If it ran for each of many
/// simultaneous requests, health checks would wait for all of them.
#[derive(Debug, Default)]
pub(super) struct SharedPage {
    /// The next number. Requests and renderings are numbered in one sequence.
    next: AtomicU64,
    /// The last page, and the number of its rendering.
    last: Mutex<Option<(u64, Bytes)>>,
}

impl SharedPage {
    /// Returns a page whose rendering began after this call.
    pub(super) async fn get(&self, render: impl FnOnce() -> String) -> Bytes {
        let requested = self.next.fetch_add(1, Ordering::Relaxed);
        // All requests that have arrived get a number before a page is rendered.
        tokio::task::yield_now().await;
        let mut last = self.last.lock();
        if let Some((rendered, page)) = &*last
            && *rendered > requested
        {
            return page.clone();
        }
        let rendered = self.next.fetch_add(1, Ordering::Relaxed);
        let page = Bytes::from(render());
        *last = Some((rendered, page.clone()));
        page
    }
}
