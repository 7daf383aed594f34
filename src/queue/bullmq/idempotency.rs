//! The `Idempotency-Key` of a request: the same key from the same organization adds its jobs once.
//!
//! The script writes the record of a key in the same step as the jobs. The record contains a
//! fingerprint of the body and the number of jobs.

use crate::ids::OrganizationId;
use crate::settings::Section;
use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use hex::encode as hex;
use std::time::Duration;

/// The longest accepted key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The section `[idempotency]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// How long a key is remembered, from a second to a year; zero: keys are ignored.
    pub(in crate::queue) ttl: Duration,
}

impl IdempotencySettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let ttl = section.duration("ttl", "24h", Duration::ZERO..=year);
        if !ttl.is_zero() && ttl < Duration::from_secs(1) {
            section.fault(
                "ttl",
                "expires before a caller can retry; use at least 1s, or 0s to ignore keys",
            );
        }
        Self { ttl }
    }
}

/// Digests of an idempotency key and of the body that was sent with it. Only digests are stored in
/// Redis, because both may be confidential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 of organization and key, in hex.
    pub(in crate::queue) key: String,
    /// SHA-256 of the decoded body, in hex.
    pub(in crate::queue) fingerprint: Bytes,
}

/// The error for a key that is empty, too long, or not printable ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("idempotency key is not 1 to {MAX_KEY_BYTES} bytes of printable ASCII")]
pub struct InvalidIdempotencyKey;

impl Idempotency {
    pub fn new(
        organization: &OrganizationId,
        key: &[u8],
        body: &[u8],
    ) -> Result<Self, InvalidIdempotencyKey> {
        let is_printable = key.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) || !is_printable {
            return Err(InvalidIdempotencyKey);
        }
        let mut context = Context::new(&SHA256);
        context.update(organization.canonical().as_bytes());
        // A key cannot contain this separator, so no other pair produces the same bytes.
        context.update(&[0]);
        context.update(key);
        Ok(Self {
            key: hex(context.finish().as_ref()),
            fingerprint: hex(digest(&SHA256, body).as_ref()).into(),
        })
    }
}

impl Idempotency {
    /// Bytes of the digests on the wire.
    pub(in crate::queue) fn bytes(&self) -> usize {
        self.key.len() + self.fingerprint.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idempotency(organization: &str, key: &str, body: &str) -> Idempotency {
        let organization = OrganizationId::new(organization).unwrap();
        Idempotency::new(&organization, key.as_bytes(), body.as_bytes()).unwrap()
    }

    #[test]
    fn the_key_depends_on_the_organization_and_the_fingerprint_on_the_body() {
        let first = idempotency("o", "k", "{}");
        assert_eq!(first, idempotency("o", "k", "{}"));
        assert_ne!(first.key, idempotency("o2", "k", "{}").key);
        assert_ne!(first.key, idempotency("o", "k2", "{}").key);
        assert_ne!(idempotency("ok", "k", "{}").key, idempotency("o", "kk", "{}").key);
        assert_eq!(first.key, idempotency("o", "k", "[]").key);
        assert_ne!(first.fingerprint, idempotency("o", "k", "[]").fingerprint);
        assert_eq!((first.key.len(), first.fingerprint.len()), (64, 64));
    }

    #[test]
    fn a_key_is_1_to_255_bytes_of_printable_ascii() {
        let organization = OrganizationId::new("o").unwrap();
        let is_valid = |key: &[u8]| Idempotency::new(&organization, key, b"{}").is_ok();
        assert!(is_valid(b"a b~!") && is_valid(&[b'x'; 255]));
        assert!(!is_valid(b"") && !is_valid(&[b'x'; 256]));
        assert!(!is_valid(b"a\tb") && !is_valid("ä".as_bytes()) && !is_valid(b"\x7f"));
    }
}
