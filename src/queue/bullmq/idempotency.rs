//! Requests that come again: the same `Idempotency-Key` from the same organization, or the same
//! delivery to an endpoint, adds its jobs once.
//!
//! The script writes the record of a request in the same step as the jobs. The record contains a
//! fingerprint and the number of jobs.

use crate::ids::{OrganizationId, WebhookId};
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

/// What makes requests repeats of one another, and for how long. Only digests are stored in Redis,
/// because keys, ids and bodies may be confidential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256, in hex: the end of the key of the record.
    pub(in crate::queue) key: String,
    /// A fingerprint in hex, and after a space the lifetime of the record in milliseconds. A repeat
    /// has the same fingerprint.
    pub(in crate::queue) fingerprint_and_lifetime: Bytes,
}

/// The fingerprint of every delivery: bodies are not compared.
const OF_DELIVERIES: &str = "0";

/// Begins what the key of a delivery is a digest of. No text in UTF-8 begins with the first byte, so
/// no `Idempotency-Key` has the same digest.
const DOMAIN_OF_DELIVERIES: &[u8] = b"\xffdelivery";

/// The error for a key that is empty, too long, or not printable ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("idempotency key is not 1 to {MAX_KEY_BYTES} bytes of printable ASCII")]
pub struct InvalidIdempotencyKey;

impl Idempotency {
    /// That of a request with an `Idempotency-Key`, whose repeats have the same body.
    pub fn of_key(
        organization: &OrganizationId,
        key: &[u8],
        body: &[u8],
        lifetime: Duration,
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
        Ok(Self::remembered(context, &hex(digest(&SHA256, body).as_ref()), lifetime))
    }

    /// That of a delivery with this id, whatever its body. `verification_digest` identifies the
    /// verification that has accepted it.
    pub fn of_delivery(
        organization: &OrganizationId,
        webhook: &WebhookId,
        verification_digest: &[u8; 32],
        delivery_id: &str,
        lifetime: Duration,
    ) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(DOMAIN_OF_DELIVERIES);
        let organization = organization.canonical();
        let parts: [&[u8]; 4] = [
            organization.as_bytes(),
            webhook.as_str().as_bytes(),
            verification_digest,
            delivery_id.as_bytes(),
        ];
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Self::remembered(context, OF_DELIVERIES, lifetime)
    }

    fn remembered(key: Context, fingerprint: &str, lifetime: Duration) -> Self {
        let lifetime = lifetime.as_millis().max(1);
        Self {
            key: hex(key.finish().as_ref()),
            fingerprint_and_lifetime: format!("{fingerprint} {lifetime}").into(),
        }
    }

    /// Bytes on the wire, without the prefix of keys.
    pub(in crate::queue) fn bytes(&self) -> usize {
        self.key.len() + self.fingerprint_and_lifetime.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn of_key(organization: &str, key: &str, body: &str) -> Idempotency {
        let organization = OrganizationId::new(organization).unwrap();
        Idempotency::of_key(&organization, key.as_bytes(), body.as_bytes(), HOUR).unwrap()
    }

    fn of_delivery(organization: &str, webhook: &str, digest: u8, id: &str) -> Idempotency {
        let organization = OrganizationId::new(organization).unwrap();
        let webhook = WebhookId::new(webhook).unwrap();
        Idempotency::of_delivery(&organization, &webhook, &[digest; 32], id, HOUR)
    }

    #[test]
    fn the_key_depends_on_the_organization_and_the_fingerprint_on_the_body() {
        let first = of_key("o", "k", "{}");
        assert_eq!(first, of_key("o", "k", "{}"));
        assert_ne!(first.key, of_key("o2", "k", "{}").key);
        assert_ne!(first.key, of_key("o", "k2", "{}").key);
        assert_ne!(of_key("ok", "k", "{}").key, of_key("o", "kk", "{}").key);
        assert_eq!(first.key, of_key("o", "k", "[]").key);
        assert_ne!(first.fingerprint_and_lifetime, of_key("o", "k", "[]").fingerprint_and_lifetime);
        let fingerprint_and_lifetime =
            std::str::from_utf8(&first.fingerprint_and_lifetime).unwrap();
        let (fingerprint, lifetime) = fingerprint_and_lifetime.split_once(' ').unwrap();
        assert_eq!((first.key.len(), fingerprint.len(), lifetime), (64, 64, "3600000"));
    }

    #[test]
    fn a_key_is_1_to_255_bytes_of_printable_ascii() {
        let organization = OrganizationId::new("o").unwrap();
        let is_valid = |key: &[u8]| Idempotency::of_key(&organization, key, b"{}", HOUR).is_ok();
        assert!(is_valid(b"a b~!") && is_valid(&[b'x'; 255]));
        assert!(!is_valid(b"") && !is_valid(&[b'x'; 256]));
        assert!(!is_valid(b"a\tb") && !is_valid("ä".as_bytes()) && !is_valid(b"\x7f"));
    }

    /// The digest is computed here by the rule, because records outlive a release.
    #[test]
    fn the_key_of_a_delivery_is_a_digest_of_its_parts_with_their_lengths() {
        let mut preimage = b"\xffdelivery".to_vec();
        let id = "evt_ä";
        for part in [b"org".as_slice(), b"wh", &[7; 32], id.as_bytes()] {
            preimage.extend((part.len() as u64).to_be_bytes());
            preimage.extend(part);
        }
        let delivery = of_delivery("org", "wh", 7, id);
        assert_eq!(delivery.key, hex(digest(&SHA256, &preimage).as_ref()));
        assert_eq!(delivery.fingerprint_and_lifetime, "0 3600000");
    }

    #[test]
    fn deliveries_are_the_same_only_if_all_their_parts_are() {
        let all = [
            of_delivery("o", "w", 1, "d"),
            of_delivery("o2", "w", 1, "d"),
            of_delivery("o", "w2", 1, "d"),
            of_delivery("o", "w", 2, "d"),
            of_delivery("o", "w", 1, "d2"),
            // Where one part ends and the next begins.
            of_delivery("ow", "d", 1, "d"),
            of_delivery("o", "w", 1, ""),
            of_delivery("o", "w", 1, "d\0"),
            // Not an `Idempotency-Key` either.
            of_key("o", "d", "{}"),
        ];
        let keys: std::collections::BTreeSet<&str> = all.iter().map(|each| &*each.key).collect();
        assert_eq!(keys.len(), all.len());
        let spelled = |organization| of_delivery(organization, "w", 1, "d");
        let (lower, upper) = ("64d2f9c5e8a1d4e001a0b1c3", "64D2F9C5E8A1D4E001A0B1C3");
        assert_eq!(spelled(lower), spelled(upper));
    }

    #[test]
    fn a_record_lives_for_a_millisecond_at_least() {
        let (organization, webhook) =
            (OrganizationId::new("o").unwrap(), WebhookId::new("w").unwrap());
        let delivery = |lifetime| {
            Idempotency::of_delivery(&organization, &webhook, &[0; 32], "d", lifetime)
                .fingerprint_and_lifetime
        };
        assert_eq!(delivery(Duration::ZERO), "0 1");
        assert_eq!(delivery(Duration::from_secs(1)), "0 1000");
    }
}
