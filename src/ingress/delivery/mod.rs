//! Handles deliveries to endpoints: requests of senders that sign and have no credential.
//!
//! It shares admission, bodies, index, queue and answers with the route of webhooks.

pub(super) mod address_path;
pub(super) mod arrival;
mod candidates;
pub(super) mod delivered;
pub(super) mod endpoints;
mod preview;
mod refusals;
mod request_view;
mod secret_places;
mod started_workflows;
mod url;

use crate::admission::Permit;
use crate::endpoints::failures::EndpointKey;
use crate::endpoints::payload::PayloadPlan;
use crate::http::request_head;
use crate::http::unread_body::TrackedBody;
use crate::ingress::delivery::address_path::Action;
use crate::ingress::delivery::arrival::Delivery;
use crate::ingress::delivery::candidates::{Accepted, Candidates};
use crate::ingress::delivery::delivered::Delivered;
use crate::ingress::delivery::endpoints::Endpoints;
use crate::ingress::delivery::refusals::Refusals;
use crate::ingress::delivery::request_view::RequestView;
use crate::ingress::delivery::started_workflows::StartedWorkflows;
use crate::ingress::job_request::trace_context;
use crate::ingress::observation::Observation;
use crate::ingress::port::{Ingress, Success};
use crate::ingress::rejection::Rejection;
use crate::process::failpoint;
use crate::triggers::Address;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use std::sync::Arc;
use tokio::time::Instant;

impl Ingress {
    /// Handles a request to an endpoint up to its answer. Each step uses the result of the previous
    /// one.
    pub(super) async fn deliver(
        &self,
        delivery: Delivery<'_>,
        body: &mut TrackedBody,
        observation: &mut Observation<'_>,
    ) -> Result<Success, Rejection> {
        let Delivery { path, head, .. } = &delivery;
        observation.set_route(|| delivery.endpoints.route(path));
        let action = path.action(&head.method)?;
        let mut permit = self.admission.admit()?;
        if action == Action::Preview {
            return self.preview_address(&delivery, permit, observation);
        }
        permit.reserve_unverified(delivery.limited, request_head::bytes(head))?;
        let (address, candidates) = self.known_address(&delivery)?;
        observation.set_organization(&path.organization);
        if let Some(answer) = Delivered::without_delivery(action) {
            return Ok(answer.into());
        }
        let announced = self.bodies.check_head_of_any_type(&head.headers, body)?;
        let raw = self.bodies.read_raw(body, &announced, &mut permit).await;
        let raw = raw.inspect_err(|rejection| delivery.record_unread(rejection))?;
        failpoint::pass("request");
        let view = RequestView::new(&delivery);
        let request = view.with_body(&raw);
        if let Some(answer) = candidates.unsigned_handshake(&request) {
            return Ok(Delivered::Handshake(answer).into());
        }
        permit.reserve(candidates.extra_bytes(&request))?;
        let verified = candidates.verify(&request, delivery.received_at).await;
        let mut accepted = delivery.record(verified, &address, observation)?;
        let trace = trace_context(&head.headers);
        let is_authenticated = accepted.proves_secret();
        let trace = observation.continue_trace(trace, is_authenticated, delivery.received_at);
        permit.leave_unverified();
        let body = self.bodies.decode(raw, &announced, &mut permit).await?;
        let payload = payload(&head.headers, &body, &mut permit).await?;
        let decoded = view.with_body(&body);
        if let Some(answer) = accepted.handshake(&decoded) {
            return Ok(Delivered::Handshake(answer?).into());
        }
        if announced.is_encoded() {
            accepted.read_ids(&decoded);
        }
        permit.reserve_for_organization(&path.organization, request_head::bytes(head))?;
        let queue = self.queues.of(&path.organization, &permit);
        queue.admit(&mut permit)?;
        let started = StartedWorkflows::new(&delivery, &address, &candidates, &accepted, trace);
        let jobs = started.jobs(queue, &candidates.secrets, payload, body)?;
        let added = queue.enqueue(jobs, permit).await?;
        let (status, webhook) = (accepted.first().status(), path.webhook.clone());
        Ok(Delivered::Enqueued { status, webhook, added }.into())
    }

    /// The address of a delivery and its verifications, unless too many deliveries of this client
    /// have failed.
    fn known_address(
        &self,
        delivery: &Delivery<'_>,
    ) -> Result<(Arc<Address>, Candidates), Rejection> {
        let Delivery { endpoints: Endpoints { named, failures, .. }, path, limited, .. } = delivery;
        let address = self.triggers.address(&path.organization, &path.webhook)?;
        let known = address.and_then(|address| {
            let candidates = Candidates::new(&address, named, &path.organization);
            (!candidates.is_empty()).then_some((address, candidates))
        });
        let now = Instant::now();
        if known.is_some() {
            failures.admit(*limited, delivery.key(), now)?;
        } else {
            failures.admit_unknown(*limited, now)?;
            failures.unknown(*limited, now);
        }
        known.ok_or(Rejection::UnknownWebhook)
    }
}

impl Delivery<'_> {
    fn key(&self) -> EndpointKey {
        self.endpoints.failures.endpoint(&self.path.organization, &self.path.webhook)
    }

    /// Records that a body did not arrive, which counts as a failure: unverified deliveries hold a
    /// share of what is in flight.
    fn record_unread(&self, rejection: &Rejection) {
        if matches!(rejection, Rejection::RequestTimeout | Rejection::ClientClosed) {
            self.endpoints.failures.failed(self.limited, self.key(), Instant::now());
        }
    }

    /// Records the result of the verification, for the limit of failures, the access log and the
    /// preview of the address.
    fn record(
        &self,
        verified: Result<Accepted, Refusals>,
        address: &Address,
        observation: &mut Observation<'_>,
    ) -> Result<Accepted, Rejection> {
        let (failures, now) = (&self.endpoints.failures, Instant::now());
        let refusals = match &verified {
            Ok(accepted) => {
                if accepted.proves_secret() {
                    failures.accepted(self.limited, self.key(), now);
                }
                &accepted.refusals
            }
            Err(refusals) => {
                failures.failed(self.limited, self.key(), now);
                observation.set_refusals(refusals);
                refusals
            }
        };
        refusals.keep(address, self.received_at);
        verified.map_err(|refusals| refusals.rejection())
    }
}

/// The payload of a decoded body. Its memory counts against the permit.
async fn payload(
    headers: &HeaderMap,
    body: &Bytes,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    let mut types = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    // Two types are as good as none.
    let content_type = types.next().filter(|_| types.next().is_none());
    let plan = PayloadPlan::new(content_type, body.clone())?;
    // JSON is not copied.
    let is_copied = plan.bytes_at_most() > 0;
    permit.reserve(plan.bytes_at_most())?;
    let payload = plan.convert().await?;
    permit.resize(body.len() + if is_copied { payload.len() } else { 0 })?;
    Ok(payload)
}
