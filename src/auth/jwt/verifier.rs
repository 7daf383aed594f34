//! Verifies tokens: the signature by the configured algorithms only, and then what the claims say.

use super::keys::Key;
use super::members::{Members, Unreadable};
use super::token::{Header, Token};
use super::{JwtSettings, Refused};
use crate::ids::{OrganizationId, UserId, hex_in_lower_case};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// What a verified token says. User and organization are looked up with it at every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::auth) struct Claims {
    pub(in crate::auth) user: UserId,
    /// Whether documents may spell the user's id in another way.
    pub(in crate::auth) has_upper_case_hex: bool,
    pub(in crate::auth) organization: Option<OrganizationId>,
}

/// A token that is good, and when. Both in seconds since 1970, `auth.jwt.leeway` included.
#[derive(Debug, Clone)]
pub(in crate::auth) struct Verified {
    pub(in crate::auth) claims: Claims,
    pub(in crate::auth) not_before: u64,
    pub(in crate::auth) expires_at: u64,
}

/// Keys of a JWK set that a token is tried with. Those that it names come first. A bad token that names none would
/// otherwise be verified with every key of the set, which takes up to a millisecond.
const MOST_KEYS_OF_SET: usize = 4;

#[derive(Debug)]
pub(in crate::auth) struct Verifier {
    pub(in crate::auth) settings: Arc<JwtSettings>,
    /// From secrets and PEM files.
    keys: Vec<Key>,
    keys_of_set: Vec<Key>,
}

impl Verifier {
    pub(in crate::auth) fn new(settings: JwtSettings) -> Self {
        let keys = settings.own_keys().cloned().collect();
        let keys_of_set = settings.keys_of_set().cloned().collect();
        Self { settings: Arc::new(settings), keys, keys_of_set }
    }

    /// The keys that a token may have been signed with.
    fn keys_for(&self, header: &Header) -> impl Iterator<Item = &Key> {
        let is_named = |key: &&Key| key.id.is_some() && key.id == header.key_id;
        let named = self.keys_of_set.iter().filter(is_named);
        let others = self.keys_of_set.iter().filter(move |key| !is_named(key));
        let of_set = named.chain(others).filter(|key| key.is_for(header)).take(MOST_KEYS_OF_SET);
        self.keys.iter().filter(|key| key.is_for(header)).chain(of_set)
    }

    /// Verifies a token at a time in seconds since 1970.
    pub(in crate::auth) fn verify(&self, token: &Token<'_>, now: u64) -> Result<Verified, Refused> {
        self.verify_signature(token)?;
        let json = token.claims();
        let claims = json.as_deref().and_then(Members::read);
        let claims = claims.ok_or(Refused::token("its claims are not a JSON object"))?;
        let (not_before, expires_at) = self.times(&claims, now)?;
        self.verify_origin(&claims)?;
        Ok(Verified { claims: self.claims(&claims)?, not_before, expires_at })
    }

    fn verify_signature(&self, token: &Token<'_>) -> Result<(), Refused> {
        let header = token.header.as_ref().map_err(|reason| Refused::token(reason))?;
        if !self.settings.algorithms.contains(&header.algorithm) {
            return Err(Refused::token("its alg is not in auth.jwt.algorithms"));
        }
        if !self.settings.types.is_empty() && !header.is_one_of(&self.settings.types) {
            return Err(Refused::token("its typ is not in auth.jwt.types"));
        }
        let mut keys = self.keys_for(header).peekable();
        if keys.peek().is_none() {
            return Err(Refused::token("there is no key for its alg and kid"));
        }
        if !keys.any(|key| key.has_signed(token, header.algorithm)) {
            return Err(Refused::token("its signature fits no key"));
        }
        Ok(())
    }

    /// The library's own validation reads claims that nobody asks for, and refuses a token for what it cannot read there.
    fn times(&self, claims: &Members<'_>, now: u64) -> Result<(u64, u64), Refused> {
        let leeway = self.settings.leeway.as_secs();
        let time = |name| claims.get(name).map(|value| value.map(|value| seconds(&value)));
        let Ok(Some(Some(expires_at))) = time("exp") else {
            return Err(Refused::token("exp is missing, or not a time"));
        };
        let not_before = match time("nbf") {
            Ok(None) => 0,
            Ok(Some(Some(not_before))) => not_before.saturating_sub(leeway),
            _ => return Err(Refused::token("nbf is not a time")),
        };
        let expires_at = expires_at.saturating_add(leeway);
        if now > expires_at {
            return Err(Refused::expired("exp has passed"));
        }
        if now < not_before {
            return Err(Refused::expired("nbf is not reached"));
        }
        Ok((not_before, expires_at))
    }

    fn verify_origin(&self, claims: &Members<'_>) -> Result<(), Refused> {
        let is_one_of =
            |name, wanted: &[String]| wanted.is_empty() || names_one_of(claims.get(name), wanted);
        if !is_one_of("iss", &self.settings.issuer) {
            return Err(Refused::token("iss is not one of auth.jwt.issuer"));
        }
        if !is_one_of("aud", &self.settings.audience) {
            return Err(Refused::token("aud is not one of auth.jwt.audience"));
        }
        Ok(())
    }

    fn claims(&self, claims: &Members<'_>) -> Result<Claims, Refused> {
        let present = |name: &str| match claims.get(name) {
            Ok(None | Some(Value::Null)) => None,
            Ok(Some(value)) => Some(text_of(&value)),
            Err(Unreadable) => Some(None),
        };
        let user = self.settings.user_claims.iter().find_map(|name| present(name)).flatten();
        let user = user.and_then(|text| UserId::new(&text).ok());
        let user = user.ok_or(Refused::token("it has none of auth.jwt.user_claims"))?;
        let organization = match present(&self.settings.organization_claim) {
            None => None,
            Some(text) => {
                let organization = text.and_then(|text| OrganizationId::new(&text).ok());
                let refused = Refused::token("its auth.jwt.organization_claim is not an id");
                Some(organization.ok_or(refused)?)
            }
        };
        let has_upper_case_hex = matches!(hex_in_lower_case(user.as_str()), Cow::Owned(_));
        Ok(Claims { user, has_upper_case_hex, organization })
    }
}

/// Whether a claim is one of these, or a list of strings with one of them.
fn names_one_of(claim: Result<Option<Value>, Unreadable>, wanted: &[String]) -> bool {
    let is_wanted = |value: &Value| wanted.iter().any(|each| value == each);
    match claim {
        Ok(Some(Value::Array(values))) => {
            values.iter().all(Value::is_string) && values.iter().any(is_wanted)
        }
        Ok(Some(value)) => is_wanted(&value),
        Ok(None) | Err(Unreadable) => false,
    }
}

/// A point in time in a claim, which may have a fraction.
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

/// An identifier in a claim: a text, or an integer as its digits.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}
