//! Keys that verify tokens, and the algorithms of each.

use crate::auth::jwt::token::{Token, TokenHeader};
use crate::settings::Secret;
use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use std::path::Path;

pub(super) const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The smallest supported RSA key, in bits. Smaller keys can be broken.
const MIN_RSA_BITS: usize = 2048;

/// The largest supported RSA key, in bits.
const MAX_RSA_BITS: usize = 8192;

/// Bytes of an uncompressed point on P-521. No supported algorithm uses this curve.
const P521_POINT: usize = 133;

/// A key that verifies tokens.
#[derive(Debug, Clone)]
pub(super) struct VerificationKey {
    /// The source and kind of the key, for messages.
    pub(super) name: String,
    /// The `kid`. A key with one verifies only tokens that have the same `kid` or none.
    pub(super) id: Option<String>,
    /// The algorithms that the key can verify; may be empty.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl VerificationKey {
    pub(super) fn from_secret(name: &str, secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.reveal().as_bytes());
        Self { name: name.to_owned(), id: None, algorithms: HMAC.to_vec(), decoding }
    }

    /// Whether the key may have signed a token with this header.
    pub(super) fn is_for(&self, header: &TokenHeader) -> bool {
        let id_fits = match (&self.id, &header.key_id) {
            (Some(id), Some(expected)) => id == expected,
            _ => true,
        };
        id_fits && self.algorithms.contains(&header.algorithm)
    }

    /// Whether the token has a valid signature by this key and algorithm.
    pub(super) fn has_signed(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let message = token.message.as_bytes();
        jsonwebtoken::crypto::verify(token.signature, message, &self.decoding, algorithm)
            .unwrap_or(false)
    }
}

/// Reads all public keys of a PEM file. Any block that is not one is an error, because a key that
/// is skipped silently would verify nothing.
pub(super) fn from_pem(pem: &[u8], path: &Path) -> Result<Vec<VerificationKey>, String> {
    let path = path.display();
    let pem = std::str::from_utf8(pem).unwrap_or_default();
    // jsonwebtoken reads some private keys as public keys that verify nothing.
    if pem.contains("PRIVATE KEY-----") {
        return Err(format!(
            "{path} has a private key, but only public keys are allowed; openssl pkey -pubout prints the public key"
        ));
    }
    let begins: Vec<usize> = pem.match_indices("-----BEGIN ").map(|(at, _)| at).collect();
    let ends = begins.iter().skip(1).copied().chain([pem.len()]);
    let blocks = begins.iter().zip(ends).filter_map(|(begin, end)| pem.get(*begin..end));
    let keys: Vec<VerificationKey> = blocks
        .map(|block| {
            let decoding = public_key(block)?;
            let KeyMaterial { kind, algorithms } = KeyMaterial::from_decoding_key(&decoding)?;
            let name = format!("auth.jwt.public_key_files {path} ({kind})");
            Ok(VerificationKey { name, id: None, algorithms: algorithms.to_vec(), decoding })
        })
        .collect::<Result<_, String>>()
        .map_err(|message| format!("{path} has {message}"))?;
    if keys.is_empty() {
        return Err(format!("{path} has no public key of RSA, EC or Ed25519 in PEM"));
    }
    Ok(keys)
}

fn public_key(block: &str) -> Result<DecodingKey, String> {
    let pem = block.as_bytes();
    DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|_| "a PEM block that is not an RSA, EC or Ed25519 public key".to_owned())
}

/// The kind of a key, and the algorithms that it supports.
#[derive(Debug)]
pub(super) struct KeyMaterial {
    /// The description of the key, for messages.
    pub(super) kind: String,
    pub(super) algorithms: &'static [Algorithm],
}

impl KeyMaterial {
    /// Parses the key in the same way as the verification, which does not report a key that it
    /// cannot parse. The error describes the key.
    pub(super) fn from_decoding_key(decoding: &DecodingKey) -> Result<Self, String> {
        let bytes = decoding.try_get_as_bytes().unwrap_or_default();
        match decoding.family() {
            AlgorithmFamily::Rsa => Self::from_rsa(decoding.kind()),
            AlgorithmFamily::Ec => Ok(Self::from_ec_point(bytes)),
            AlgorithmFamily::Ed if is_key(&ED25519, bytes) => {
                Ok(Self { kind: "an Ed25519 key".to_owned(), algorithms: &[Algorithm::EdDSA] })
            }
            AlgorithmFamily::Ed => Err("a broken Ed25519 key".to_owned()),
            AlgorithmFamily::Hmac => Ok(Self { kind: "a secret".to_owned(), algorithms: HMAC }),
        }
    }

    fn from_rsa(kind: &DecodingKeyKind) -> Result<Self, String> {
        let components = match kind {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                Some(RsaPublicKeyComponents { n: n.clone(), e: e.clone() })
            }
            DecodingKeyKind::SecretOrDer(der) => {
                PublicKey::from_der(der).ok().map(|key| RsaPublicKeyComponents::from(&key))
            }
        };
        let broken = || "a broken RSA key".to_owned();
        let components = components.ok_or_else(broken)?;
        let bits = bits(&components.n);
        match bits {
            ..MIN_RSA_BITS => Err(format!(
                "an RSA key of {bits} bits, which is too short; {MIN_RSA_BITS} are needed"
            )),
            _ if !is_exponent(&components.e)
                || components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).is_err() =>
            {
                Err(broken())
            }
            MIN_RSA_BITS..=MAX_RSA_BITS => {
                Ok(Self { kind: format!("an RSA key of {bits} bits"), algorithms: RSA })
            }
            _ => Ok(Self { kind: format!("an RSA key of {bits} bits"), algorithms: &[] }),
        }
    }

    fn from_ec_point(point: &[u8]) -> Self {
        let (curve, algorithms): (_, &[Algorithm]) = match point {
            _ if is_key(&ECDSA_P256_SHA256_FIXED, point) => ("P-256", &[Algorithm::ES256]),
            _ if is_key(&ECDSA_P384_SHA384_FIXED, point) => ("P-384", &[Algorithm::ES384]),
            _ if point.len() == P521_POINT => ("P-521", &[]),
            _ => ("a curve other than P-256 and P-384", &[]),
        };
        Self { kind: format!("an EC key on {curve}"), algorithms }
    }
}

fn is_key(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, bytes).is_ok()
}

/// Whether a number is a valid public exponent of RSA. The verification checks this only when
/// it has a signature, so it is checked here too.
fn is_exponent(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last % 2 == 1) && (2..=33).contains(&bits(number))
}

/// The number of bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}
