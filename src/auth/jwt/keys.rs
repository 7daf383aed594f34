//! Keys that verify tokens, and by which algorithms each does.

use super::token::{Header, Token};
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

/// The sizes of RSA keys that verify anything, in bits. Shorter ones can be broken.
const SHORTEST_RSA: usize = 2048;
const LONGEST_RSA: usize = 8192;

/// The bytes of a point on P-521, of which no supported algorithm makes use.
const P521_POINT: usize = 133;

/// A key, and which tokens it is for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// For messages: where it is from, and of what kind.
    pub(super) name: String,
    /// If the key has one, only for tokens that name it or name none.
    pub(super) id: Option<String>,
    /// The algorithms by which it can verify; empty if there is none.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl Key {
    pub(super) fn from_secret(name: &str, secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.reveal().as_bytes());
        Self { name: name.to_owned(), id: None, algorithms: HMAC.to_vec(), decoding }
    }

    pub(super) fn is_for(&self, header: &Header) -> bool {
        let id_fits = match (&self.id, &header.key_id) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        id_fits && self.algorithms.contains(&header.algorithm)
    }

    /// Whether it has signed a token, by this algorithm.
    pub(super) fn has_signed(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let message = token.message.as_bytes();
        jsonwebtoken::crypto::verify(token.signature, message, &self.decoding, algorithm)
            .unwrap_or(false)
    }
}

/// Public keys in PEM: all of a file, for one that is not read would verify nothing.
pub(super) fn from_pem(pem: &[u8], path: &Path) -> Result<Vec<Key>, String> {
    let path = path.display();
    let text = std::str::from_utf8(pem).unwrap_or_default();
    // The library reads some of these as public keys, which then verify nothing.
    if text.contains("PRIVATE KEY-----") {
        return Err(format!(
            "{path} holds a private key, which does not belong here; openssl pkey -pubout prints the public one"
        ));
    }
    let begins: Vec<usize> = text.match_indices("-----BEGIN ").map(|(at, _)| at).collect();
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    let blocks = begins.iter().zip(ends).filter_map(|(begin, end)| text.get(*begin..end));
    let keys: Vec<Key> = blocks
        .map(|block| {
            let decoding = public_key(block)?;
            let Material { kind, algorithms } = Material::of(&decoding)?;
            let name = format!("auth.jwt.public_key_files {path} ({kind})");
            Ok(Key { name, id: None, algorithms: algorithms.to_vec(), decoding })
        })
        .collect::<Result<_, String>>()
        .map_err(|message| format!("{path} holds {message}"))?;
    if keys.is_empty() {
        return Err(format!("{path} is no public key of RSA, EC or Ed25519 in PEM"));
    }
    Ok(keys)
}

fn public_key(block: &str) -> Result<DecodingKey, String> {
    let pem = block.as_bytes();
    DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|_| "what is no public key of RSA, EC or Ed25519 in PEM".to_owned())
}

/// What a key is made of.
#[derive(Debug)]
pub(super) struct Material {
    /// For messages.
    pub(super) kind: String,
    pub(super) algorithms: &'static [Algorithm],
}

impl Material {
    /// Reads the key as its verification will, which says nothing of a key that it cannot read. An error says what the key
    /// is.
    pub(super) fn of(decoding: &DecodingKey) -> Result<Self, String> {
        let bytes = decoding.try_get_as_bytes().unwrap_or_default();
        match decoding.family() {
            AlgorithmFamily::Rsa => Self::of_rsa(decoding.kind()),
            AlgorithmFamily::Ec => Ok(Self::of_ec(bytes)),
            AlgorithmFamily::Ed if is_key(&ED25519, bytes) => {
                Ok(Self { kind: "an Ed25519 key".to_owned(), algorithms: &[Algorithm::EdDSA] })
            }
            AlgorithmFamily::Ed => Err("a broken Ed25519 key".to_owned()),
            AlgorithmFamily::Hmac => Ok(Self { kind: "a secret".to_owned(), algorithms: HMAC }),
        }
    }

    fn of_rsa(kind: &DecodingKeyKind) -> Result<Self, String> {
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
            ..SHORTEST_RSA => Err(format!(
                "an RSA key of {bits} bits, which is too short; {SHORTEST_RSA} are needed"
            )),
            _ if !is_exponent(&components.e)
                || components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).is_err() =>
            {
                Err(broken())
            }
            SHORTEST_RSA..=LONGEST_RSA => {
                Ok(Self { kind: format!("an RSA key of {bits} bits"), algorithms: RSA })
            }
            _ => Ok(Self { kind: format!("an RSA key of {bits} bits"), algorithms: &[] }),
        }
    }

    fn of_ec(point: &[u8]) -> Self {
        let (curve, algorithms): (_, &[Algorithm]) = match point {
            _ if is_key(&ECDSA_P256_SHA256_FIXED, point) => ("P-256", &[Algorithm::ES256]),
            _ if is_key(&ECDSA_P384_SHA384_FIXED, point) => ("P-384", &[Algorithm::ES384]),
            _ if point.len() == P521_POINT => ("P-521", &[]),
            _ => ("another curve than P-256 and P-384", &[]),
        };
        Self { kind: format!("an EC key on {curve}"), algorithms }
    }
}

fn is_key(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, bytes).is_ok()
}

/// Whether a number can be the public exponent of RSA, as the verification asks for only when it meets a signature.
fn is_exponent(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last % 2 == 1) && (2..=33).contains(&bits(number))
}

/// How many bits a number has that begins with its highest byte.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}
