//! The metrics of callers' connections.

use crate::metrics::register::{register_counter, register_gauge};
use metrics::{Counter, Gauge};

/// Handles to the metrics of callers' connections.
#[derive(Debug)]
pub struct ConnectionMetrics {
    pub open: Gauge,
    pub evicted: Counter,
    pub refused: Counter,
    pub accept_errors: Counter,
    pub tls_handshake_errors: Counter,
    pub proxy_protocol_errors: Counter,
}

impl ConnectionMetrics {
    pub(super) fn register() -> Self {
        Self {
            open: register_gauge("hookgate_connections", "Open connections of callers."),
            evicted: register_counter(
                "hookgate_connections_evicted_total",
                "Connections without a request that were closed to make room for a new one.",
            ),
            refused: register_counter(
                "hookgate_connections_refused_total",
                "Connections closed at once because their address had reached server.max_connections_per_address.",
            ),
            accept_errors: register_counter(
                "hookgate_accept_errors_total",
                "Connections that could not be accepted.",
            ),
            tls_handshake_errors: register_counter(
                "hookgate_tls_handshake_errors_total",
                "Connections that ended before their TLS handshake was complete.",
            ),
            proxy_protocol_errors: register_counter(
                "hookgate_proxy_protocol_errors_total",
                "Connections closed because their peer is not in server.trusted_proxies, or because their PROXY protocol header was malformed or late.",
            ),
        }
    }
}
