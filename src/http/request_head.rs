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
        (Some(host), None) => {
            host.is_empty()
                || Authority::try_from(host.as_bytes())
                    .is_ok_and(|authority| !authority.as_str().contains('@'))
        }
        (Some(_), Some(_)) => false,
    }
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
