//! Key pairs for tokens, generated in every test process.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::tokens::is_hmac;

/// A private key and its public half, as PEM.
#[derive(Debug)]
pub struct KeyPair {
    pub private_pem: String,
    pub public_pem: String,
}

impl KeyPair {
    /// A fresh pair for an algorithm other than HMAC.
    pub fn for_algorithm(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::ES256 => Self::ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => Self::ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EdDSA => Self::ed25519(),
            _ => Self::rsa(),
        }
    }

    pub fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key pair");
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("DER");
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("DER");
        Self::from_der(private.as_ref(), public.as_ref())
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).expect("a key pair");
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("DER");
        Self::from_der(pair.to_pkcs8v1().expect("DER").as_ref(), public.as_ref())
    }

    fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key pair");
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("DER");
        Self::from_der(pair.to_pkcs8v1().expect("DER").as_ref(), public.as_ref())
    }

    fn from_der(private: &[u8], public: &[u8]) -> Self {
        Self { private_pem: pem("PRIVATE KEY", private), public_pem: pem("PUBLIC KEY", public) }
    }

    /// The key that signs.
    pub fn encoding_key(&self, algorithm: Algorithm) -> EncodingKey {
        let pem = self.private_pem.as_bytes();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
            _ => EncodingKey::from_rsa_pem(pem),
        };
        key.expect("a generated key")
    }

    /// The public half as a JWK.
    pub fn jwk(&self, algorithm: Algorithm, id: &str) -> Value {
        let jwk = Jwk::from_encoding_key(&self.encoding_key(algorithm), algorithm).expect("a JWK");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!(id);
        jwk["use"] = json!("sig");
        jwk
    }
}

/// One key pair of each kind.
#[derive(Debug)]
pub struct KeyRing {
    rsa: KeyPair,
    p256: KeyPair,
    p384: KeyPair,
    ed25519: KeyPair,
}

impl KeyRing {
    pub fn new() -> Self {
        Self {
            rsa: KeyPair::rsa(),
            p256: KeyPair::for_algorithm(Algorithm::ES256),
            p384: KeyPair::for_algorithm(Algorithm::ES384),
            ed25519: KeyPair::for_algorithm(Algorithm::EdDSA),
        }
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &KeyPair)> {
        [("rsa", &self.rsa), ("p256", &self.p256), ("p384", &self.p384), ("ed", &self.ed25519)]
            .into_iter()
    }

    fn pair(&self, algorithm: Algorithm) -> &KeyPair {
        match algorithm {
            Algorithm::ES256 => &self.p256,
            Algorithm::ES384 => &self.p384,
            Algorithm::EdDSA => &self.ed25519,
            _ => &self.rsa,
        }
    }

    /// The key that signs by this algorithm.
    pub fn signing_key(&self, algorithm: Algorithm, secret: &str) -> EncodingKey {
        if is_hmac(algorithm) { hmac(secret) } else { self.pair(algorithm).encoding_key(algorithm) }
    }

    /// The JWK that verifies by this algorithm.
    pub fn jwk(&self, algorithm: Algorithm, secret: &str, id: &str) -> Value {
        if is_hmac(algorithm) {
            octet_jwk(secret, &format!("{algorithm:?}"), id)
        } else {
            self.pair(algorithm).jwk(algorithm, id)
        }
    }
}

/// The key that signs with a secret.
pub fn hmac(secret: &str) -> EncodingKey {
    EncodingKey::from_secret(secret.as_bytes())
}

/// A JWK set.
pub fn jwk_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// A symmetric key as a JWK.
pub fn octet_jwk(secret: &str, algorithm: &str, id: &str) -> Value {
    let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    json!({ "kty": "oct", "k": secret, "alg": algorithm, "kid": id, "use": "sig" })
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
