//! Verifies tokens: first the signature, by the configured algorithms only, then the claims.

use crate::auth::jwt::keys::VerificationKey;
use crate::auth::jwt::members::{JsonMembers, UnreadableMember};
use crate::auth::jwt::settings::JwtSettings;
use crate::auth::jwt::token::{Token, TokenHeader};
use crate::auth::refusal::CredentialRefusal;
use crate::ids::{OrganizationId, UserId, normalize_id, whole_number};
use jsonwebtoken::AlgorithmFamily;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// The identity in a verified token. Every request looks it up among the users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) struct Claims {
    pub(in crate::auth) user: UserId,
    /// Whether an id has upper-case hex digits, so its document may spell it differently.
    pub(in crate::auth) has_upper_case_hex: bool,
    pub(in crate::auth) organization: Option<OrganizationId>,
}

/// A verified token and its validity. Both times are in seconds since 1970 and include
/// `auth.jwt.leeway`.
#[derive(Debug, Clone)]
pub(in crate::auth) struct Verified {
    pub(in crate::auth) claims: Claims,
    pub(in crate::auth) not_before: u64,
    pub(in crate::auth) expires_at: u64,
}

/// Maximum keys of a JWK set that are tried on a token, those with its `kid` first. Without this
/// bound an invalid token without a `kid` would be tried with every key of the set, which takes up
/// to a millisecond.
const MAX_KEYS_OF_SET: usize = 4;

/// Why a token is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Unverified<'a> {
    Refused(CredentialRefusal),
    /// No key verifies it, and its key may be one that has not been fetched yet.
    NoKeyYet {
        /// The key id that is not in the set; `None` if there is no set yet.
        id: Option<&'a str>,
    },
}

impl From<CredentialRefusal> for Unverified<'_> {
    fn from(refusal: CredentialRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Verifies tokens by fixed settings.
#[derive(Debug)]
pub(in crate::auth) struct Verifier {
    pub(in crate::auth) settings: Arc<JwtSettings>,
    /// The keys from secrets and PEM files.
    keys: Vec<VerificationKey>,
    keys_of_set: Vec<VerificationKey>,
}

impl Verifier {
    pub(in crate::auth) fn new(settings: JwtSettings) -> Self {
        let keys = settings.own_keys().cloned().collect();
        let keys_of_set = settings.keys_of_set().cloned().collect();
        Self { settings: Arc::new(settings), keys, keys_of_set }
    }

    /// The keys that a token may have been signed with.
    fn keys_for(&self, header: &TokenHeader) -> impl Iterator<Item = &VerificationKey> {
        let is_named = |key: &&VerificationKey| key.id.is_some() && key.id == header.key_id;
        let named = self.keys_of_set.iter().filter(is_named);
        let others = self.keys_of_set.iter().filter(move |key| !is_named(key));
        let of_set = named.chain(others).filter(|key| key.is_for(header)).take(MAX_KEYS_OF_SET);
        self.keys.iter().filter(|key| key.is_for(header)).chain(of_set)
    }

    /// Verifies a token. `now` is in seconds since 1970.
    pub(in crate::auth) fn verify<'a>(
        &self,
        token: &'a Token<'_>,
        now: u64,
    ) -> Result<Verified, Unverified<'a>> {
        self.verify_signature(token)?;
        let json = token.claims();
        let claims = json.as_deref().and_then(JsonMembers::read);
        let claims = claims.ok_or(CredentialRefusal::token("its claims are not a JSON object"))?;
        let (not_before, expires_at) = self.times(&claims, now)?;
        self.verify_origin(&claims)?;
        Ok(Verified { claims: self.claims(&claims)?, not_before, expires_at })
    }

    fn verify_signature<'a>(&self, token: &'a Token<'_>) -> Result<(), Unverified<'a>> {
        let header = token.header.as_ref().map_err(|reason| CredentialRefusal::token(reason))?;
        if !self.settings.algorithms.contains(&header.algorithm) {
            return Err(CredentialRefusal::token("its alg is not in auth.jwt.algorithms").into());
        }
        if !self.settings.types.is_empty() && !header.is_one_of(&self.settings.types) {
            return Err(CredentialRefusal::token("its typ is not in auth.jwt.types").into());
        }
        let mut keys = self.keys_for(header).peekable();
        let has_keys = keys.peek().is_some();
        if keys.any(|key| key.has_signed(token, header.algorithm)) {
            return Ok(());
        }
        if let Some(unverified) = self.key_to_fetch(header) {
            return Err(unverified);
        }
        Err(CredentialRefusal::token(if has_keys {
            "its signature matches no key"
        } else {
            "there is no key for its alg and kid"
        })
        .into())
    }

    /// Whether a fetch may find the key of a token: it is not in the set, or there is no set yet. A
    /// URL yields no secrets.
    fn key_to_fetch<'a>(&self, header: &'a TokenHeader) -> Option<Unverified<'a>> {
        self.settings.jwks_url()?;
        if header.algorithm.family() == AlgorithmFamily::Hmac {
            return None;
        }
        match (self.settings.jwks(), header.key_id.as_deref()) {
            (None, id) => Some(Unverified::NoKeyYet { id }),
            (Some(set), Some(id)) if !set.has_id(id) => Some(Unverified::NoKeyYet { id: Some(id) }),
            (Some(_), _) => None,
        }
    }

    /// Verifies `exp` and `nbf`, and returns the validity. The validation of jsonwebtoken is not
    /// used: it also parses unused claims, and rejects a token if it cannot.
    fn times(&self, claims: &JsonMembers<'_>, now: u64) -> Result<(u64, u64), CredentialRefusal> {
        let leeway = self.settings.leeway.as_secs();
        let time = |name| claims.get(name).map(|value| value.map(|value| seconds(&value)));
        let Ok(Some(Some(expires_at))) = time("exp") else {
            return Err(CredentialRefusal::token("exp is missing or not a time"));
        };
        let not_before = match time("nbf") {
            Ok(None) => 0,
            Ok(Some(Some(not_before))) => not_before.saturating_sub(leeway),
            _ => return Err(CredentialRefusal::token("nbf is not a time")),
        };
        let expires_at = expires_at.saturating_add(leeway);
        if now > expires_at {
            return Err(CredentialRefusal::expired("exp has passed"));
        }
        if now < not_before {
            return Err(CredentialRefusal::expired("nbf is in the future"));
        }
        Ok((not_before, expires_at))
    }

    fn verify_origin(&self, claims: &JsonMembers<'_>) -> Result<(), CredentialRefusal> {
        let is_one_of = |name, accepted: &[String]| {
            accepted.is_empty() || is_any_of(claims.get(name), accepted)
        };
        if !is_one_of("iss", &self.settings.issuer) {
            return Err(CredentialRefusal::token("iss is not one of auth.jwt.issuer"));
        }
        if !is_one_of("aud", &self.settings.audience) {
            return Err(CredentialRefusal::token("aud is not one of auth.jwt.audience"));
        }
        Ok(())
    }

    fn claims(&self, claims: &JsonMembers<'_>) -> Result<Claims, CredentialRefusal> {
        let present = |path: &str| match claims.get_path(path) {
            Ok(None) => None,
            Ok(Some(value)) => Some(id_string(&value)),
            Err(UnreadableMember) => Some(None),
        };
        let user = self.settings.user_claims.iter().find_map(|name| present(name)).flatten();
        let user = user.and_then(|id| UserId::new(&id).ok());
        let user = user.ok_or(CredentialRefusal::token("it has none of auth.jwt.user_claims"))?;
        let organization = match present(&self.settings.organization_claim) {
            None => None,
            Some(id) => {
                let organization = id.and_then(|id| OrganizationId::new(&id).ok());
                let refusal =
                    CredentialRefusal::token("its auth.jwt.organization_claim is not a valid id");
                Some(organization.ok_or(refusal)?)
            }
        };
        let organization_id = organization.as_ref().map(OrganizationId::canonical);
        let has_upper_case_hex = matches!(normalize_id(user.as_str()), Cow::Owned(_))
            || matches!(organization_id, Some(Cow::Owned(_)));
        Ok(Claims { user, has_upper_case_hex, organization })
    }
}

/// Whether a claim is one of the accepted strings, or a list of strings that has one of them.
fn is_any_of(claim: Result<Option<Value>, UnreadableMember>, accepted: &[String]) -> bool {
    let is_accepted = |value: &Value| accepted.iter().any(|each| value == each);
    match claim {
        Ok(Some(Value::Array(values))) => {
            values.iter().all(Value::is_string) && values.iter().any(is_accepted)
        }
        Ok(Some(value)) => is_accepted(&value),
        Ok(None) | Err(UnreadableMember) => false,
    }
}

/// The time in a claim, in seconds since 1970. A fraction is rounded.
fn seconds(value: &Value) -> Option<u64> {
    let rounded = |seconds: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is within the bounds of the type"
        )]
        (0.0..u64::MAX as f64).contains(&seconds).then(|| seconds.round() as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(rounded))
}

/// The id in a claim: a string, or the digits of an integer, which may be written with a point.
fn id_string(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        Value::Number(number) => Some(whole_number(number.as_f64()?)?.to_string()),
        _ => None,
    }
}
