//! Which `Host` a request to the admin port may name.
//!
//! A web page in an operator's browser can point its own name to this port (DNS rebinding); the browser then lets it
//! read the answers. The name in `Host` gives such a page away: it is neither an address nor one that is listed.

use crate::settings::Section;
use hyper::Request;
use hyper::header::HOST;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `admin.hosts`: names that are accepted beside addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let names: Vec<String> = section.value("hosts", Vec::new());
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            let message =
                format!("{name:?} is not a name; write it without scheme and port: \"hookgate\"");
            section.fault("hosts", message);
        }
        Self(names)
    }

    /// Whether the request names only accepted hosts. Without any it is no browser's, and HTTP/1.0 has none.
    pub(super) fn allow<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let fields =
            request.headers().get_all(HOST).iter().map(hyper::header::HeaderValue::as_bytes);
        target.into_iter().chain(fields).all(|host| self.knows(host))
    }

    fn knows(&self, host: &[u8]) -> bool {
        let Some(host) = std::str::from_utf8(host).ok().and_then(without_port) else {
            return false;
        };
        if let Some(address) = host.strip_prefix('[') {
            return address.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        name.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// `None` if what follows the host is no port.
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
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.ends_with('.') && name.bytes().all(is_sign)
}
