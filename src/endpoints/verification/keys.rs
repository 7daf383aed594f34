//! Secrets and public keys.

use crate::endpoints::verification::members::Malformed;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;

/// Base64 with or without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// HMAC keys shorter than this are warned of.
pub(super) const SHORT_KEY: usize = 16;

/// How a secret, or a signature, is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Text,
    Hex,
    Base64,
}

impl Encoding {
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Text => String::from_utf8_lossy(bytes).into_owned(),
            Self::Hex => hex::encode(bytes),
            Self::Base64 => base64::engine::general_purpose::STANDARD.encode(bytes),
        }
    }

    pub(super) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Text => Some(text.as_bytes().to_vec()),
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => BASE64.decode(text).ok(),
        }
    }
}

/// The bytes of a secret, which are never printed.
#[derive(Clone)]
pub(super) struct SecretBytes {
    bytes: Vec<u8>,
    /// What is compared, so that neither the content nor the length decides how long that takes.
    digest: Digest,
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl SecretBytes {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let digest = digest(&SHA256, &bytes);
        Self { bytes, digest }
    }

    /// The bytes themselves, for what computes with them.
    pub(super) fn reveal(&self) -> &[u8] {
        &self.bytes
    }

    /// Compares in a time that depends on no content, nor on the secret's length.
    pub(super) fn equals(&self, given: &[u8]) -> bool {
        self.has_digest(&digest(&SHA256, given))
    }

    fn has_digest(&self, digest: &Digest) -> bool {
        verify_slices_are_equal(self.digest.as_ref(), digest.as_ref()).is_ok()
    }
}

/// The last secret of a list that equals what is given. Every secret is compared.
pub(super) fn equal_secret(secrets: &[SecretBytes], given: &[u8]) -> Option<usize> {
    let digest = digest(&SHA256, given);
    let equal = secrets.iter().map(|secret| secret.has_digest(&digest));
    equal.enumerate().fold(None, |found, (index, is_equal)| is_equal.then_some(index).or(found))
}

/// The algorithm of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    Ed25519,
    P256,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    pub(super) curve: Curve,
    /// 32 bytes of Ed25519, or an uncompressed point of P-256.
    pub(super) bytes: Vec<u8>,
}

/// What is in front of the key in a `SubjectPublicKeyInfo`.
const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl PublicKey {
    /// Reads a key in PEM, base64 or hex: a `SubjectPublicKeyInfo` or the key itself.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bytes = key_bytes(text).ok_or("is not in PEM, base64 or hex")?;
        let (curve, key) = if let Some(key) = bytes.strip_prefix(&ED25519_INFO) {
            (Curve::Ed25519, key)
        } else if let Some(key) = bytes.strip_prefix(&P256_INFO) {
            (Curve::P256, key)
        } else if bytes.len() == 32 {
            (Curve::Ed25519, bytes.as_slice())
        } else {
            (Curve::P256, bytes.as_slice())
        };
        let is_valid = match curve {
            Curve::Ed25519 => key.len() == 32,
            Curve::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).is_ok(),
        };
        if !is_valid {
            return Err("is not a public key of Ed25519 or P-256".to_owned());
        }
        Ok(Self { curve, bytes: key.to_vec() })
    }
}

/// The bytes of a key in any of its notations.
fn key_bytes(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
        let body: String = body.split_ascii_whitespace().collect();
        return BASE64.decode(body).ok();
    }
    hex::decode(text).ok().or_else(|| BASE64.decode(text).ok())
}

/// What a delivery is checked with.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    None,
    Secrets(Vec<SecretBytes>),
    Public(Vec<PublicKey>),
}

impl Keys {
    pub(super) fn secrets(&self) -> &[SecretBytes] {
        if let Self::Secrets(secrets) = self { secrets } else { &[] }
    }

    pub(super) fn public(&self) -> &[PublicKey] {
        if let Self::Public(keys) = self { keys } else { &[] }
    }

    /// A number for each kind, for digests.
    pub(super) fn tag(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Secrets(_) => 1,
            Self::Public(_) => 2,
        }
    }

    /// The bytes of each key, for digests.
    pub(super) fn bytes(&self) -> Vec<&[u8]> {
        let secrets = self.secrets().iter().map(SecretBytes::reveal);
        secrets.chain(self.public().iter().map(|key| key.bytes.as_slice())).collect()
    }
}

/// Decodes secrets. The error names no content.
pub(super) fn secrets(
    texts: &[String],
    prefix: &str,
    encoding: Encoding,
) -> Result<Vec<SecretBytes>, Malformed> {
    let decode = |text: &String| {
        let text = text.strip_prefix(prefix).unwrap_or(text);
        match encoding.decode(text) {
            None => Err(Malformed::new("secret", "is not in the encoding of the scheme")),
            Some(bytes) if bytes.trim_ascii().is_empty() => {
                Err(Malformed::new("secret", "is empty or blank"))
            }
            Some(bytes) => Ok(SecretBytes::new(bytes)),
        }
    };
    texts.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    #[test]
    fn a_public_key_is_read_in_every_notation() {
        let ed25519 = [7_u8; 32];
        let info = [ED25519_INFO.as_slice(), &ed25519].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64.encode(&info)
        );
        for text in [
            hex::encode(ed25519),
            BASE64.encode(ed25519),
            hex::encode(&info),
            BASE64.encode(&info),
            pem,
        ] {
            let key = PublicKey::parse(&text).unwrap();
            assert_eq!((key.curve, key.bytes.as_slice()), (Curve::Ed25519, ed25519.as_slice()));
        }
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        for text in [hex::encode(point), BASE64.encode([P256_INFO.as_slice(), point].concat())] {
            let key = PublicKey::parse(&text).unwrap();
            assert_eq!((key.curve, key.bytes.as_slice()), (Curve::P256, point));
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let off_curve = hex::encode([&[4_u8][..], &[1; 64]].concat());
        let long = hex::encode([ED25519_INFO.as_slice(), &[7; 33]].concat());
        for text in ["", "x", "0102", "-----BEGIN PUBLIC KEY-----", &off_curve, &long] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_secret_is_compared_and_none_is_printed() {
        let secrets = ["one", "two"].map(|text| SecretBytes::new(text.into()));
        assert_eq!(equal_secret(&secrets, b"one"), Some(0));
        assert_eq!(equal_secret(&secrets, b"two"), Some(1));
        assert_eq!(equal_secret(&secrets, b"tw"), None);
        assert_eq!(equal_secret(&[], b""), None);
        assert_eq!(
            format!("{:?}", Keys::Secrets(secrets.to_vec())),
            "Secrets([[secret], [secret]])"
        );
    }
}
