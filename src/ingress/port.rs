//! What handles the requests of the ingress port.

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::http::client_address::ClientAddress;
use crate::ingress::body::BodyReader;
use crate::ingress::credential_fields::CredentialFields;
use crate::ingress::delivery::delivered::Delivered;
use crate::ingress::delivery::endpoints::Endpoints;
use crate::ingress::health::HealthCheck;
use crate::ingress::preview::Preview;
use crate::ingress::request_trace::Tracing;
use crate::ingress::response::Accepted;
use crate::metrics::Metrics;
use crate::queue::Queues;
use crate::triggers::TriggerIndex;
use std::sync::Arc;

/// The handler of the ingress port. All requests of a worker share it.
#[derive(Debug)]
pub struct Ingress {
    pub admission: Arc<Admission>,
    pub authenticator: Arc<Authenticator>,
    pub bodies: BodyReader,
    pub client_address: ClientAddress,
    pub credentials: CredentialFields,
    /// `None` unless `endpoints.enabled` is true.
    pub endpoints: Option<Endpoints>,
    /// `None` unless `server.health_path` is set.
    pub health: Option<HealthCheck>,
    pub metrics: Arc<Metrics>,
    pub queues: Queues,
    /// `None` unless requests are traced.
    pub tracing: Option<Tracing>,
    pub triggers: Arc<TriggerIndex>,
}

/// The result of a request that is not rejected.
pub(super) enum Success {
    Accepted(Accepted),
    Preview(Preview),
    Delivered(Delivered),
}

impl From<Delivered> for Success {
    fn from(delivered: Delivered) -> Self {
        Self::Delivered(delivered)
    }
}
