//! The answer to a request to an endpoint.

use crate::endpoints::verification::{HandshakeAnswer, Status};
use crate::ids::WebhookId;
use crate::ingress::delivery::address_path::Action;
use crate::queue::Added;

/// The answer to a delivery that is not rejected.
#[derive(Debug)]
pub(in crate::ingress) enum Delivered {
    Enqueued {
        status: Status,
        webhook: WebhookId,
        added: Added,
    },
    Handshake(HandshakeAnswer),
    /// The address exists.
    Exists,
    /// The methods of the address.
    Methods,
}

impl Delivered {
    /// The answer to a request that delivers nothing.
    pub(super) fn without_delivery(action: Action) -> Option<Self> {
        match action {
            Action::Probe => Some(Self::Exists),
            Action::Options => Some(Self::Methods),
            Action::Deliver | Action::Preview => None,
        }
    }
}
