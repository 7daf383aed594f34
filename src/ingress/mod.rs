//! HTTP in, HTTP out: the life of a request.

mod body;
mod connection;
mod cut;
mod observation;
mod rejection;
mod response;
mod route;
mod server;
mod webhook;

pub use rejection::Rejection;
pub use route::WEBHOOK_PATH;
pub use server::{Listener, ServerSettings, serve};
pub use webhook::{Webhook, WebhookError};

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::ids::RequestId;
use crate::metrics::{Metrics, Outcome};
use crate::queue::{Match, Queue, Request as Enqueue, TraceContext};
use crate::triggers::TriggerIndex;
pub use body::BodySettings;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response};
use observation::Observation;
use response::{Accepted, X_REQUEST_ID};
use route::Route;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

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
            Ok(accepted) => {
                observation.end(Outcome::Accepted);
                response::accepted(&accepted, &id)
            }
            Err(rejection) => {
                observation.end(rejection.outcome());
                response::rejected(&rejection, &id)
            }
        }
    }

    /// The life of a request. Each step takes what the step before it returned.
    async fn accept(
        &self,
        request: Request<Incoming>,
        id: &RequestId,
    ) -> Result<Accepted, Rejection> {
        let received_at = SystemTime::now();
        let Route::Webhook = Route::of(request.method(), request.uri().path())?;
        let mut permit = self.admission.admit()?;
        let caller = self.authenticator.authenticate(header(&request, AUTHORIZATION.as_str()))?;
        let trace = trace_context(&request);
        let (head, body) = request.into_parts();
        let body = body::read(&head.headers, body, &self.body, &mut permit).await?;
        let webhook = Webhook::parse(&body)?;
        drop(body);
        let matching = self.triggers.matching(caller.organization(), &webhook.id);
        let triggers = matching.map_err(|_| Rejection::IndexUnavailable)?;
        let accepted = Accepted { webhook: webhook.id, matched: triggers.len() };
        if triggers.is_empty() {
            self.metrics.unmatched.increment(1);
            return Ok(accepted);
        }
        let enqueue = Enqueue {
            id,
            received_at,
            organization: caller.organization(),
            user: caller.user(),
            webhook: &accepted.webhook,
            payload: webhook.payload,
            trace,
        };
        let matches = triggers
            .iter()
            .map(|trigger| Match { workflow: &trigger.workflow, node_ids: &trigger.node_ids });
        self.queue.enqueue(enqueue, matches, permit).await?;
        Ok(accepted)
    }
}

fn header<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a [u8]> {
    request.headers().get(name).map(hyper::header::HeaderValue::as_bytes)
}

fn trace_context(request: &Request<Incoming>) -> Option<TraceContext> {
    TraceContext::new(header(request, "traceparent")?, header(request, "tracestate"))
}
