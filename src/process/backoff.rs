//! Delays before another attempt.

use std::time::Duration;

/// An exponential backoff with jitter. Each wait lasts a random time between half of the current
/// delay and all of it, and the number of attempts has no limit.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl Backoff {
    /// The delay starts at `first` and doubles after each wait, up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Waits for the current delay and doubles it.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.next = (self.next * 2).min(self.longest);
    }

    /// Sets the delay back to the first one.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
