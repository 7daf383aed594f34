//! The verifications of an address, and what accepts a delivery.

use crate::endpoints::NamedVerifications;
use crate::endpoints::verification::{
    DeliveryRequest, Digest, HandshakeAnswer, Refusal, Verification, Verified,
};
use crate::ids::OrganizationId;
use crate::ingress::delivery::refusals::Refusals;
use crate::triggers::{Address, AddressNode, AddressTrigger, NodeVerification};
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum different verifications of one address. Nodes with further ones have no endpoint.
pub(super) const MAX_VERIFICATIONS: usize = 16;

/// Bytes that are hashed before other requests of the worker have a turn.
const BYTES_PER_TURN: usize = 64 << 10;

/// The verifications of an address as they were when the delivery arrived.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Each once, in the order of their first nodes.
    verifications: Vec<Arc<Verification>>,
    /// For each node of the address, the position of its verification; `None` if the node has no
    /// endpoint.
    of_nodes: Vec<Option<usize>>,
}

impl Candidates {
    pub(super) fn new(
        address: &Address,
        named: &NamedVerifications,
        organization: &OrganizationId,
    ) -> Self {
        let mut candidates = Self { verifications: Vec::new(), of_nodes: Vec::new() };
        for node in address.triggers.iter().flat_map(|trigger| &trigger.nodes) {
            let verification = of_node(node, named, organization);
            let position = verification.and_then(|verification| candidates.position(verification));
            candidates.of_nodes.push(position);
        }
        candidates
    }

    /// The position of a verification, which is added if there is room.
    fn position(&mut self, verification: Arc<Verification>) -> Option<usize> {
        let known = self.verifications.iter().position(|known| *known == verification);
        if known.is_none() && !self.is_full() {
            self.verifications.push(verification);
            return Some(self.verifications.len() - 1);
        }
        known
    }

    /// Whether there is no room for another verification.
    pub(super) fn is_full(&self) -> bool {
        self.verifications.len() == MAX_VERIFICATIONS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.verifications.is_empty()
    }

    /// The verification at a position.
    pub(super) fn get(&self, position: usize) -> Option<&Arc<Verification>> {
        self.verifications.get(position)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Verification>> {
        self.verifications.iter()
    }

    /// The workflows of the address, each with the positions of its nodes' verifications.
    pub(super) fn triggers<'a>(
        &'a self,
        address: &'a Address,
    ) -> impl Iterator<Item = (&'a AddressTrigger, &'a [Option<usize>])> {
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

    /// Verifies a delivery by all of them. `Err` if none accepts it.
    pub(super) async fn verify(
        &self,
        request: &DeliveryRequest<'_>,
        now: SystemTime,
    ) -> Result<Accepted, Refusals> {
        let mut accepted = Vec::new();
        let mut refusals = Refusals::default();
        for (position, verification) in self.iter().enumerate() {
            match verify(verification, request, now).await {
                Ok(verified) => accepted.push(ByOne {
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
struct ByOne {
    position: usize,
    verification: Arc<Verification>,
    verified: Verified,
}

/// The verifications that accept a delivery. There is at least one.
#[derive(Debug)]
pub(super) struct Accepted {
    accepted: Vec<ByOne>,
    /// Why the others refuse it.
    pub(super) refusals: Refusals,
}

impl Accepted {
    /// Whether the verification at this position accepts the delivery.
    pub(super) fn is_by(&self, position: usize) -> bool {
        self.accepted.iter().any(|accepted| accepted.position == position)
    }

    /// The first verification that accepts. It decides the status of the answer.
    pub(super) fn first(&self) -> &Verification {
        &self.accepted.first().expect("there is at least one").verification
    }

    /// Whether the sender has proved that it knows a secret.
    pub(super) fn proves_secret(&self) -> bool {
        self.accepted.iter().any(|accepted| accepted.verification.asks_for_secret())
    }

    /// The answer to a signed handshake.
    pub(super) fn handshake(&self, request: &DeliveryRequest<'_>) -> Option<HandshakeAnswer> {
        self.accepted
            .iter()
            .find_map(|by| by.verification.signed_handshake(request, &by.verified)?.ok())
    }

    /// The id of the delivery, with the digest of the verification that it belongs to. Of several,
    /// it is the one with the lowest digest, whatever the order of the nodes is.
    pub(super) fn delivery_id(&self) -> Option<(&Digest, &str)> {
        let ids = self.accepted.iter().filter_map(|ByOne { verified, .. }| {
            Some((&verified.digest, verified.delivery_id.as_deref()?))
        });
        ids.min_by_key(|(digest, _)| *digest.as_bytes())
    }
}
