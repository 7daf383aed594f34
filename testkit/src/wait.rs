//! Waiting for a condition instead of for a time.

use std::time::Duration;

use super::process::PATIENCE;

const PAUSE: Duration = Duration::from_millis(15);

/// Asks repeatedly until the answer is `Some`; panics with `what` after [`PATIENCE`].
pub async fn until_some<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("waited {PATIENCE:?}, but not yet: {what}"))
}

/// Asks repeatedly until the answer is `true`; panics with `what` after [`PATIENCE`].
pub async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    until_some(what, async || ask().await.then_some(())).await;
}
