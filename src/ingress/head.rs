//! What a head takes, and heads that hyper lets through and RFC 9112 does not.
//!
//! Where two readers of one connection disagree on whom a request is for or where it ends, a request
//! can be hidden in another (smuggling). What hyper refuses by itself, and what it does with a
//! `Content-Length` beside a `Transfer-Encoding`, is pinned by `tests/it/http/malformed.rs`.

use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Version};

/// Memory of a field of a head beside its own bytes: its place in the map, which has room for more.
const FIELD_BYTES: usize = 128;

/// About the memory that a head takes.
pub(super) fn bytes(head: &Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields = head.headers.iter();
    fields.fold(target, |sum, (name, value)| sum + name.as_str().len() + value.len() + FIELD_BYTES)
}

/// Whether a head must be refused, and its connection closed.
pub(super) fn is_malformed(head: &Parts) -> bool {
    // HTTP/2 has neither of the two fields, and a framing of its own.
    head.version <= Version::HTTP_11
        && !(has_sound_host(head) && has_sound_transfer_encoding(&head.headers))
}

/// One host, which 1.0 may leave out.
fn has_sound_host(head: &Parts) -> bool {
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

/// None, or `chunked` and nothing else: hyper asks only that the last one is `chunked`, and hands
/// over the body in whatever coding was under it.
fn has_sound_transfer_encoding(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(encoding), None) => encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}
