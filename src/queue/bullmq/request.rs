//! A request whose jobs are to be added, as `ingress` describes it.

use crate::ids::{OrganizationId, RequestId, UserId, WebhookId};
use crate::queue::bullmq::idempotency::Idempotency;
use crate::queue::bullmq::trace::TraceContext;
use bytes::Bytes;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

/// A request whose jobs are to be added.
#[derive(Debug)]
pub struct EnqueueRequest<'a> {
    pub origin: Origin,
    pub id: &'a RequestId,
    pub received_at: SystemTime,
    pub organization: &'a OrganizationId,
    /// `None` if the caller is no user.
    pub user: Option<&'a UserId>,
    pub webhook: &'a WebhookId,
    /// The payload, in two pieces around the removed `webhookId`. That of a delivery is JSON of any
    /// kind, in one piece.
    pub payload: [Bytes; 2],
    /// The whole body, after decompression. That of a delivery need not be JSON.
    pub body: Bytes,
    pub head: HttpHead<'a>,
    pub trace: Option<TraceContext>,
    pub idempotency: Option<Idempotency>,
}

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// With a credential of Hookgate, and the id of the webhook in its body.
    Webhook,
    /// To the address of an endpoint.
    Delivery,
}

impl<'a> EnqueueRequest<'a> {
    /// A webhook that was received now, for tests and examples: nothing but a payload.
    pub fn of_payload(
        id: &'a RequestId,
        organization: &'a OrganizationId,
        webhook: &'a WebhookId,
        payload: Bytes,
    ) -> Self {
        let head = HttpHead {
            method: "POST",
            path: "/api/webhook/workflow",
            query: None,
            client_address: None,
            headers: &(),
        };
        Self {
            origin: Origin::Webhook,
            id,
            received_at: SystemTime::now(),
            organization,
            user: None,
            webhook,
            payload: [payload, Bytes::new()],
            body: Bytes::new(),
            head,
            trace: None,
            idempotency: None,
        }
    }

    pub(in crate::queue) fn payload_bytes(&self) -> usize {
        let [before, after] = &self.payload;
        before.len() + after.len()
    }

    /// The fewest bytes that the body takes in a job, as JSON or as one string.
    pub(in crate::queue) fn body_bytes(&self) -> usize {
        match self.origin {
            Origin::Webhook => self.body.len(),
            Origin::Delivery => self.body.len().min(self.payload_bytes()),
        }
    }
}

/// What the head of a request says. Templates decide which of it is read.
#[derive(Debug, Clone, Copy)]
pub struct HttpHead<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Without the question mark.
    pub query: Option<&'a str>,
    pub client_address: Option<IpAddr>,
    pub headers: &'a dyn HeaderFields,
}

/// The header fields of a request.
pub trait HeaderFields: fmt::Debug + Sync {
    /// Calls `visit` with each value of a field, in order. The name is in lower case.
    fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
}

/// No header fields.
impl HeaderFields for () {
    fn visit_values(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}
}

/// A workflow to start.
#[derive(Debug)]
pub struct WorkflowMatch<'a, W, F> {
    pub workflow: W,
    /// The ids of its matching nodes, as a JSON array.
    pub node_ids: &'a str,
    /// The type of the first matching node.
    pub node_type: &'a str,
    /// Returns the JSON of a kept field by its number in `TemplateFields`.
    pub field: F,
}
