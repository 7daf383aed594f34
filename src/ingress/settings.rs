//! The section `[server]`.

use crate::http::client_address::ClientAddress;
use crate::http::closing::ConnectionLimits;
use crate::http::listen::ListenAddress;
use crate::http::proxied::MAX_OPENING;
use crate::http::tls::TlsSettings;
use crate::ingress::body::BodySettings;
use crate::ingress::health;
use crate::settings::Section;
use std::time::Duration;

/// The section `[server]`.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub listen: ListenAddress,
    /// Threads that serve requests; 0: one per available core.
    pub workers: usize,
    /// Maximum open connections of the whole process.
    pub max_connections: usize,
    /// Maximum open connections of one peer; 0: no bound.
    pub max_connections_per_address: usize,
    pub client_address: ClientAddress,
    /// The path of the health check; `None`: there is none.
    pub health_path: Option<String>,
    pub body: BodySettings,
    pub connection: ConnectionLimits,
    /// How long the port stays closed after the start while the process is not ready.
    pub start_timeout: Duration,
    /// From SIGTERM until the process stops accepting connections.
    pub drain_delay: Duration,
    /// From then until connections that are still open are closed.
    pub drain_timeout: Duration,
    /// `None`: HTTP/1.1 without TLS.
    pub tls: Option<TlsSettings>,
}

impl ServerSettings {
    /// The configured number of workers, or one per available core.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers == 0 { cores() } else { self.workers }
    }

    pub fn read(section: &mut Section<'_>) -> Self {
        let second = Duration::from_secs(1);
        let listen = ListenAddress::read(section);
        let client_address = ClientAddress::read(section);
        check_proxies(section, &listen, &client_address);
        Self {
            listen,
            workers: section.count("workers", 0, 0..=1024),
            max_connections: section.count("max_connections", 20_000, 1..=1_000_000),
            max_connections_per_address: section.count(
                "max_connections_per_address",
                0,
                0..=1_000_000,
            ),
            client_address,
            health_path: health::read_path(section),
            body: BodySettings::read(section),
            connection: ConnectionLimits {
                header_timeout: section.duration(
                    "header_timeout",
                    "10s",
                    second / 10..=600 * second,
                ),
                idle_timeout: section.duration("idle_timeout", "75s", second / 10..=3600 * second),
                max_age: section.duration("max_connection_age", "5m", second..=86_400 * second),
            },
            start_timeout: section.duration("start_timeout", "30s", Duration::ZERO..=3600 * second),
            drain_delay: section.duration("drain_delay", "0s", Duration::ZERO..=600 * second),
            drain_timeout: section.duration("drain_timeout", "30s", Duration::ZERO..=3600 * second),
            tls: TlsSettings::read(&mut section.section("tls")),
        }
    }

    /// Connections that a worker may have open beyond `max_connections`: those whose PROXY header it
    /// still reads.
    pub fn max_opening(&self) -> usize {
        if self.client_address.uses_proxy_protocol() { MAX_OPENING } else { 0 }
    }
}

/// Rejects settings by which every connection would be closed.
fn check_proxies(section: &mut Section<'_>, listen: &ListenAddress, proxies: &ClientAddress) {
    let is_unix = match listen {
        ListenAddress::Tcp(_) => false,
        ListenAddress::Unix(_) => true,
        // The service manager may pass a socket of either kind.
        ListenAddress::Activated => return,
    };
    if proxies.uses_proxy_protocol() && proxies.trusts_proxies() && proxies.trusts_none(is_unix) {
        let message = if is_unix {
            "closes every connection: trusted_proxies lacks \"unix\""
        } else {
            "closes every connection: trusted_proxies has no network"
        };
        section.fault("proxy_protocol", message);
    }
}
