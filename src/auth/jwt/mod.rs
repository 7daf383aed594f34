//! Tokens: the section `[auth.jwt]`, and what in it is worth a look.

mod jwks;
mod keys;
mod members;
mod token;
mod verifier;

pub(super) use jwks::JwkSet;
pub(super) use token::Token;
pub(super) use verifier::{Claims, Verified, Verifier};

use super::Refused;
use crate::ids::{OrganizationId, UserId};
use crate::settings::{Secret, Section};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use keys::Key;
use serde_json::Map;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A secret of fewer bytes is warned of: it should have as many as the digest of HS256 (RFC 7518 3.2).
const SHORTEST_SECRET: usize = 32;

/// The section `[auth.jwt]`.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    algorithms: Vec<Algorithm>,
    /// The first one signs `hookgate token`, all of them verify.
    secrets: Vec<Secret>,
    /// What verifies by the secrets.
    secret_keys: Vec<Key>,
    public_keys: Vec<Key>,
    jwks: Option<JwkSet>,
    /// Of `typ`; empty: any.
    types: Vec<String>,
    issuer: Vec<String>,
    audience: Vec<String>,
    leeway: Duration,
    user_claims: Vec<String>,
    organization_claim: String,
}

impl JwtSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let algorithms: Vec<Algorithm> = section.value("algorithms", vec![Algorithm::HS256]);
        if algorithms.is_empty() {
            section.fault("algorithms", "at least one algorithm is needed");
        }
        let secrets = section.secrets("secret");
        let jwks = JwkSet::read(&section.value("jwks_file", PathBuf::new()));
        let jwks = jwks.unwrap_or_else(|message| {
            section.fault("jwks_file", message);
            None
        });
        let user_claims =
            section.value("user_claims", ["id", "userId", "sub"].map(str::to_owned).to_vec());
        if user_claims.is_empty() {
            section.fault("user_claims", "at least one claim is needed");
        }
        Self {
            algorithms,
            secret_keys: secrets.iter().map(|(name, key)| Key::from_secret(name, key)).collect(),
            secrets: secrets.into_iter().map(|(_, secret)| secret).collect(),
            public_keys: public_keys(section),
            jwks,
            types: types(section),
            issuer: section.texts("issuer"),
            audience: section.texts("audience"),
            leeway: section.duration("leeway", "30s", Duration::ZERO..=Duration::from_secs(600)),
            user_claims,
            organization_claim: section.value("organization_claim", "organizationId".to_owned()),
        }
    }

    /// Whether any token could be verified, now or when the JWK set changes.
    pub fn has_keys(&self) -> bool {
        !self.secrets.is_empty() || !self.public_keys.is_empty() || self.jwks.is_some()
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.own_keys().chain(self.keys_of_set())
    }

    /// From secrets and PEM files.
    fn own_keys(&self) -> impl Iterator<Item = &Key> {
        self.secret_keys.iter().chain(&self.public_keys)
    }

    fn keys_of_set(&self) -> impl Iterator<Item = &Key> {
        self.jwks.iter().flat_map(|jwks| &jwks.keys)
    }

    /// What is worth a look in them.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.has_keys() {
            let note = "auth.jwt has no key: every token is refused, only API keys work";
            warnings.push(note.to_owned());
        }
        let is_short = |secret: &Secret| secret.reveal().len() < SHORTEST_SECRET;
        if self.secrets.iter().any(is_short) {
            warnings.push(format!(
                "auth.jwt has a secret of less than {SHORTEST_SECRET} bytes, which may be guessed from a token"
            ));
        }
        warnings.extend(self.jwks.iter().flat_map(JwkSet::warnings));
        warnings.extend(self.keys().filter_map(|key| self.idle(key)));
        let has_key =
            |algorithm: &Algorithm| self.keys().any(|key| key.algorithms.contains(algorithm));
        let without_key: Vec<Algorithm> =
            self.algorithms.iter().copied().filter(|each| !has_key(each)).collect();
        if self.has_keys() && !without_key.is_empty() {
            let without_key = names(&without_key);
            warnings.push(format!("auth.jwt has no key for {without_key} of its algorithms"));
        }
        let is_anything_asked = [&self.types, &self.issuer, &self.audience].map(Vec::is_empty);
        let is_signed_elsewhere = !self.public_keys.is_empty() || self.jwks.is_some();
        if is_signed_elsewhere && is_anything_asked == [true; 3] {
            warnings.push(
                "auth.jwt accepts every token that its public keys or its JWK set verify, whatever it was issued for: set issuer, audience or types"
                    .to_owned(),
            );
        }
        warnings
    }

    /// What is to be said of a key that verifies nothing.
    fn idle(&self, key: &Key) -> Option<String> {
        let Key { name, algorithms, .. } = key;
        if algorithms.iter().any(|each| self.algorithms.contains(each)) {
            return None;
        }
        let configured = names(&self.algorithms);
        Some(if algorithms.is_empty() {
            format!(
                "{name} verifies no token: no supported algorithm uses such a key (auth.jwt.algorithms: {configured})"
            )
        } else {
            let possible = names(algorithms);
            format!(
                "{name} verifies no token: it is for {possible}, and auth.jwt.algorithms has {configured}"
            )
        })
    }

    /// Says it in the log.
    pub fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    pub(super) fn jwks(&self) -> Option<&JwkSet> {
        self.jwks.as_ref()
    }

    /// The same with the keys of a JWK set as its file has them now.
    pub(super) fn with_jwks(&self, json: &[u8], path: &Path) -> Result<Self, String> {
        Ok(Self { jwks: Some(JwkSet::parse(json, path)?), ..self.clone() })
    }
}

fn public_keys(section: &mut Section<'_>) -> Vec<Key> {
    let mut public_keys = Vec::new();
    for path in section.value("public_key_files", Vec::<PathBuf>::new()) {
        let pem = section.file("public_key_files", &path);
        match pem.and_then(|pem| keys::from_pem(&pem, &path)) {
            Ok(keys) => public_keys.extend(keys),
            Err(message) => section.fault("public_key_files", message),
        }
    }
    public_keys
}

fn types(section: &mut Section<'_>) -> Vec<String> {
    let types: Vec<String> = section.value("types", Vec::new());
    if types.iter().any(String::is_empty) {
        section.fault("types", "a type is empty");
    }
    types
}

fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<String> = algorithms.iter().map(|each| format!("{each:?}")).collect();
    names.join(", ")
}

/// Mints a token with the first secret, for trying things out.
pub fn mint(
    settings: &JwtSettings,
    user: &UserId,
    organization: &OrganizationId,
    lifetime: Duration,
) -> anyhow::Result<String> {
    let algorithm = settings.algorithms.iter().find(|each| each.family() == AlgorithmFamily::Hmac);
    let algorithm =
        algorithm.ok_or_else(|| anyhow::anyhow!("auth.jwt.algorithms has no HMAC algorithm"))?;
    let secret = settings.secrets.first();
    let secret = secret.ok_or_else(|| {
        anyhow::anyhow!(
            "auth.jwt has neither secrets nor secret_files; there is nothing to sign with"
        )
    })?;
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = Map::new();
    if let Some(claim) = settings.user_claims.first() {
        claims.insert(claim.clone(), user.as_str().into());
    }
    claims.insert(settings.organization_claim.clone(), organization.as_str().into());
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + lifetime.as_secs()).into());
    for (claim, values) in [("iss", &settings.issuer), ("aud", &settings.audience)] {
        if let Some(value) = values.first() {
            claims.insert(claim.to_owned(), value.as_str().into());
        }
    }
    let mut header = Header::new(*algorithm);
    if let Some(kind) = settings.types.first() {
        header.typ = Some(kind.clone());
    }
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}
