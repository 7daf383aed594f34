//! Counts each request once, writes its line of the access log, and ends its span.

use crate::http::peer::Peer;
use crate::ids::{OrganizationId, RequestId};
use crate::ingress::request_trace::{RequestEnd, RequestTrace};
use crate::metrics::{Metrics, Outcome};
use crate::queue::TraceContext;
use hyper::StatusCode;
use std::fmt::Display;
use std::time::SystemTime;
use tokio::time::Instant;
use tracing::Level;

/// The target of the access log: `telemetry.log = "info,hookgate::access=debug"` enables it.
const ACCESS: &str = "hookgate::access";

/// A request in flight. It is recorded when it is dropped. Without a call to [`Self::end`], its
/// outcome is that the caller closed the connection.
#[derive(Debug)]
pub(super) struct Observation<'a> {
    metrics: &'a Metrics,
    started: Instant,
    id: &'a RequestId,
    client: &'a Peer,
    /// Set only if the access log is enabled.
    organization: Option<OrganizationId>,
    /// Why a delivery is refused. Set only if the access log is enabled.
    refusals: Option<String>,
    outcome: Outcome,
    /// The status of the answer.
    status: Option<StatusCode>,
    matches: Option<usize>,
    /// `None` unless requests are traced. In a box, so that a request that is not pays for a pointer.
    trace: Option<Box<RequestTrace<'a>>>,
}

impl<'a> Observation<'a> {
    pub(super) fn begin(
        metrics: &'a Metrics,
        id: &'a RequestId,
        client: &'a Peer,
        trace: Option<Box<RequestTrace<'a>>>,
    ) -> Self {
        metrics.requests_in_flight.increment(1.0);
        Self {
            metrics,
            started: Instant::now(),
            id,
            client,
            organization: None,
            refusals: None,
            outcome: Outcome::ClientClosed,
            status: None,
            matches: None,
            trace,
        }
    }

    pub(super) fn set_organization(&mut self, organization: &OrganizationId) {
        if tracing::enabled!(target: ACCESS, Level::DEBUG) {
            self.organization = Some(organization.clone());
        }
        if let Some(trace) = &mut self.trace {
            trace.set_organization(organization);
        }
    }

    /// Sets the path of the route, with placeholders.
    pub(super) fn set_route(&mut self, route: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.set_route(route());
        }
    }

    /// Continues the trace of a caller. `is_authenticated` says whether its credential or signature
    /// was accepted. Returns what the jobs of the request continue.
    #[inline]
    pub(super) fn continue_trace(
        &mut self,
        context: Option<TraceContext>,
        is_authenticated: bool,
        received_at: SystemTime,
    ) -> Option<TraceContext> {
        match &mut self.trace {
            None => context,
            Some(trace) if is_authenticated => trace.continue_caller(context, received_at),
            Some(trace) => trace.jobs_context(context),
        }
    }

    pub(super) fn set_refusals(&mut self, refusals: &impl Display) {
        if tracing::enabled!(target: ACCESS, Level::DEBUG) {
            self.refusals = Some(refusals.to_string());
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
        let duration = self.started.elapsed();
        self.metrics.request(self.outcome).increment(1);
        self.metrics.request_duration.record(duration);
        self.metrics.requests_in_flight.decrement(1.0);
        tracing::debug!(
            target: ACCESS,
            request_id = self.id.as_str(),
            client = %self.client,
            organization = self.organization.as_ref().map(OrganizationId::as_str),
            status = self.status.map(|status| status.as_u16()),
            code = self.outcome.as_str(),
            matches = self.matches,
            refusals = self.refusals,
            microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        if let Some(trace) = self.trace.take() {
            trace.end(&RequestEnd {
                id: self.id,
                client: self.client,
                outcome: self.outcome,
                status: self.status,
                matches: self.matches,
                duration,
            });
        }
    }
}
