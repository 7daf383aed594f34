//! The `Host` values that the admin port accepts.
//!
//! A web page in an operator's browser can make its own host name resolve to this port (DNS
//! rebinding), and the browser then lets it read the answers. `Host` reveals such a page, because
//! it has that name: neither an address nor a configured name.

use crate::settings::Section;
use hyper::Request;
use hyper::header::HOST;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `admin.hosts`: names that are accepted besides addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let names: Vec<String> = section.value("hosts", Vec::new());
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            let message = format!(
                "{name:?} is not a host name; write it without scheme and port: \"hookgate\""
            );
            section.fault("hosts", message);
        }
        Self(names)
    }

    /// Whether all hosts of a request are accepted. A request without a host is accepted: HTTP/1.0
    /// has none, and every browser sends one.
    pub(super) fn allow<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let fields =
            request.headers().get_all(HOST).iter().map(hyper::header::HeaderValue::as_bytes);
        target.into_iter().chain(fields).all(|host| self.accepts(host))
    }

    fn accepts(&self, host: &[u8]) -> bool {
        let Some(host) = std::str::from_utf8(host).ok().and_then(without_port) else {
            return false;
        };
        if let Some(address) = host.strip_prefix('[') {
            return address.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        name.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|accepted| accepted.eq_ignore_ascii_case(name))
    }
}

/// Removes the port; `None` if what follows the host is not a port.
fn without_port(host: &str) -> Option<&str> {
    let end_of_address = host.rfind(']').unwrap_or_default();
    match host.rfind(':').filter(|colon| *colon >= end_of_address) {
        None => Some(host),
        Some(colon) => {
            let (name, port) = host.split_at_checked(colon)?;
            let is_port = port.bytes().skip(1).all(|byte| byte.is_ascii_digit());
            is_port.then_some(name)
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.ends_with('.') && name.bytes().all(is_allowed)
}
