//! The address of the client of a request: the peer of the connection, or what trusted proxies say.

use crate::http::forwarded::ForwardedField;
use crate::settings::{Networks, Section};
use hyper::HeaderMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How the address of a client is found: `server.trusted_proxies` and
/// `server.client_address_header`.
#[derive(Debug, Clone, Default)]
pub struct ClientAddress {
    /// `None`: no proxy is trusted, and the client is the peer.
    proxies: Option<TrustedProxies>,
}

#[derive(Debug, Clone)]
struct TrustedProxies {
    networks: Networks,
    field: ForwardedField,
}

impl ClientAddress {
    pub fn read(section: &mut Section<'_>) -> Self {
        let texts: Vec<String> = section.value("trusted_proxies", Vec::new());
        let header: String = section.value("client_address_header", "X-Forwarded-For".to_owned());
        let Some(field) = ForwardedField::from_name(&header) else {
            section.fault("client_address_header", "must be \"X-Forwarded-For\" or \"Forwarded\"");
            return Self::default();
        };
        let proxies = trusted_networks(section, &texts);
        Self { proxies: proxies.map(|networks| TrustedProxies { networks, field }) }
    }

    /// The address of the client of a request.
    ///
    /// If the peer is a trusted proxy, the entries of the header field are read from the right, and
    /// the client is the first address that is not a trusted proxy. An entry that is malformed or
    /// hides its address ends the search. The client is then the last address found: the proxy that
    /// wrote that entry. The header field of any other peer is ignored.
    #[inline]
    pub fn of(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        match &self.proxies {
            None => peer,
            Some(proxies) => proxies.client(headers, peer),
        }
    }

    /// The address by which limits count the deliveries of a client; `None`: by none. A peer with an
    /// internal address that is not trusted is most likely a proxy that is missing in
    /// `server.trusted_proxies`. Its address is that of all clients, so a limit would let one of
    /// them lock out the others.
    pub fn for_limits(&self, client: IpAddr, peer: IpAddr) -> Option<IpAddr> {
        let is_trusted = self.proxies.as_ref().is_some_and(|proxies| proxies.contain(peer));
        (is_trusted || !is_internal(peer)).then_some(client)
    }

    /// Whether any proxy is trusted.
    pub fn trusts_proxies(&self) -> bool {
        self.proxies.is_some()
    }
}

impl TrustedProxies {
    fn contain(&self, address: IpAddr) -> bool {
        self.networks.contain(address)
    }

    fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let mut client = peer;
        let mut addresses = self.field.addresses(headers);
        while self.contain(client)
            && let Some(Some(address)) = addresses.next()
        {
            client = address;
        }
        client
    }
}

/// The networks of `server.trusted_proxies`; `None` if there are none.
fn trusted_networks(section: &mut Section<'_>, texts: &[String]) -> Option<Networks> {
    let key = "trusted_proxies";
    if texts.iter().any(|text| text == "unix") {
        section.fault(key, "\"unix\" is not supported: callers connect over TCP only");
    } else if !texts.is_empty() {
        match Networks::parse(texts) {
            Ok(networks) => {
                if networks.include_everything() {
                    let message = "trusts every address: any caller can choose its client address";
                    section.warning(key, message);
                }
                return Some(networks);
            }
            Err(message) => section.fault(key, message),
        }
    }
    None
}

/// Whether an address is of this host or of a private network: loopback, private (RFC 1918, and
/// `fc00::/7`), link-local, or shared by a provider (100.64.0.0/10).
fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_own = address.is_loopback() || address.is_link_local();
            is_own || address.is_private() || is_shared || address == Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(address) => {
            let is_own = address.is_loopback() || address.is_unicast_link_local();
            is_own || address.is_unique_local() || address == Ipv6Addr::UNSPECIFIED
        }
    }
}
