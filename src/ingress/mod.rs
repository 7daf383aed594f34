//! HTTP in, HTTP out: the life of a request.

mod activity;
mod answer_body;
mod body;
mod closing;
mod connection;
mod cut;
mod decoding;
mod encoding;
mod head;
mod invalid_json;
mod observation;
mod places;
mod preview;
mod rejection;
mod response;
mod route;
mod server;
mod tls;
mod unread;
mod webhook;

pub use body::{BodyReader, BodySettings};
pub use decoding::{Decoding, Undecodable};
pub use encoding::{Encoding, Encodings};
pub use invalid_json::{InvalidJson, Kind};
pub use places::Places;
pub use rejection::Rejection;
pub use route::{PREVIEW_PATH, Route, WEBHOOK_PATH};
pub use server::{Listener, ServerSettings, Service, serve};
pub use tls::{Tls, TlsSettings};
pub use webhook::{Webhook, WebhookError};

use crate::admission::Admission;
use crate::auth::{Authenticator, Caller};
use crate::failpoint;
use crate::ids::RequestId;
use crate::metrics::{Metrics, Outcome};
use crate::queue::Request as Enqueue;
use crate::queue::{Added, Idempotency, InvalidIdempotencyKey, Match, Queue, TraceContext};
use crate::triggers::TriggerIndex;
use answer_body::AnswerBody;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use observation::Observation;
use preview::Preview;
use response::{Accepted, X_REQUEST_ID};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;
use unread::{Reading, Rest};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a request comes to that is not refused.
enum Success {
    Accepted(Accepted),
    Preview(Preview),
}

/// What every request of a worker needs.
#[derive(Debug)]
pub struct Ingress {
    pub admission: Arc<Admission>,
    pub authenticator: Arc<Authenticator>,
    pub bodies: BodyReader,
    pub metrics: Arc<Metrics>,
    pub queue: Queue,
    pub triggers: Arc<TriggerIndex>,
}

/// What a request is answered, and what was not read of it by then.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<AnswerBody>,
    rest: Rest,
}

impl Ingress {
    /// Answers a request and counts how it ended.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let mut body = Reading::new(body);
        if head::is_malformed(&head) {
            return Answer { response: response::malformed(), rest: Rest::Large };
        }
        let id = RequestId::take_over_or_make(header(&head.headers, &X_REQUEST_ID));
        let mut observation = Observation::begin(&self.metrics, &id);
        // A panic is a fault of ours: it costs this request, not its connection.
        let accepted = self.accept(&head, &mut body, &id, &mut observation);
        let accepted = AssertUnwindSafe(accepted).catch_unwind().await;
        match accepted.unwrap_or(Err(Rejection::Internal)) {
            Ok(Success::Accepted(accepted)) => {
                self.count(accepted.added);
                let matched = Some(accepted.added.matched);
                observation.end(Outcome::Accepted, StatusCode::ACCEPTED, matched);
                Answer { response: response::accepted(&accepted, &id), rest: Rest::Nothing }
            }
            Ok(Success::Preview(preview)) => {
                observation.end(Outcome::Accepted, StatusCode::OK, Some(preview.matched_count));
                Answer { response: response::preview(preview, &id), rest: Rest::Nothing }
            }
            Err(rejection) => {
                observation.end(rejection.outcome(), rejection.status(), None);
                let rest = match Rest::of(&head, body, &rejection) {
                    Ok(rest) => rest,
                    Err(last) => Box::pin(last.rest()).await,
                };
                Answer { response: response::rejected(&rejection, &id), rest }
            }
        }
    }

    fn count(&self, added: Added) {
        if added.is_repeated {
            self.metrics.replayed.increment(1);
        } else if added.matched == 0 {
            self.metrics.unmatched.increment(1);
        }
    }

    /// The life of a request. Each step takes what the step before it returned.
    async fn accept(
        &self,
        head: &Parts,
        body: &mut Reading,
        id: &RequestId,
        observation: &mut Observation<'_>,
    ) -> Result<Success, Rejection> {
        let received_at = SystemTime::now();
        let route = Route::of(&head.method, head.uri.path())?;
        let mut permit = self.admission.admit()?;
        let authorization = values(&head.headers, &AUTHORIZATION);
        let caller = self.authenticator.authenticate(authorization, id)?;
        observation.caller(&caller);
        let trace = trace_context(&head.headers);
        let announced = self.bodies.announced(&head.headers, body)?;
        permit.take_share(caller.organization(), head::bytes(head))?;
        let body = self.bodies.read(body, announced, &mut permit).await?;
        let idempotency = self.idempotency(&head.headers, &caller, &body)?;
        failpoint::pass("request");
        let webhook = Webhook::parse(&body)?;
        drop(body);
        let enqueue = Enqueue {
            id,
            received_at,
            organization: caller.organization(),
            user: caller.user(),
            webhook: &webhook.id,
            payload: webhook.payload,
            trace,
            idempotency,
        };
        let jobs = self.triggers.matching(caller.organization(), &webhook.id, |triggers| {
            let matches = triggers
                .map(|trigger| Match { workflow: trigger.workflow, node_ids: trigger.node_ids });
            self.queue.prepare(&enqueue, matches)
        });
        drop(enqueue);
        let jobs = jobs??;
        if route == Route::Preview {
            // Refused as the webhook itself would be, if it would start too much.
            self.queue.check_room(&jobs, &permit)?;
            drop(jobs);
            let (organization, query) = (caller.organization(), head.uri.query());
            let preview = Preview::new(&self.triggers, organization, &webhook.id, query, permit)?;
            return Ok(Success::Preview(preview));
        }
        let added = self.queue.enqueue(jobs, permit).await?;
        Ok(Success::Accepted(Accepted { webhook: webhook.id, added }))
    }

    /// What the `Idempotency-Key` of a request comes to.
    fn idempotency(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Option<Idempotency>, InvalidIdempotencyKey> {
        let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
        let Some(key) = keys.next() else { return Ok(None) };
        // Of several, none says which.
        let key = keys.next().map_or(key.as_bytes(), |_| &[]);
        self.queue.idempotency(caller.organization(), key, body)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}

/// All lines of a field, in their order.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(&TRACEPARENT)?;
    TraceContext::new(values(headers, &TRACEPARENT), values(headers, &TRACESTATE))
}
