//! Work that takes longer than others on the thread may wait.

use std::panic::resume_unwind;

/// Runs work on a thread of its own, also when nobody waits for it any more. A panic there is one here.
pub(super) async fn background<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime has ended.
            Err(_) => std::future::pending().await,
        },
    }
}
