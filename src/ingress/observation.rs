//! Counting a request once, however it ends.

use crate::metrics::{Metrics, Outcome};
use tokio::time::Instant;

/// A request under way. One that is dropped without an end lost its caller.
#[derive(Debug)]
pub(super) struct Observation<'a> {
    metrics: &'a Metrics,
    begun: Instant,
    outcome: Outcome,
}

impl<'a> Observation<'a> {
    pub(super) fn begin(metrics: &'a Metrics) -> Self {
        metrics.requests_in_flight.increment(1.0);
        Self { metrics, begun: Instant::now(), outcome: Outcome::ClientClosed }
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        self.metrics.request(self.outcome).increment(1);
        self.metrics.request_duration.record(self.begun.elapsed());
        self.metrics.requests_in_flight.decrement(1.0);
    }
}
