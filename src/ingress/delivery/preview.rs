//! Reports what a delivery to an address would start, and why deliveries were refused.
//!
//! Callers authenticate as on the route of webhooks. An address of another organization does not
//! exist for them. The report has pages like the preview of a webhook.

use crate::admission::Permit;
use crate::http::request_head;
use crate::ingress::delivery::arrival::Delivery;
use crate::ingress::delivery::candidates::{Candidates, MAX_VERIFICATIONS, NodeEndpoint};
use crate::ingress::job_request::trace_context;
use crate::ingress::observation::Observation;
use crate::ingress::port::{Ingress, Success};
use crate::ingress::preview::{PAGE_BYTES, PAGE_WORKFLOWS, Preview, append_position, parse_after};
use crate::ingress::rejection::Rejection;
use crate::ingress::response::append;
use crate::triggers::{Address, AddressNode, AddressTrigger, LastRefusals, NodeVerification};
use serde::Serialize;

/// A node that accepts deliveries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TriggerRow<'a> {
    workflow_id: &'a str,
    node_id: &'a str,
    scheme: &'static str,
    /// The status of the answer to an accepted delivery.
    status: u16,
    last_refusal: Option<RefusalRow>,
    /// What a person should know about the verification, though it is valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
}

/// Why the last refused delivery was refused.
#[derive(Serialize)]
struct RefusalRow {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    /// RFC 3339.
    at: String,
}

/// A node that has no endpoint.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExcludedRow<'a> {
    workflow_id: &'a str,
    node_id: &'a str,
    reason: String,
}

/// The elements of the two lists as JSON.
#[derive(Default)]
struct Page {
    triggers: Vec<u8>,
    excluded: Vec<u8>,
    matched_count: usize,
    /// The last workflow, if more follow.
    next: Option<String>,
}

impl Ingress {
    pub(super) fn preview_address(
        &self,
        delivery: &Delivery<'_>,
        mut permit: Permit,
        observation: &mut Observation<'_>,
    ) -> Result<Success, Rejection> {
        let Delivery { path, head, id, .. } = delivery;
        let credentials = self.credentials.values(&head.headers);
        let caller = self.authenticator.authenticate(credentials, id)?;
        observation.continue_trace(trace_context(&head.headers), true, delivery.received_at);
        observation.set_organization(caller.organization());
        permit.reserve_for_organization(caller.organization(), request_head::bytes(head))?;
        if *caller.organization() != path.organization {
            return Err(Rejection::NotFound);
        }
        let address = self.triggers.address(&path.organization, &path.webhook)?;
        let page = Page::new(delivery, address.as_deref(), &parse_after(head.uri.query()));
        let age = self.triggers.freshness().age().unwrap_or_default();
        let mut json = Vec::with_capacity(page.triggers.len() + page.excluded.len() + 1024);
        json.extend_from_slice(br#"{"success":true,"data":{"webhookId":"#);
        append(&mut json, path.webhook.as_str());
        json.extend_from_slice(br#","triggers":["#);
        json.extend_from_slice(&page.triggers);
        json.extend_from_slice(br#"],"excluded":["#);
        json.extend_from_slice(&page.excluded);
        json.push(b']');
        append_position(&mut json, age, page.next.as_deref());
        json.extend_from_slice(b"}}");
        permit.resize(json.capacity())?;
        Ok(Success::Preview(Preview { matched_count: page.matched_count, json, permit }))
    }
}

impl Page {
    fn new(delivery: &Delivery<'_>, address: Option<&Address>, after: &str) -> Self {
        let mut page = Self::default();
        let Some(address) = address else { return page };
        let named = &delivery.endpoints.named;
        let candidates = Candidates::new(address, named, &delivery.path.organization);
        let triggers = candidates.triggers(address);
        let following = triggers.filter(|(trigger, _)| *trigger.workflow > *after);
        let mut last = None;
        for (count, (trigger, endpoints)) in following.enumerate() {
            let bytes = page.triggers.len() + page.excluded.len();
            if count == PAGE_WORKFLOWS || bytes >= PAGE_BYTES {
                page.next = last.map(str::to_owned);
                break;
            }
            page.add(&address.last_refusals, &candidates, (trigger, endpoints));
            last = Some(&*trigger.workflow);
        }
        page
    }

    fn add(
        &mut self,
        last_refusals: &LastRefusals,
        candidates: &Candidates,
        (trigger, endpoints): (&AddressTrigger, &[NodeEndpoint]),
    ) {
        let (workflow_id, before) = (&*trigger.workflow, self.triggers.len());
        for (node, endpoint) in trigger.nodes.iter().zip(endpoints) {
            let node_id = &*node.id;
            let Some(verification) = candidates.get(*endpoint) else {
                let row = ExcludedRow { workflow_id, node_id, reason: reason(node, *endpoint) };
                append_element(&mut self.excluded, &row);
                continue;
            };
            let last = last_refusals.get(verification.identity());
            let last_refusal = last.map(|last| RefusalRow {
                kind: last.refusal.kind.as_str(),
                part: last.refusal.part,
                at: humantime::format_rfc3339_seconds(last.at).to_string(),
            });
            let (scheme, status) = (verification.scheme(), verification.status().code());
            let warnings = verification.warnings();
            let row = TriggerRow { workflow_id, node_id, scheme, status, last_refusal, warnings };
            append_element(&mut self.triggers, &row);
        }
        self.matched_count += usize::from(self.triggers.len() > before);
    }
}

/// Why a node has no endpoint.
fn reason(node: &AddressNode, endpoint: NodeEndpoint) -> String {
    match &node.verification {
        _ if endpoint == NodeEndpoint::TooMany => {
            format!("the address has more than {MAX_VERIFICATIONS} different verifications")
        }
        NodeVerification::Malformed(malformed) => malformed.to_string(),
        // The name is not shown: it may be a secret at the wrong place.
        NodeVerification::Named(_) => {
            "the configuration has no verification of this name for this organization".to_owned()
        }
        NodeVerification::None | NodeVerification::Described(_) => {
            "no verification is set".to_owned()
        }
    }
}

fn append_element(list: &mut Vec<u8>, row: &impl Serialize) {
    if !list.is_empty() {
        list.push(b',');
    }
    append(list, row);
}
