//! The verifications of an address, and what accepts a delivery.

use crate::endpoints::NamedVerifications;
use crate::endpoints::verification::{
    DeliveryRequest, Digest, HandshakeAnswer, Refusal, Verification, Verified,
};
use crate::ids::OrganizationId;
use crate::ingress::delivery::refusals::Refusals;
use crate::triggers::{Address, AddressNode, NodeVerification};
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum different verifications of one address. Nodes with further ones have no endpoint.
pub(super) const MAX_VERIFICATIONS: usize = 16;

/// Bytes that are hashed before other requests of the worker have a turn.
const BYTES_PER_TURN: usize = 64 << 10;

/// The verifications of an address, each once.
#[derive(Debug)]
pub(super) struct Candidates(Vec<Arc<Verification>>);

impl Candidates {
    pub(super) fn new(
        address: &Address,
        named: &NamedVerifications,
        organization: &OrganizationId,
    ) -> Self {
        let mut candidates = Self(Vec::new());
        for node in address.triggers.iter().flat_map(|trigger| &trigger.nodes) {
            let Some(verification) = of_node(node, named, organization) else { continue };
            if !candidates.contain(&verification) && candidates.0.len() < MAX_VERIFICATIONS {
                candidates.0.push(verification);
            }
        }
        candidates
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contain(&self, verification: &Verification) -> bool {
        self.0.iter().any(|known| **known == *verification)
    }

    /// The verifications, in the order of their first nodes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Verification>> {
        self.0.iter()
    }

    /// The answer to a handshake that is not signed.
    pub(super) fn unsigned_handshake(
        &self,
        request: &DeliveryRequest<'_>,
    ) -> Option<HandshakeAnswer> {
        self.0.iter().find_map(|verification| verification.unsigned_handshake(request))
    }

    /// Verifies a delivery by all of them. `Err` if none accepts it.
    pub(super) async fn verify(
        &self,
        request: &DeliveryRequest<'_>,
        now: SystemTime,
    ) -> Result<Accepted, Refusals> {
        let mut accepted = Vec::new();
        let mut refusals = Refusals::default();
        for verification in &self.0 {
            match verify(verification, request, now).await {
                Ok(verified) => accepted.push((Arc::clone(verification), verified)),
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
pub(super) fn of_node(
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

/// The verifications that accept a delivery. There is at least one.
#[derive(Debug)]
pub(super) struct Accepted {
    accepted: Vec<(Arc<Verification>, Verified)>,
    /// Why the others refuse it.
    pub(super) refusals: Refusals,
}

impl Accepted {
    /// Whether the verification of a node accepts the delivery.
    pub(super) fn contain(&self, verification: &Verification) -> bool {
        self.accepted.iter().any(|(known, _)| **known == *verification)
    }

    /// The first verification that accepts. It decides the status of the answer.
    pub(super) fn first(&self) -> &Verification {
        let (verification, _) = self.accepted.first().expect("there is at least one");
        verification
    }

    /// Whether the sender has proved that it knows a secret.
    pub(super) fn proves_secret(&self) -> bool {
        self.accepted.iter().any(|(verification, _)| verification.asks_for_secret())
    }

    /// The answer to a signed handshake.
    pub(super) fn handshake(&self, request: &DeliveryRequest<'_>) -> Option<HandshakeAnswer> {
        self.accepted
            .iter()
            .find_map(|(verification, verified)| verification.signed_handshake(request, verified))
    }

    /// The id of the delivery, with the digest of the verification that it belongs to. Of several,
    /// it is the one with the lowest digest, whatever the order of the nodes is.
    pub(super) fn delivery_id(&self) -> Option<(&Digest, &str)> {
        let ids = self
            .accepted
            .iter()
            .filter_map(|(_, verified)| Some((&verified.digest, verified.delivery_id.as_deref()?)));
        ids.min_by_key(|(digest, _)| *digest.as_bytes())
    }
}
