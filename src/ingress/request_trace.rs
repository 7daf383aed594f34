//! The span of a request, by the semantic conventions of HTTP servers.
//!
//! Nothing that may be a secret is recorded: no header field, no query, and of paths only those of
//! the API. The address of an endpoint can be all that a sender must know.

use crate::http::peer::Peer;
use crate::ids::{OrganizationId, RequestId};
use crate::ingress::route::{PREVIEW_PATH, WEBHOOK_PATH};
use crate::metrics::Outcome;
use crate::queue::TraceContext;
use crate::traces::{Span, Tracer};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How the requests of a port are traced.
#[derive(Debug, Clone)]
pub struct Tracing {
    pub tracer: Arc<Tracer>,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// A request, while requests are traced.
#[derive(Debug)]
pub(super) struct RequestTrace<'a> {
    tracing: &'a Tracing,
    head: &'a Parts,
    peer: Peer,
    /// Set if this request is traced.
    span: Option<Box<Span>>,
    route: Option<Cow<'static, str>>,
    organization: Option<OrganizationId>,
}

/// How a request has ended.
#[derive(Debug)]
pub(super) struct RequestEnd<'a> {
    pub(super) id: &'a RequestId,
    pub(super) client: &'a Peer,
    pub(super) outcome: Outcome,
    pub(super) status: Option<StatusCode>,
    pub(super) matches: Option<usize>,
    pub(super) duration: Duration,
}

impl<'a> RequestTrace<'a> {
    /// Decides whether to trace the request, by the ratio.
    pub(super) fn begin(tracing: &'a Tracing, head: &'a Parts, peer: Peer) -> Self {
        let route = [WEBHOOK_PATH, PREVIEW_PATH].into_iter().find(|path| head.uri.path() == *path);
        let is_sampled = tracing.tracer.samples();
        let span = is_sampled.then(|| Span::of_request(&tracing.tracer, SystemTime::now()));
        Self {
            tracing,
            head,
            peer,
            span: span.map(Box::new),
            route: route.map(Cow::Borrowed),
            organization: None,
        }
    }

    /// Continues the trace of a caller whose credential or signature was accepted, and traces the
    /// request if the caller's span is sampled. Returns what the jobs continue.
    pub(super) fn continue_caller(
        &mut self,
        context: Option<TraceContext>,
        received_at: SystemTime,
    ) -> Option<TraceContext> {
        let caller = context.as_ref().and_then(TraceContext::caller);
        if self.span.is_none() && caller.is_some_and(|caller| caller.is_sampled) {
            self.span = Some(Box::new(Span::of_request(&self.tracing.tracer, received_at)));
        }
        if let (Some(span), Some(caller)) = (&mut self.span, caller) {
            span.continue_caller(&caller);
        }
        self.jobs_context(context)
    }

    /// What the jobs of the request continue: its own span, if it is traced.
    pub(super) fn jobs_context(&self, context: Option<TraceContext>) -> Option<TraceContext> {
        match &self.span {
            Some(span) => Some(TraceContext::of_span(span.as_parent(), context)),
            None => context,
        }
    }

    pub(super) fn set_organization(&mut self, organization: &OrganizationId) {
        self.organization = Some(organization.clone());
    }

    pub(super) fn set_route(&mut self, route: String) {
        self.route = Some(Cow::Owned(route));
    }

    pub(super) fn end(mut self, end: &RequestEnd<'_>) {
        let Some(mut span) = self.span.take() else { return };
        let method = known_method(&self.head.method);
        let name = if method == OTHER { "HTTP" } else { method };
        span.set_name(match &self.route {
            Some(route) => format!("{name} {route}"),
            None => name.to_owned(),
        });
        span.set("http.request.method", method.to_owned());
        span.set("url.scheme", self.tracing.scheme);
        if let Some(Cow::Borrowed(path)) = self.route {
            span.set("url.path", path);
        }
        if let Some(route) = self.route {
            span.set("http.route", route.into_owned());
        }
        if let Some(version) = version(self.head.version) {
            span.set("network.protocol.version", version);
        }
        for (key, peer) in [("client.address", end.client), ("network.peer.address", &self.peer)] {
            if let Some(address) = peer.ip() {
                span.set(key, address.to_string());
            }
        }
        span.set("hookgate.request_id", end.id.as_str().to_owned());
        if let Some(organization) = &self.organization {
            span.set("hookgate.organization", organization.as_str().to_owned());
        }
        if let Some(matches) = end.matches {
            span.set("hookgate.matches", i64::try_from(matches).unwrap_or(i64::MAX));
        }
        set_outcome(&mut span, end);
        span.end_after(end.duration);
    }
}

/// Only faults of the server make its span fail.
fn set_outcome(span: &mut Span, end: &RequestEnd<'_>) {
    if let Some(status) = end.status {
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.fail();
        }
    }
    if !matches!(end.outcome, Outcome::Accepted | Outcome::Handshake) {
        span.set("error.type", end.outcome.as_str());
    }
}

/// The attribute of a method that a caller has invented.
const OTHER: &str = "_OTHER";

fn known_method(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => method.as_str(),
        _ => OTHER,
    }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
