//! Reads JWK sets: their usable keys, and why each other entry is skipped.

use crate::auth::jwt::keys::{KeyMaterial, VerificationKey};
use crate::auth::jwt::members::JsonMembers;
use crate::auth::key_encoding::{KeyDigest, digest_of};
use crate::files::text_file;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse, RSAKeyParameters,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The minimum bytes of a symmetric key, the size of an HS256 digest (RFC 7518 3.2). A shorter key
/// can be guessed, so it is skipped.
const MIN_OCTETS: usize = 32;

/// Maximum number of reported warnings about entries.
const MAX_WARNINGS: usize = 10;

/// Maximum number of characters of a key id that are shown.
const MAX_SHOWN_ID: usize = 64;

/// Maximum number of keys of a set from a URL, each of which may be tried on a token.
const MAX_FETCHED_KEYS: usize = 64;

/// Where a JWK set comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    File(PathBuf),
    /// The URL may contain credentials, so it is not named here.
    Url,
}

/// A JWK set and its source.
#[derive(Debug, Clone)]
pub struct JwkSet {
    pub(super) source: JwksSource,
    /// The digest of the set's JSON, to detect changes.
    pub(in crate::auth) digest: KeyDigest,
    pub(super) keys: Vec<VerificationKey>,
    /// The number of entries that cannot be read or used.
    pub skipped: u64,
    /// The first warnings about entries.
    notes: Vec<String>,
    /// The number of further warnings.
    more_notes: usize,
}

impl JwkSet {
    /// Reads the file; `None` if the path is empty.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let json = text_file::read(path).map_err(|error| error.to_string());
        let source = JwksSource::File(path.to_owned());
        let set = json.and_then(|json| Self::parse(&json, source));
        set.map(Some).map_err(|message| format!("{}: {message}", path.display()))
    }

    /// Parses a set. A set without entries is valid: the operator has removed all keys. A set with
    /// entries of which none is usable is an error.
    pub fn parse(json: &[u8], source: JwksSource) -> Result<Self, String> {
        let entries = entries(json).ok_or("not a JWK set")?;
        let mut set = Self {
            source,
            digest: digest_of(json),
            keys: Vec::new(),
            skipped: 0,
            notes: Vec::new(),
            more_notes: 0,
        };
        for (index, entry) in entries.iter().enumerate() {
            set.add(index + 1, entry.get());
        }
        match entries.len() {
            0 => set.note(format!("{} has no keys and verifies no token", set.name())),
            all if set.keys.is_empty() => {
                let first = set.notes.first().map_or("", String::as_str);
                return Err(format!("none of its {all} keys can be used: {first}"));
            }
            _ => {}
        }
        Ok(set)
    }

    fn name(&self) -> String {
        match &self.source {
            JwksSource::File(path) => format!("auth.jwt.jwks_file {}", path.display()),
            JwksSource::Url => "auth.jwt.jwks_url".to_owned(),
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_WARNINGS {
            self.notes.push(note);
        } else {
            self.more_notes += 1;
        }
    }

    fn add(&mut self, number: usize, json: &str) {
        let mut name = format!("{}, entry {number}", self.name());
        let jwk = serde_json::from_str::<Jwk>(json).map_err(|_| "it is not a JWK".to_owned());
        if let Ok(Some(id)) = jwk.as_ref().map(|jwk| jwk.common.key_id.as_deref()) {
            name = format!("{name} (kid {:?})", shortened(id));
        }
        match jwk.and_then(|jwk| self.key(&jwk, &name)) {
            Ok(key) => {
                self.keys.push(key);
                if JsonMembers::read(json.as_bytes()).is_some_and(|members| members.has("d")) {
                    self.note(format!(
                        "{name} is a private key; the set should have only public keys"
                    ));
                }
            }
            Err(reason) => {
                self.skipped += 1;
                self.note(format!("{name} is skipped: {reason}"));
            }
        }
    }

    /// Returns the key of an entry, or why it is unusable.
    fn key(&self, jwk: &Jwk, name: &str) -> Result<VerificationKey, String> {
        if self.source == JwksSource::Url {
            if self.keys.len() >= MAX_FETCHED_KEYS {
                return Err(format!("the set has more than {MAX_FETCHED_KEYS} keys"));
            }
            // A server that publishes a secret would let everyone sign tokens.
            if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
                return Err("it is a secret, which a URL must not publish".to_owned());
            }
        }
        key(jwk, name)
    }

    /// Whether the set has a usable key of this id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The number of usable keys.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// The warnings about the set.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let more = self.more_notes;
        let more =
            (more > 0).then(|| format!("{}: {more} more entries have warnings", self.name()));
        self.notes.iter().cloned().chain(more)
    }
}

/// A key id as it is shown. The whole one may be as long as the set.
fn shortened(id: &str) -> Cow<'_, str> {
    match id.char_indices().nth(MAX_SHOWN_ID) {
        Some((end, _)) => Cow::Owned(format!("{}…", id.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(id),
    }
}

/// Returns the entries of a set as raw JSON, so that an unreadable entry does not affect the others
/// (RFC 7517 5).
fn entries(json: &[u8]) -> Option<Vec<&RawValue>> {
    let keys = JsonMembers::read(json)?.raw("keys").ok()??;
    serde_json::from_str(keys).ok()
}

/// Returns the key of an entry, or why it is unusable.
fn key(jwk: &Jwk, name: &str) -> Result<VerificationKey, String> {
    let common = &jwk.common;
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("its use is not sig".to_owned());
    }
    let operations = common.key_operations.as_ref();
    if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return Err("its key_ops lack verify".to_owned());
    }
    let decoding = decoding_key(jwk)?;
    let KeyMaterial { kind, algorithms } =
        KeyMaterial::from_decoding_key(&decoding).map_err(|kind| format!("it is {kind}"))?;
    let is_named = |algorithm: &Algorithm| {
        common.key_algorithm.is_none_or(|named| named == (*algorithm).into())
    };
    let algorithms: Vec<Algorithm> = algorithms.iter().copied().filter(is_named).collect();
    if algorithms.is_empty() {
        return Err(match common.key_algorithm {
            Some(named) => format!("it is {kind}, which does not verify its alg, {named}"),
            None => format!("it is {kind}, which verifies no supported algorithm"),
        });
    }
    let name = format!("{name}, {kind}");
    Ok(VerificationKey { name, id: common.key_id.clone(), algorithms, decoding })
}

fn decoding_key(jwk: &Jwk) -> Result<DecodingKey, String> {
    use AlgorithmParameters::{EllipticCurve as Ec, OctetKey, OctetKeyPair, RSA};
    let decoding = match &jwk.algorithm {
        RSA(parameters) => return rsa(parameters),
        Ec(parameters) => match (&parameters.curve, bytes(&parameters.x)?.len()) {
            (EllipticCurve::P256, 32) | (EllipticCurve::P384, 48) => DecodingKey::from_jwk(jwk),
            (EllipticCurve::P521, _) => return Err("P-521 is not supported".to_owned()),
            _ => return Err("its x does not fit its crv".to_owned()),
        },
        OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
            DecodingKey::from_jwk(jwk)
        }
        OctetKey(parameters) if bytes(&parameters.value)?.len() < MIN_OCTETS => {
            return Err(format!("its k has fewer than {MIN_OCTETS} bytes"));
        }
        OctetKey(_) => DecodingKey::from_jwk(jwk),
        _ => return Err("its kty or crv is not supported, or a member is missing".to_owned()),
    };
    decoding.map_err(|_| NOT_BASE64URL.to_owned())
}

/// Builds an RSA key. Leading zeros are removed: some issuers write the modulus with one, as in
/// ASN.1, and the verification would then reject every signature.
fn rsa(parameters: &RSAKeyParameters) -> Result<DecodingKey, String> {
    let number = |base64: &str| -> Result<Vec<u8>, String> {
        Ok(bytes(base64)?.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    Ok(DecodingKey::from_rsa_raw_components(&number(&parameters.n)?, &number(&parameters.e)?))
}

const NOT_BASE64URL: &str = "a member is not in base64url without padding";

fn bytes(base64: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(base64).map_err(|_| NOT_BASE64URL.to_owned())
}
