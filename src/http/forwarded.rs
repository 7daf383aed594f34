//! The addresses that proxies add to a request, in `X-Forwarded-For` or in `Forwarded` (RFC 7239).
//!
//! Both fields are lists, and each proxy appends the address of its own peer. So they are read from
//! the right: what stands further to the left, which callers can choose, never changes how a part
//! to the right of it is read.

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName, HeaderValue};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Maximum entries that are read of one request. No request passes through more proxies.
const MAX_ENTRIES: usize = 64;

/// Maximum digits of a port.
const MAX_PORT_DIGITS: usize = 5;

/// The header field in which trusted proxies write addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardedField {
    XForwardedFor,
    Forwarded,
}

impl ForwardedField {
    /// The field with this name, in any case.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let is_named = |header: &HeaderName| name.eq_ignore_ascii_case(header.as_str());
        [Self::XForwardedFor, Self::Forwarded].into_iter().find(|field| is_named(&field.name()))
    }

    fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        }
    }

    /// The addresses of all lines from the right, at most [`MAX_ENTRIES`]; `None` for an entry that
    /// has no address or is malformed. Empty entries are left out, as RFC 9110 asks.
    pub(super) fn addresses(self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
        let lines = headers.get_all(self.name()).iter().rev().map(HeaderValue::as_bytes);
        let entries = lines.flat_map(entries).take(MAX_ENTRIES).map(<[u8]>::trim_ascii);
        entries.filter(|entry| !entry.is_empty()).map(move |entry| match self {
            Self::XForwardedFor => address(entry),
            Self::Forwarded => address_of_element(entry),
        })
    }
}

/// The entries of a list from the right. A comma in quotes is a part of its entry.
fn entries(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    list.rsplit(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    })
}

/// The address of an element such as `for="[2001:db8::1]:4711";proto=https`.
fn address_of_element(element: &[u8]) -> Option<IpAddr> {
    // No address, port or protocol needs an escape. Without escapes every quote begins or ends a
    // quoted string, which reading from the right relies on.
    if element.contains(&b'\\') {
        return None;
    }
    let mut is_quoted = false;
    let pairs = element.split(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b';' && !is_quoted
    });
    let mut found = None;
    for pair in pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at(equals);
        let value = unquoted(value.get(1..)?)?;
        if name.eq_ignore_ascii_case(b"for") && found.replace(address(value)?).is_some() {
            return None;
        }
    }
    found
}

/// The value of a pair without the quotes around it.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let value = match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"")?,
        None => value,
    };
    (!value.contains(&b'"')).then_some(value)
}

/// Reads an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`. IPv4 mapped into IPv6 is IPv4. Names such as `unknown` and
/// `_hidden` are no addresses.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (address.parse::<Ipv6Addr>().ok()?.to_canonical(), port)
    } else {
        let (address, port) = text.split_at(text.find(':')?);
        (address.parse::<Ipv4Addr>().ok()?.into(), port)
    };
    (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(address)
}

/// Whether a port is a number or, as in `Forwarded`, an identifier that hides it.
fn is_port(port: &str) -> bool {
    let is_hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match port.strip_prefix('_') {
        Some(hidden) => !hidden.is_empty() && hidden.bytes().all(is_hidden),
        None => {
            (1..=MAX_PORT_DIGITS).contains(&port.len())
                && port.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}
