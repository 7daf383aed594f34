//! The workflows that a delivery starts, and their jobs.

use crate::ingress::delivery::arrival::Delivery;
use crate::ingress::delivery::candidates::{Accepted, Candidates, NodeEndpoint};
use crate::ingress::delivery::endpoints::Endpoints;
use crate::ingress::delivery::secret_places::SecretPlaces;
use crate::ingress::job_request::RequestHeaders;
use crate::queue::{
    EnqueueError, EnqueueRequest, HeadersWithout, HttpHead, Idempotency, Jobs, Origin, Queue,
    TraceContext, WorkflowMatch,
};
use crate::triggers::{Address, AddressNode, AddressTrigger};
use bytes::Bytes;

/// The workflows with a node that accepts the delivery, in the order of their ids.
pub(super) struct StartedWorkflows<'a> {
    delivery: &'a Delivery<'a>,
    workflows: Vec<StartedWorkflow<'a>>,
    idempotency: Option<Idempotency>,
    /// What the jobs continue.
    trace: Option<TraceContext>,
}

struct StartedWorkflow<'a> {
    workflow: &'a str,
    /// The ids of the nodes that accept, as a JSON array.
    node_ids: String,
    /// The first of them.
    first: &'a AddressNode,
}

impl<'a> StartedWorkflows<'a> {
    pub(super) fn new(
        delivery: &'a Delivery<'a>,
        address: &'a Address,
        candidates: &'a Candidates,
        accepted: &Accepted,
        trace: Option<TraceContext>,
    ) -> Self {
        let started = |(trigger, endpoints): (&'a AddressTrigger, &[NodeEndpoint])| {
            let nodes = trigger.nodes.iter().zip(endpoints);
            let nodes = nodes.filter(|(_, endpoint)| accepted.is_at(**endpoint));
            let nodes = nodes.map(|(node, _)| node);
            let nodes: Vec<&AddressNode> = nodes.collect();
            let ids: Vec<&str> = nodes.iter().map(|node| &*node.id).collect();
            let node_ids = serde_json::to_string(&ids).expect("strings can be encoded as JSON");
            let first = *nodes.first()?;
            Some(StartedWorkflow { workflow: &trigger.workflow, node_ids, first })
        };
        Self {
            delivery,
            workflows: candidates.triggers(address).filter_map(started).collect(),
            idempotency: idempotency(delivery, accepted),
            trace,
        }
    }

    /// Encodes a job for each workflow.
    pub(super) fn jobs(
        self,
        queue: &Queue,
        secrets: &SecretPlaces,
        payload: Bytes,
        body: Bytes,
    ) -> Result<Jobs, EnqueueError> {
        let Delivery { path, head, id, received_at, client, .. } = self.delivery;
        let headers = RequestHeaders(&head.headers);
        let headers = HeadersWithout::new(&headers, &secrets.headers);
        let query = secrets.query_without(head.uri.query());
        let request = EnqueueRequest {
            origin: Origin::Delivery,
            id,
            received_at: *received_at,
            organization: &path.organization,
            user: None,
            webhook: &path.webhook,
            payload: [payload, Bytes::new()],
            body,
            head: HttpHead {
                method: head.method.as_str(),
                path: head.uri.path(),
                query: query.as_deref(),
                client_address: *client,
                headers: &headers,
            },
            trace: self.trace,
            idempotency: self.idempotency,
        };
        let matches = self.workflows.iter().map(|started| WorkflowMatch {
            workflow: started.workflow,
            node_ids: &started.node_ids,
            node_type: &started.first.node_type,
            field: |number| started.first.fields.texts().get(number).unwrap_or("null"),
        });
        queue.prepare(&request, matches)
    }
}

/// The record of a delivery; `None` if it has no id.
fn idempotency(delivery: &Delivery<'_>, accepted: &Accepted) -> Option<Idempotency> {
    let Delivery { endpoints: Endpoints { delivery_ttl, .. }, path, .. } = delivery;
    let (digest, id) = accepted.delivery_id()?;
    let (organization, webhook) = (&path.organization, &path.webhook);
    let digest = digest.as_bytes();
    Some(Idempotency::of_delivery(organization, webhook, digest, id, *delivery_ttl))
}
