//! Counting a request once, however it ends, and its line in the log.

use crate::auth::Caller;
use crate::ids::{OrganizationId, RequestId};
use crate::metrics::{Metrics, Outcome};
use hyper::StatusCode;
use tokio::time::Instant;
use tracing::Level;

/// `telemetry.log = "info,hookgate::access=debug"` has a line for each request, and no other.
const ACCESS: &str = "hookgate::access";

/// A request under way. One that is dropped without an end lost its caller.
#[derive(Debug)]
pub(super) struct Observation<'a> {
    metrics: &'a Metrics,
    begun: Instant,
    id: &'a RequestId,
    /// Known only where requests are logged.
    organization: Option<OrganizationId>,
    outcome: Outcome,
    /// What the caller is told.
    status: Option<StatusCode>,
    matches: Option<usize>,
}

impl<'a> Observation<'a> {
    pub(super) fn begin(metrics: &'a Metrics, id: &'a RequestId) -> Self {
        metrics.requests_in_flight.increment(1.0);
        Self {
            metrics,
            begun: Instant::now(),
            id,
            organization: None,
            outcome: Outcome::ClientClosed,
            status: None,
            matches: None,
        }
    }

    pub(super) fn caller(&mut self, caller: &Caller) {
        if tracing::enabled!(target: ACCESS, Level::DEBUG) {
            self.organization = Some(caller.organization().clone());
        }
    }

    pub(super) fn end(mut self, outcome: Outcome, status: StatusCode, matches: Option<usize>) {
        self.outcome = outcome;
        self.status = Some(status);
        self.matches = matches;
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        self.metrics.request(self.outcome).increment(1);
        self.metrics.request_duration.record(duration);
        self.metrics.requests_in_flight.decrement(1.0);
        tracing::debug!(
            target: ACCESS,
            request_id = self.id.as_str(),
            organization = self.organization.as_ref().map(OrganizationId::as_str),
            status = self.status.map(|status| status.as_u16()),
            code = self.outcome.word(),
            matches = self.matches,
            microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
