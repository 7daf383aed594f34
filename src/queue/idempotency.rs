//! The `Idempotency-Key` of a request: the same key from the same organization adds its jobs once.
//!
//! The record that tells so is written by the script, in the same step as the jobs. It holds a
//! fingerprint of the body, and how many jobs there were.

use crate::hex::hex;
use crate::ids::OrganizationId;
use crate::settings::Section;
use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use std::time::Duration;

/// The longest key, in bytes (`contract.md` 5).
const MAX_KEY_BYTES: usize = 255;

/// The section `[idempotency]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// How long a key is remembered, a second to a year; zero: keys are ignored.
    pub(super) ttl: Duration,
}

impl IdempotencySettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let ttl = section.duration("ttl", "24h", Duration::ZERO..=year);
        if !ttl.is_zero() && ttl < Duration::from_secs(1) {
            section.fault(
                "ttl",
                "is over before anybody can send again; give it a second at least, or 0s",
            );
        }
        Self { ttl }
    }
}

/// An idempotency key and what it was sent with, as digests: both may say what is nobody's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Of organization and key, in hex.
    pub(super) key: String,
    /// Of the decoded body, in hex.
    pub(super) fingerprint: Bytes,
}

/// A key that is empty, too long, or holds something else than printable ASCII.
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
        context.update(organization.as_str().as_bytes());
        // No key holds it, so that no other pair comes to the same bytes.
        context.update(&[0]);
        context.update(key);
        Ok(Self {
            key: hex(context.finish().as_ref()),
            fingerprint: hex(digest(&SHA256, body).as_ref()).into(),
        })
    }
}

impl Idempotency {
    pub(super) fn bytes(&self) -> usize {
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
    fn a_key_belongs_to_its_organization_and_a_fingerprint_to_the_body() {
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
    fn keys_are_printable_ascii_of_some_length() {
        let organization = OrganizationId::new("o").unwrap();
        let take = |key: &[u8]| Idempotency::new(&organization, key, b"{}").is_ok();
        assert!(take(b"a b~!") && take(&[b'x'; 255]));
        assert!(!take(b"") && !take(&[b'x'; 256]));
        assert!(!take(b"a\tb") && !take("ä".as_bytes()) && !take(b"\x7f"));
    }
}
