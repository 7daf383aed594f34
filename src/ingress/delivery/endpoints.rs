//! What deliveries need besides the parts that webhooks need too.

use crate::endpoints::failures::FailedVerifications;
use crate::endpoints::{EndpointsSettings, NamedVerifications};
use crate::ingress::delivery::address_path::AddressPath;
use crate::ingress::delivery::url::Urls;
use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// What deliveries need besides the parts that webhooks need too.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The prefix of every address.
    path: String,
    pub(super) delivery_ttl: Duration,
    pub(super) urls: Urls,
    pub(super) named: Arc<NamedVerifications>,
    pub(super) failures: Arc<FailedVerifications>,
}

impl Endpoints {
    /// `None` unless endpoints are enabled. `has_tls` says whether callers connect over TLS.
    pub fn new(
        settings: &EndpointsSettings,
        has_tls: bool,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        if !settings.enabled {
            return None;
        }
        let per_minute = settings.failed_verifications_per_minute;
        let failures = FailedVerifications::new(per_minute, Arc::clone(metrics));
        Some(Self {
            path: settings.path.clone(),
            delivery_ttl: settings.delivery_ttl,
            urls: Urls::new(settings.public_url.as_deref(), has_tls),
            named: Arc::clone(&settings.verifications),
            failures: Arc::new(failures),
        })
    }

    /// The address that a path names; `None` if it names none.
    pub(in crate::ingress) fn address_path(&self, path: &str) -> Option<AddressPath> {
        AddressPath::parse(&self.path, path)
    }

    /// The path of all addresses, with placeholders.
    pub(super) fn route(&self, path: &AddressPath) -> String {
        let rest = if path.is_preview() { "/preview" } else { "" };
        format!("{}/{{organization}}/{{webhookId}}{rest}", self.path)
    }
}
