//! Tokens: verified with the configured keys, by the configured algorithms only.

use super::AuthError;
use crate::ids::{OrganizationId, UserId};
use crate::settings::{Secret, Section};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};
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
    public_keys: Vec<Key>,
    jwks: Option<JwksFile>,
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
        let mut public_keys = Vec::new();
        for path in section.value("public_key_files", Vec::<PathBuf>::new()) {
            let pem = section.file("public_key_files", &path);
            match pem.and_then(|pem| public_key(&pem, &path)) {
                Ok(key) => public_keys.push(key),
                Err(message) => section.fault("public_key_files", message),
            }
        }
        let jwks = JwksFile::read(section.value("jwks_file", PathBuf::new()));
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
            secrets: section.secrets("secret"),
            public_keys,
            jwks,
            issuer: section.texts("issuer"),
            audience: section.texts("audience"),
            leeway: section.duration("leeway", "30s", Duration::ZERO..=Duration::from_secs(600)),
            user_claims,
            organization_claim: section.value("organization_claim", "organizationId".to_owned()),
        }
    }

    /// Whether any token could be verified.
    pub fn has_keys(&self) -> bool {
        !self.secrets.is_empty() || !self.public_keys.is_empty() || self.jwks.is_some()
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
        warnings
    }

    /// Says it in the log.
    pub fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    pub(super) fn jwks_file(&self) -> Option<&Path> {
        self.jwks.as_ref().map(|jwks| jwks.path.as_path())
    }

    /// The same with the keys of a JWK set as its file has them now.
    pub(super) fn with_jwks(&self, json: &[u8]) -> Result<Self, String> {
        let keys = parse_jwks(json)?;
        let path = self.jwks_file().unwrap_or_else(|| Path::new("")).to_owned();
        Ok(Self { jwks: Some(JwksFile { path, keys }), ..self.clone() })
    }
}

/// A JWK set and where it came from.
#[derive(Debug, Clone)]
struct JwksFile {
    path: PathBuf,
    keys: Vec<Key>,
}

impl JwksFile {
    /// `None` without a path.
    fn read(path: PathBuf) -> Result<Option<Self>, String> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let json = std::fs::read(&path).map_err(|error| error.to_string());
        let keys = json.and_then(|json| parse_jwks(&json));
        let keys = keys.map_err(|message| format!("{}: {message}", path.display()))?;
        Ok(Some(Self { path, keys }))
    }
}

/// Keys of a JWK set that a token is tried with. Those that it names come first; a bad token that names none would
/// otherwise be verified with every key of the set, which takes up to a millisecond.
const MOST_KEYS_OF_SET: usize = 4;

/// A key, and which tokens it is for.
#[derive(Debug, Clone)]
struct Key {
    decoding: DecodingKey,
    /// If the key says so, only for tokens that name it, ...
    id: Option<String>,
    /// ... and only by this algorithm.
    algorithm: Option<Algorithm>,
}

impl Key {
    fn is_for(&self, header: &Header) -> bool {
        let id_fits = match (&self.id, &header.kid) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        id_fits
            && self.decoding.family() == header.alg.family()
            && self.algorithm.is_none_or(|algorithm| algorithm == header.alg)
    }
}

/// What a verified token says. User and organization are looked up with it at every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) user: UserId,
    pub(super) organization: Option<OrganizationId>,
}

/// A token that is good.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) claims: Claims,
    /// Seconds since 1970, `auth.jwt.leeway` included.
    pub(super) expires_at: u64,
}

/// Verifies tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) settings: JwtSettings,
    /// From secrets and PEM files.
    keys: Vec<Key>,
    keys_of_set: Vec<Key>,
    /// One for each algorithm, never a mixed list.
    validations: Vec<Validation>,
}

impl Verifier {
    pub(super) fn new(settings: JwtSettings) -> Self {
        let secrets = settings.secrets.iter().map(|secret| Key {
            decoding: DecodingKey::from_secret(secret.reveal().as_bytes()),
            id: None,
            algorithm: None,
        });
        let keys = secrets.chain(settings.public_keys.iter().cloned()).collect();
        let keys_of_set = settings.jwks.iter().flat_map(|jwks| jwks.keys.clone()).collect();
        let validations =
            settings.algorithms.iter().map(|each| validation(&settings, *each)).collect();
        Self { settings, keys, keys_of_set, validations }
    }

    /// The keys that a token may have been signed with.
    fn keys_for(&self, header: &Header) -> impl Iterator<Item = &Key> {
        let is_named = |key: &&Key| key.id.is_some() && key.id == header.kid;
        let named = self.keys_of_set.iter().filter(is_named);
        let others = self.keys_of_set.iter().filter(move |key| !is_named(key));
        let of_set = named.chain(others).filter(|key| key.is_for(header)).take(MOST_KEYS_OF_SET);
        self.keys.iter().filter(|key| key.is_for(header)).chain(of_set)
    }

    pub(super) fn verify(&self, token: &str) -> Result<Verified, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::InvalidToken)?;
        let validation = self
            .validations
            .iter()
            .find(|validation| validation.algorithms.contains(&header.alg))
            .ok_or_else(|| {
                tracing::debug!(algorithm = ?header.alg, "token refused: not in auth.jwt.algorithms");
                AuthError::InvalidToken
            })?;
        let mut refusal = AuthError::InvalidToken;
        for key in self.keys_for(&header) {
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, validation) {
                Ok(token) => return self.verified(&token.claims),
                Err(error) => match refused(&error) {
                    // Another key may fit the signature; nothing else can save this token.
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => {
                        refusal = AuthError::ExpiredToken;
                    }
                    _ => return Err(AuthError::InvalidToken),
                },
            }
        }
        Err(refusal)
    }

    fn verified(&self, claims: &Map<String, Value>) -> Result<Verified, AuthError> {
        let expires_at = claims.get("exp").and_then(seconds).ok_or(AuthError::InvalidToken)?;
        let expires_at = expires_at.saturating_add(self.settings.leeway.as_secs());
        Ok(Verified { claims: self.claims(claims)?, expires_at })
    }

    fn claims(&self, claims: &Map<String, Value>) -> Result<Claims, AuthError> {
        let present = |name: &String| claims.get(name).filter(|value| !value.is_null());
        let user = self.settings.user_claims.iter().find_map(present).and_then(text_of);
        let user = user.and_then(|text| UserId::new(&text).ok()).ok_or_else(|| {
            tracing::debug!("token refused: it has none of auth.jwt.user_claims");
            AuthError::InvalidToken
        })?;
        let organization = match present(&self.settings.organization_claim) {
            None => None,
            Some(value) => {
                let organization = text_of(value).and_then(|text| OrganizationId::new(&text).ok());
                Some(organization.ok_or(AuthError::InvalidToken)?)
            }
        };
        Ok(Claims { user, organization })
    }
}

/// Says why a token is refused, in the log of those who ask for it; never what is in the token.
fn refused(error: &jsonwebtoken::errors::Error) -> &ErrorKind {
    let reason = match error.kind() {
        ErrorKind::InvalidSignature => "the signature does not fit the key",
        ErrorKind::ExpiredSignature => "exp has passed",
        ErrorKind::ImmatureSignature => "nbf is not reached",
        ErrorKind::MissingRequiredClaim(_) => "exp, or a configured iss or aud, is missing",
        ErrorKind::InvalidIssuer => "iss is another",
        ErrorKind::InvalidAudience => "aud is another",
        _ => "it cannot be read",
    };
    tracing::debug!(reason, "token refused by a key");
    error.kind()
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
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(*algorithm), &claims, &key)?)
}

fn validation(settings: &JwtSettings, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = settings.leeway.as_secs();
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if !settings.issuer.is_empty() {
        validation.set_issuer(&settings.issuer);
        required.push("iss");
    }
    // Without "aud" among the required claims, one of the wrong type would pass as absent; and
    // with none configured, tokens that carry one would be refused.
    validation.validate_aud = !settings.audience.is_empty();
    if validation.validate_aud {
        validation.set_audience(&settings.audience);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// A point in time in a claim, which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what was validated is no less than 0, and what is too large is far enough"
    )]
    value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64))
}

/// An identifier in a claim: a text, or an integer as its digits.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn public_key(pem: &[u8], path: &Path) -> Result<Key, String> {
    let decoding = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|_| format!("{} is no public key of RSA, EC or Ed25519 in PEM", path.display()))?;
    Ok(Key { decoding, id: None, algorithm: None })
}

fn parse_jwks(json: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|_| "not a JWK set".to_owned())?;
    let keys: Vec<Key> = set.keys.iter().filter_map(key_from_jwk).collect();
    if keys.is_empty() {
        return Err("no key in the JWK set can verify a token".to_owned());
    }
    Ok(keys)
}

/// Keys for other uses, and of kinds we do not verify with, are left out.
fn key_from_jwk(jwk: &Jwk) -> Option<Key> {
    use jsonwebtoken::jwk::PublicKeyUse;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        None => None,
        Some(named) => Some(named.to_string().parse().ok()?),
    };
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { decoding, id: jwk.common.key_id.clone(), algorithm })
}
