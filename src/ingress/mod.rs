//! HTTP in, HTTP out: the life of a request.

mod body;
mod connection;
mod cut;
mod observation;
mod preview;
mod rejection;
mod response;
mod route;
mod server;
mod webhook;

pub use rejection::Rejection;
pub use route::{PREVIEW_PATH, WEBHOOK_PATH};
pub use server::{Listener, ServerSettings, serve};
pub use webhook::{Webhook, WebhookError};

use crate::admission::Admission;
use crate::auth::{Authenticator, Caller};
use crate::ids::RequestId;
use crate::metrics::{Metrics, Outcome};
use crate::queue::Request as Enqueue;
use crate::queue::{Added, Idempotency, InvalidIdempotencyKey, Match, Queue, TraceContext};
use crate::triggers::TriggerIndex;
pub use body::BodySettings;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Request, Response};
use observation::Observation;
use preview::Preview;
use response::{Accepted, X_REQUEST_ID};
use route::Route;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

/// What a request comes to that is not refused.
enum Answer {
    Accepted(Accepted),
    Preview(Preview),
}

/// What every request of a worker needs.
#[derive(Debug)]
pub struct Ingress {
    pub admission: Arc<Admission>,
    pub authenticator: Arc<Authenticator>,
    pub body: BodySettings,
    pub metrics: Arc<Metrics>,
    pub queue: Queue,
    pub triggers: Arc<TriggerIndex>,
}

impl Ingress {
    /// Answers a request and counts how it ended.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let observation = Observation::begin(&self.metrics);
        let id = RequestId::take_over_or_make(header(&request, X_REQUEST_ID.as_str()));
        // A panic is a fault of ours: it costs this request, not its connection.
        let accepted = AssertUnwindSafe(self.accept(request, &id)).catch_unwind().await;
        let accepted = accepted.unwrap_or(Err(Rejection::Internal));
        match accepted {
            Ok(answer) => {
                observation.end(Outcome::Accepted);
                match answer {
                    Answer::Accepted(accepted) => {
                        self.count(accepted.added);
                        response::accepted(&accepted, &id)
                    }
                    Answer::Preview(preview) => response::preview(&preview, &id),
                }
            }
            Err(rejection) => {
                observation.end(rejection.outcome());
                response::rejected(&rejection, &id)
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
        request: Request<Incoming>,
        id: &RequestId,
    ) -> Result<Answer, Rejection> {
        let received_at = SystemTime::now();
        let route = Route::of(request.method(), request.uri().path())?;
        let mut permit = self.admission.admit()?;
        let caller = self.authenticator.authenticate(header(&request, AUTHORIZATION.as_str()))?;
        let trace = trace_context(&request);
        permit.take_share(caller.organization())?;
        let (head, body) = request.into_parts();
        let body = body::read(&head.headers, body, &self.body, &mut permit).await?;
        let idempotency = self.idempotency(&head.headers, &caller, &body)?;
        let webhook = Webhook::parse(&body)?;
        drop(body);
        if route == Route::Preview {
            let preview = Preview::of(&self.triggers, caller.organization(), &webhook.id)?;
            return Ok(Answer::Preview(preview));
        }
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
        let added = self.queue.enqueue(jobs, permit).await?;
        Ok(Answer::Accepted(Accepted { webhook: webhook.id, added }))
    }

    /// What the `Idempotency-Key` of a request comes to.
    fn idempotency(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Option<Idempotency>, InvalidIdempotencyKey> {
        let mut keys = headers.get_all("idempotency-key").iter();
        let Some(key) = keys.next() else { return Ok(None) };
        // Of several, none says which.
        let key = keys.next().map_or(key.as_bytes(), |_| &[]);
        self.queue.idempotency(caller.organization(), key, body)
    }
}

fn header<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a [u8]> {
    request.headers().get(name).map(hyper::header::HeaderValue::as_bytes)
}

fn trace_context(request: &Request<Incoming>) -> Option<TraceContext> {
    TraceContext::new(header(request, "traceparent")?, header(request, "tracestate"))
}
