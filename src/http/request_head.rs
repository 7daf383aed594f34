//! Rejects heads that hyper accepts and RFC 9112 forbids, and computes the memory of a head.
//!
//! If two servers disagree on the host of a request or on where it ends, a request can be hidden in
//! another (smuggling). `tests/it/http/malformed.rs` pins what hyper itself rejects, and how it
//! handles a `Content-Length` together with a `Transfer-Encoding`.

use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Version};

/// Bytes of memory that a header field needs besides its name and value, for its entry in the map
/// and for the spare capacity of the map.
const FIELD_BYTES: usize = 128;

/// The approximate memory of a head, in bytes.
pub(crate) fn bytes(head: &Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields = head.headers.iter();
    fields.fold(target, |sum, (name, value)| sum + name.as_str().len() + value.len() + FIELD_BYTES)
}

/// Whether a head must be rejected and its connection closed.
pub(crate) fn is_malformed(head: &Parts) -> bool {
    // HTTP/2 uses neither of the two fields and has its own framing.
    head.version <= Version::HTTP_11
        && !(has_valid_host(head) && has_valid_transfer_encoding(&head.headers))
}

/// Requires exactly one valid `Host`; HTTP/1.0 may omit it.
fn has_valid_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => head.version < Version::HTTP_11,
        (Some(host), None) => is_plain_host(host.as_bytes()) || is_valid_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a host is a DNS name or an IPv4 address without a port, or empty. Most are, and this
/// check needs neither a parser nor memory.
fn is_plain_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

fn is_valid_host(host: &[u8]) -> bool {
    Authority::try_from(host).is_ok_and(|authority| !authority.as_str().contains('@'))
}

/// Accepts no `Transfer-Encoding`, or `chunked` alone. hyper requires only that the last coding is
/// `chunked`, and returns a body that is still in the other codings.
fn has_valid_transfer_encoding(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(encoding), None) => encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plain_host_is_valid(host in "[a-z0-9.:@%\\[\\]_-]{1,12}") {
            let host = host.as_bytes();
            prop_assert!(!is_plain_host(host) || is_valid_host(host));
        }
    }

    #[test]
    fn a_host_may_have_a_port_and_no_user() {
        let accepts = |host: &str| is_plain_host(host.as_bytes()) || is_valid_host(host.as_bytes());
        for host in ["", "a", "hooks.example.com", "192.0.2.1", "a:80", "[2001:db8::1]:80", "a_b"] {
            assert!(accepts(host), "{host}");
        }
        for host in ["u@a", "a b", "a/b", "[::1", "a:b:c", "\u{7f}"] {
            assert!(!accepts(host), "{host}");
        }
    }
}
