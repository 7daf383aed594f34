//! The verifications of an address, and what accepts a delivery.

use crate::endpoints::NamedVerifications;
use crate::endpoints::verification::{
    DeliveryRequest, Digest, HandshakeAnswer, Refusal, UnfitHandshake, Verification, Verified,
};
use crate::ids::OrganizationId;
use crate::ingress::delivery::refusals::Refusals;
use crate::ingress::delivery::secret_places::SecretPlaces;
use crate::triggers::{Address, AddressNode, AddressTrigger, NodeVerification};
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum different verifications of one address. Nodes with further ones have no endpoint.
pub(super) const MAX_VERIFICATIONS: usize = 16;

/// Bytes that are hashed before other requests of the worker have a turn.
const BYTES_PER_TURN: usize = 64 << 10;

/// Whether a node has an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeEndpoint {
    /// Its verification has this position.
    By(usize),
    /// Its verification is valid, but the address has too many others.
    TooMany,
    /// It has no valid verification.
    None,
}

/// The verifications of an address as they were when the delivery arrived.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Each once, in the order of their first nodes.
    verifications: Vec<Arc<Verification>>,
    /// One for each node of the address.
    of_nodes: Vec<NodeEndpoint>,
    /// Those of all nodes, since a request may carry the secrets of several.
    pub(super) secrets: SecretPlaces,
}

impl Candidates {
    pub(super) fn new(
        address: &Address,
        named: &NamedVerifications,
        organization: &OrganizationId,
    ) -> Self {
        let mut candidates = Self::default();
        for node in address.triggers.iter().flat_map(|trigger| &trigger.nodes) {
            let endpoint = match of_node(node, named, organization) {
                Some(verification) => candidates.add(verification),
                None => NodeEndpoint::None,
            };
            candidates.of_nodes.push(endpoint);
        }
        candidates
    }

    /// Adds the verification of a node.
    fn add(&mut self, verification: Arc<Verification>) -> NodeEndpoint {
        self.secrets.add(&verification);
        if let Some(at) = self.verifications.iter().position(|known| *known == verification) {
            return NodeEndpoint::By(at);
        }
        if self.verifications.len() == MAX_VERIFICATIONS {
            return NodeEndpoint::TooMany;
        }
        self.verifications.push(verification);
        NodeEndpoint::By(self.verifications.len() - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.verifications.is_empty()
    }

    /// The verification of a node that has an endpoint.
    pub(super) fn get(&self, endpoint: NodeEndpoint) -> Option<&Arc<Verification>> {
        let NodeEndpoint::By(position) = endpoint else { return None };
        self.verifications.get(position)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Verification>> {
        self.verifications.iter()
    }

    /// The workflows of the address, each with the endpoints of its nodes.
    pub(super) fn triggers<'a>(
        &'a self,
        address: &'a Address,
    ) -> impl Iterator<Item = (&'a AddressTrigger, &'a [NodeEndpoint])> {
        let mut rest = self.of_nodes.as_slice();
        address.triggers.iter().map(move |trigger| {
            let (own, others) = rest.split_at_checked(trigger.nodes.len()).unwrap_or_default();
            rest = others;
            (&**trigger, own)
        })
    }

    /// The answer to a handshake that is not signed.
    pub(super) fn unsigned_handshake(
        &self,
        request: &DeliveryRequest<'_>,
    ) -> Option<HandshakeAnswer> {
        self.iter().find_map(|verification| verification.unsigned_handshake(request))
    }

    /// Bound on the memory of one verification besides the body. They are computed one by one.
    pub(super) fn extra_bytes(&self, request: &DeliveryRequest<'_>) -> usize {
        self.iter().map(|each| each.extra_bytes(request)).max().unwrap_or_default()
    }

    /// Verifies a delivery by all of them. `Err` if none accepts it.
    pub(super) async fn verify(
        &self,
        request: &DeliveryRequest<'_>,
        now: SystemTime,
    ) -> Result<Accepted, Refusals> {
        let mut accepted = Vec::new();
        let mut refusals = Refusals::default();
        for (position, verification) in self.iter().enumerate() {
            if position > 0 {
                tokio::task::yield_now().await;
            }
            match verify(verification, request, now).await {
                Ok(verified) => accepted.push(AcceptedBy {
                    position,
                    verification: Arc::clone(verification),
                    verified,
                }),
                Err(refusal) => refusals.add(verification, refusal),
            }
        }
        if accepted.is_empty() { Err(refusals) } else { Ok(Accepted { accepted, refusals }) }
    }
}

/// Verifies a delivery by one verification, and yields while a large body is hashed.
async fn verify(
    verification: &Verification,
    request: &DeliveryRequest<'_>,
    now: SystemTime,
) -> Result<Verified, Refusal> {
    let mut checking = verification.begin(request, now)?;
    while checking.advance(BYTES_PER_TURN) {
        tokio::task::yield_now().await;
    }
    checking.finish()
}

/// The verification of a node; `None` if the node has no endpoint.
fn of_node(
    node: &AddressNode,
    named: &NamedVerifications,
    organization: &OrganizationId,
) -> Option<Arc<Verification>> {
    match &node.verification {
        NodeVerification::Described(verification) => Some(Arc::clone(verification)),
        NodeVerification::Named(name) => named.get(name, organization),
        NodeVerification::Malformed(_) | NodeVerification::None => None,
    }
}

/// One verification that accepts a delivery.
#[derive(Debug)]
struct AcceptedBy {
    position: usize,
    verification: Arc<Verification>,
    verified: Verified,
}

/// The verifications that accept a delivery. There is at least one.
#[derive(Debug)]
pub(super) struct Accepted {
    accepted: Vec<AcceptedBy>,
    /// Why the others refuse it.
    pub(super) refusals: Refusals,
}

impl Accepted {
    /// Whether the verification of a node accepts the delivery.
    pub(super) fn is_at(&self, endpoint: NodeEndpoint) -> bool {
        self.accepted.iter().any(|accepted| endpoint == NodeEndpoint::By(accepted.position))
    }

    /// The first verification that accepts. It decides the status of the answer.
    pub(super) fn first(&self) -> &Verification {
        &self.accepted.first().expect("there is at least one").verification
    }

    /// Whether the sender has proved that it knows a secret.
    pub(super) fn proves_secret(&self) -> bool {
        self.accepted.iter().any(|accepted| accepted.verification.asks_for_secret())
    }

    /// The answer to a signed handshake, if the delivery is one.
    pub(super) fn handshake(
        &self,
        request: &DeliveryRequest<'_>,
    ) -> Option<Result<HandshakeAnswer, UnfitHandshake>> {
        let answers = self
            .accepted
            .iter()
            .filter_map(|by| by.verification.signed_handshake(request, &by.verified));
        answers.reduce(Result::or)
    }

    /// Looks for ids of the delivery in a body that was compressed when it was verified.
    pub(super) fn read_ids(&mut self, decoded: &DeliveryRequest<'_>) {
        for by in &mut self.accepted {
            if let Some(id) = by.verification.id_in_body(decoded) {
                by.verified.delivery_id = Some(id);
            }
        }
    }

    /// The id of the delivery, with the digest of the verification that it belongs to. Of several,
    /// it is the one with the lowest digest, whatever the order of the nodes is.
    pub(super) fn delivery_id(&self) -> Option<(&Digest, &str)> {
        let ids = self.accepted.iter().filter_map(|AcceptedBy { verified, .. }| {
            Some((&verified.digest, verified.delivery_id.as_deref()?))
        });
        ids.min_by_key(|(digest, _)| *digest.as_bytes())
    }
}
