//! Waiting before another attempt.

use std::time::Duration;

/// Waits longer each time, at random between half and all of the span, and never gives up.
#[derive(Debug)]
pub struct Pause {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl Pause {
    /// The span is `first` to begin with and doubles up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.next = (self.next * 2).min(self.longest);
    }

    /// Begins again with the first span.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
