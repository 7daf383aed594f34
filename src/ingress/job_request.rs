//! What a request and its matches give to the data of jobs.

use crate::queue::{HeaderFields, HttpHead, TraceContext, WorkflowMatch};
use crate::triggers::Trigger;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use std::net::IpAddr;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The header fields of a request.
#[derive(Debug)]
pub(super) struct RequestHeaders<'a>(pub(super) &'a HeaderMap);

impl HeaderFields for RequestHeaders<'_> {
    fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        self.0.get_all(name).iter().map(HeaderValue::as_bytes).for_each(visit);
    }
}

/// What the head of a request gives to its jobs.
pub(super) fn job_head<'a>(
    head: &'a Parts,
    client: Option<IpAddr>,
    headers: &'a RequestHeaders<'_>,
) -> HttpHead<'a> {
    HttpHead {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        client_address: client,
        headers,
    }
}

/// A workflow that a webhook starts, as the queue takes it.
pub(super) fn job_match<'a>(
    Trigger { workflow, node_ids, node_type, fields }: Trigger<'a>,
) -> WorkflowMatch<'a, impl AsRef<str>, impl Fn(usize) -> &'a str> {
    let field = move |number| fields.get(number).unwrap_or("null");
    WorkflowMatch { workflow, node_ids, node_type, field }
}

/// The trace that the jobs of a request continue.
pub(super) fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(&TRACEPARENT)?;
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    TraceContext::new(values(&TRACEPARENT), values(&TRACESTATE))
}
