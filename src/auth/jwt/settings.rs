//! The section `[auth.jwt]` and its warnings.

use crate::auth::jwt::jwks::{JwkSet, JwksSource};
use crate::auth::jwt::jwks_url::JwksUrl;
use crate::auth::jwt::keys::{self, VerificationKey};
use crate::settings::{Secret, Section};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The minimum bytes of a secret, the size of an HS256 digest (RFC 7518 3.2). A shorter one causes
/// a warning.
const MIN_SECRET_BYTES: usize = 32;

/// The section `[auth.jwt]`.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    pub(super) algorithms: Vec<Algorithm>,
    /// All of them verify; the first one signs the tokens of `hookgate token`.
    pub(super) secrets: Vec<Secret>,
    /// The keys made of `secrets`.
    pub(super) secret_keys: Vec<VerificationKey>,
    pub(super) public_keys: Vec<VerificationKey>,
    /// The set in use; `None` if none is configured, or if that of the URL has not been fetched yet.
    pub(super) jwks: Option<JwkSet>,
    pub(super) jwks_url: Option<JwksUrl>,
    /// Accepted values of `typ`; empty: any.
    pub(super) types: Vec<String>,
    /// Accepted values of `iss`; empty: any.
    pub(super) issuer: Vec<String>,
    /// Accepted values of `aud`; empty: any.
    pub(super) audience: Vec<String>,
    pub(super) leeway: Duration,
    /// Dotted paths of the claims that may name the user; the first one present is used.
    pub(super) user_claims: Vec<String>,
    /// The dotted path of the claim that names the organization.
    pub(super) organization_claim: String,
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
        let jwks_url = JwksUrl::read(section);
        if jwks.is_some() && jwks_url.is_some() {
            section.fault("jwks_url", "is set besides jwks_file; only one of them can be used");
        }
        let user_claims = user_claims(section);
        Self {
            algorithms,
            secret_keys: secrets
                .iter()
                .map(|(name, key)| VerificationKey::from_secret(name, key))
                .collect(),
            secrets: secrets.into_iter().map(|(_, secret)| secret).collect(),
            public_keys: public_keys(section),
            jwks,
            jwks_url,
            types: types(section),
            issuer: section.string_list("issuer"),
            audience: section.string_list("audience"),
            leeway: section.duration("leeway", "30s", Duration::ZERO..=Duration::from_secs(600)),
            user_claims,
            organization_claim: organization_claim(section),
        }
    }

    /// Whether a token can be verified, now or after a change of the JWK set.
    pub fn has_keys(&self) -> bool {
        self.has_own_keys() || self.jwks.is_some() || self.jwks_url.is_some()
    }

    /// Whether there is a key from secrets or PEM files.
    pub(in crate::auth) fn has_own_keys(&self) -> bool {
        !self.secrets.is_empty() || !self.public_keys.is_empty()
    }

    fn keys(&self) -> impl Iterator<Item = &VerificationKey> {
        self.own_keys().chain(self.keys_of_set())
    }

    /// The keys from secrets and PEM files.
    pub(super) fn own_keys(&self) -> impl Iterator<Item = &VerificationKey> {
        self.secret_keys.iter().chain(&self.public_keys)
    }

    pub(super) fn keys_of_set(&self) -> impl Iterator<Item = &VerificationKey> {
        self.jwks.iter().flat_map(|jwks| &jwks.keys)
    }

    /// The warnings about the settings.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.has_keys() {
            let note = "auth.jwt has no key: every token is rejected, and only API keys work";
            warnings.push(note.to_owned());
        }
        let is_short = |secret: &Secret| secret.reveal().len() < MIN_SECRET_BYTES;
        if self.secrets.iter().any(is_short) {
            warnings.push(format!(
                "auth.jwt has a secret of fewer than {MIN_SECRET_BYTES} bytes, which may be guessed from a token"
            ));
        }
        let is_hmac = |algorithm: &Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
        if self.jwks_url.is_some() && self.algorithms.iter().all(is_hmac) {
            warnings.push(
                "auth.jwt.jwks_url has no effect: auth.jwt.algorithms lists only HS algorithms, which need a shared secret. Add the algorithm of the set's keys, such as \"RS256\""
                    .to_owned(),
            );
        }
        warnings.extend(self.jwks.iter().flat_map(JwkSet::warnings));
        warnings.extend(self.keys().filter_map(|key| self.unused_key_warning(key)));
        let has_key =
            |algorithm: &Algorithm| self.keys().any(|key| key.algorithms.contains(algorithm));
        let without_key: Vec<Algorithm> =
            self.algorithms.iter().copied().filter(|each| !has_key(each)).collect();
        // Before the first fetch it is not known for which algorithms there is a key.
        let is_complete = self.jwks_url.is_none() || self.jwks.is_some();
        if self.has_keys() && is_complete && !without_key.is_empty() {
            let without_key = names(&without_key);
            warnings.push(format!(
                "auth.jwt has no key for {without_key}, which auth.jwt.algorithms lists"
            ));
        }
        let has_no_condition =
            [&self.types, &self.issuer, &self.audience].into_iter().all(Vec::is_empty);
        let is_signed_elsewhere =
            !self.public_keys.is_empty() || self.jwks.is_some() || self.jwks_url.is_some();
        if is_signed_elsewhere && has_no_condition {
            warnings.push(
                "auth.jwt accepts every token that its public keys or its JWK set verify, whatever it was issued for: set issuer, audience or types"
                    .to_owned(),
            );
        }
        warnings
    }

    /// The warning about a key that verifies nothing.
    fn unused_key_warning(&self, key: &VerificationKey) -> Option<String> {
        let VerificationKey { name, algorithms, .. } = key;
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
                "{name} verifies no token: it is for {possible}, but auth.jwt.algorithms has {configured}"
            )
        })
    }

    /// Logs the warnings.
    pub fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    pub(in crate::auth) fn jwks(&self) -> Option<&JwkSet> {
        self.jwks.as_ref()
    }

    /// The file of the JWK set.
    pub(in crate::auth) fn jwks_file(&self) -> Option<&Path> {
        match &self.jwks.as_ref()?.source {
            JwksSource::File(path) => Some(path),
            JwksSource::Url => None,
        }
    }

    pub(in crate::auth) fn jwks_url(&self) -> Option<&JwksUrl> {
        self.jwks_url.as_ref()
    }

    /// Whether both settings name the same URL of a JWK set, or none.
    pub(in crate::auth) fn has_url_of(&self, other: &Self) -> bool {
        let url = |settings: &Self| settings.jwks_url.as_ref().map(|source| source.url.clone());
        url(self) == url(other)
    }

    /// Returns these settings with another JWK set.
    pub(in crate::auth) fn with_jwks(&self, set: JwkSet) -> Self {
        Self { jwks: Some(set), ..self.clone() }
    }

    /// Returns these settings with the set that was fetched for others of the same URL.
    pub(in crate::auth) fn with_fetched_set_of(self, other: &Self) -> Self {
        if self.jwks_url.is_some() && self.has_url_of(other) {
            Self { jwks: other.jwks.clone(), ..self }
        } else {
            self
        }
    }
}

fn public_keys(section: &mut Section<'_>) -> Vec<VerificationKey> {
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

fn user_claims(section: &mut Section<'_>) -> Vec<String> {
    let claims = section.value("user_claims", ["id", "userId", "sub"].map(str::to_owned).to_vec());
    if claims.is_empty() {
        section.fault("user_claims", "at least one claim is needed");
    }
    for claim in &claims {
        check_claim(section, "user_claims", claim);
    }
    claims
}

fn organization_claim(section: &mut Section<'_>) -> String {
    let claim = section.value("organization_claim", "organizationId".to_owned());
    check_claim(section, "organization_claim", &claim);
    claim
}

/// Reports a claim that no token can have.
fn check_claim(section: &mut Section<'_>, key: &str, claim: &str) {
    if claim.is_empty() {
        section.fault(key, "a claim is empty");
    } else if claim.split('.').any(str::is_empty) {
        section.fault(key, format!("{claim:?} is not a dotted path: a name is empty"));
    }
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
