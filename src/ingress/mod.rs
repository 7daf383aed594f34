//! Handles webhook requests: authenticates, admits, reads, matches, enqueues and answers them.

mod answer_body;
mod body;
mod content_encoding;
mod credential_fields;
mod decompress;
mod delivery;
mod health;
mod job_request;
mod observation;
mod payload;
mod port;
mod preview;
mod rejection;
mod request_trace;
mod response;
mod route;
mod settings;
mod webhook;

pub use crate::ingress::answer_body::AnswerBody;
pub use crate::ingress::body::{BodyReader, BodySettings};
pub use crate::ingress::content_encoding::{ContentEncoding, ContentEncodings};
pub use crate::ingress::credential_fields::CredentialFields;
pub use crate::ingress::decompress::{Decoding, Undecodable};
pub use crate::ingress::delivery::endpoints::Endpoints;
pub use crate::ingress::health::HealthCheck;
pub use crate::ingress::port::Ingress;
pub use crate::ingress::rejection::Rejection;
pub use crate::ingress::request_trace::Tracing;
pub use crate::ingress::route::{PREVIEW_PATH, Route, WEBHOOK_PATH};
pub use crate::ingress::settings::ServerSettings;
pub use crate::ingress::webhook::{Webhook, WebhookError};
pub use crate::json::{InvalidJson, InvalidJsonKind};

use crate::auth::Caller;
use crate::http::handler::{Answer, Handler};
use crate::http::peer::Peer;
use crate::http::request_head;
use crate::http::unread_body::{RejectionCause, TrackedBody, UnreadBody};
use crate::ids::RequestId;
use crate::ingress::delivery::arrival::Delivery;
use crate::ingress::delivery::delivered::Delivered;
use crate::ingress::job_request::{RequestHeaders, job_head, job_match, trace_context};
use crate::ingress::observation::Observation;
use crate::ingress::port::Success;
use crate::ingress::preview::Preview;
use crate::ingress::request_trace::RequestTrace;
use crate::ingress::response::{Accepted, X_REQUEST_ID};
use crate::metrics::Outcome;
use crate::process::failpoint;
use crate::queue::{Added, EnqueueRequest, Idempotency, InvalidIdempotencyKey, Origin, Queue};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::SystemTime;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl Handler for Ingress {
    type Body = AnswerBody;

    /// Answers a request and records its outcome.
    async fn respond(&self, request: Request<Incoming>, peer: &Peer) -> Answer<AnswerBody> {
        let (head, body) = request.into_parts();
        let mut body = TrackedBody::new(body);
        if request_head::is_malformed(&head) {
            return Answer { response: response::malformed(), unread: UnreadBody::Large };
        }
        let id = RequestId::from_header_or_new(header(&head.headers, &X_REQUEST_ID));
        if let Some(health) = self.health.as_ref().filter(|health| health.is_at(head.uri.path())) {
            let response = health.answer(&head.method, &id);
            return Answer { response, unread: unread(&head, body, RejectionCause::Other).await };
        }
        let client = self.client_address.of(&head.headers, *peer);
        let tracing = self.tracing.as_ref();
        let trace = tracing.map(|tracing| Box::new(RequestTrace::begin(tracing, &head, *peer)));
        let mut observation = Observation::begin(&self.metrics, &id, &client, trace);
        // A panic is a bug. It fails this request, and the connection stays open.
        let accepted = {
            let parts = (&head, peer, &client);
            // Pinned where it is made: a move would copy its two kilobytes.
            let accepting = pin!(self.accept(parts, &mut body, &id, &mut observation));
            AssertUnwindSafe(accepting).catch_unwind().await
        };
        match accepted.unwrap_or(Err(Rejection::Internal)) {
            Ok(Success::Accepted(accepted)) => {
                self.count(accepted.added);
                let matched = Some(accepted.added.matched);
                observation.end(Outcome::Accepted, StatusCode::ACCEPTED, matched);
                Answer { response: response::accepted(&accepted, &id), unread: UnreadBody::Nothing }
            }
            Ok(Success::Preview(preview)) => {
                observation.end(Outcome::Accepted, StatusCode::OK, Some(preview.matched_count));
                let response = response::preview(preview.json, preview.permit, &id);
                Answer { response, unread: unread(&head, body, RejectionCause::Other).await }
            }
            Ok(Success::Delivered(delivered)) => {
                let response = self.answer_delivery(&delivered, &id, observation);
                Answer { response, unread: unread(&head, body, RejectionCause::Other).await }
            }
            Err(rejection) => {
                observation.end(rejection.outcome(), rejection.status(), None);
                let unread = unread(&head, body, rejection.body_cause()).await;
                let response = response::rejected(&rejection, &self.credentials, &id);
                Answer { response, unread }
            }
        }
    }
}

impl Ingress {
    fn answer_delivery(
        &self,
        delivered: &Delivered,
        id: &RequestId,
        observation: Observation<'_>,
    ) -> Response<AnswerBody> {
        let response = response::delivered(delivered, id);
        let (outcome, matched) = match delivered {
            Delivered::Enqueued { added, .. } => {
                self.count(*added);
                (Outcome::Accepted, Some(added.matched))
            }
            _ => (Outcome::Handshake, None),
        };
        observation.end(outcome, response.status(), matched);
        response
    }

    fn count(&self, added: Added) {
        if added.is_repeated {
            self.metrics.replayed.increment(1);
        } else if added.matched == 0 {
            self.metrics.unmatched.increment(1);
        }
    }

    /// Handles a request up to its answer. Each step uses the result of the previous one.
    async fn accept(
        &self,
        (head, peer, client): (&Parts, &Peer, &Peer),
        body: &mut TrackedBody,
        id: &RequestId,
        observation: &mut Observation<'_>,
    ) -> Result<Success, Rejection> {
        let received_at = SystemTime::now();
        let route = match Route::from_request(&head.method, head.uri.path()) {
            Err(Rejection::NotFound) => {
                let delivery = self.delivery((head, peer, client), id, received_at)?;
                // On the heap, so that a webhook reserves no memory for the state of a delivery.
                return Box::pin(self.deliver(delivery, body, observation)).await;
            }
            route => route?,
        };
        let mut permit = self.admission.admit()?;
        let credentials = self.credentials.values(&head.headers);
        let caller = self.authenticator.authenticate(credentials, id)?;
        observation.set_organization(caller.organization());
        let trace = trace_context(&head.headers);
        let trace = observation.continue_trace(trace, true, received_at);
        let announced = self.bodies.check_head(&head.headers, body)?;
        permit.reserve_for_organization(caller.organization(), request_head::bytes(head))?;
        let queue = self.queues.of(caller.organization(), &permit);
        queue.admit(&mut permit)?;
        let body = self.bodies.read(body, announced, &mut permit).await?;
        let idempotency = idempotency(queue, &head.headers, &caller, &body)?;
        failpoint::pass("request");
        let webhook = Webhook::parse(&body)?;
        let headers = RequestHeaders(&head.headers);
        let request = EnqueueRequest {
            origin: Origin::Webhook,
            id,
            received_at,
            organization: caller.organization(),
            user: Some(caller.user()),
            webhook: &webhook.id,
            payload: webhook.payload,
            body,
            head: job_head(head, client.ip(), &headers),
            trace,
            idempotency,
        };
        let jobs = self.triggers.matching(caller.organization(), &webhook.id, |triggers| {
            queue.prepare(&request, triggers.map(job_match))
        });
        drop(request);
        let jobs = jobs??;
        if route == Route::Preview {
            // A preview is rejected where the webhook itself would be, if its jobs exceed a limit.
            queue.check_job_bytes(&jobs, &permit)?;
            drop(jobs);
            let (organization, query) = (caller.organization(), head.uri.query());
            let preview = Preview::new(&self.triggers, organization, &webhook.id, query, permit)?;
            return Ok(Success::Preview(preview));
        }
        let added = queue.enqueue(jobs, permit).await?;
        Ok(Success::Accepted(Accepted { webhook: webhook.id, added }))
    }

    /// A request whose path is not that of a webhook. `Err` unless it is an endpoint's address.
    fn delivery<'a>(
        &'a self,
        (head, peer, client): (&'a Parts, &Peer, &Peer),
        id: &'a RequestId,
        received_at: SystemTime,
    ) -> Result<Delivery<'a>, Rejection> {
        let endpoints = self.endpoints.as_ref().ok_or(Rejection::NotFound)?;
        let path = endpoints.address_path(head.uri.path()).ok_or(Rejection::NotFound)?;
        let limited = self.client_address.for_limits(*client, *peer);
        Ok(Delivery { endpoints, path, head, client: client.ip(), limited, id, received_at })
    }
}

/// Reads the `Idempotency-Key` of a request; `None` without one.
fn idempotency(
    queue: &Queue,
    headers: &HeaderMap,
    caller: &Caller,
    body: &[u8],
) -> Result<Option<Idempotency>, InvalidIdempotencyKey> {
    let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    // Several keys are ambiguous: they are replaced by an empty key, which is invalid.
    let key = keys.next().map_or(key.as_bytes(), |_| &[]);
    queue.idempotency(caller.organization(), key, body)
}

/// The unread part of the body of a request that is answered.
async fn unread(head: &Parts, body: TrackedBody, cause: RejectionCause) -> UnreadBody {
    match UnreadBody::from_body(head, body, cause) {
        Ok(unread) => unread,
        Err(last_chunk) => Box::pin(last_chunk.into_unread()).await,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}
