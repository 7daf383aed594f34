//! Who calls: a JWT or an API key becomes a [`Caller`], and nothing else does.

mod callers;
mod jwks;
mod jwt;
#[cfg(test)]
mod model;
mod tokens;
mod users;

pub use callers::Callers;
pub use jwt::{JwtSettings, mint};
pub use users::{UserRecord, UsersLoad, UsersSettings, UsersView};

use crate::ids::{OrganizationId, RequestId, UserId};
use crate::lifecycle::Reporter;
use crate::metrics::Metrics;
use crate::settings::Section;
use callers::Known;
use jwt::{Claims, Token};
use std::sync::Arc;
use tokens::Tokens;

/// The section `[auth]`.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    pub jwt: JwtSettings,
    pub api_keys_enabled: bool,
}

impl AuthSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let jwt = JwtSettings::read(&mut section.section("jwt"));
        let api_keys_enabled = section.section("api_key").value("enabled", true);
        if !api_keys_enabled && !jwt.has_keys() {
            section.fault("jwt", "no key for tokens, and API keys are off: nobody could call");
        }
        Self { jwt, api_keys_enabled }
    }
}

/// Somebody whose credential was verified. Only [`Authenticator`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    organization: OrganizationId,
    user: UserId,
}

impl Caller {
    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    pub fn user(&self) -> &UserId {
        &self.user
    }
}

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the token has expired or is not valid yet")]
    ExpiredToken,
    #[error("the API key is unknown or switched off")]
    InvalidApiKey,
    #[error("the token is not valid")]
    InvalidToken,
    #[error("there are no credentials")]
    MissingCredentials,
    /// The users are not loaded yet or too old, so that nobody can say whether the credential is good.
    #[error("users are not known well enough")]
    Unavailable,
}

/// Why a credential is refused: what the caller is answered, and what the log says to those who ask for it, which is
/// nothing of the credential itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    error: AuthError,
    reason: &'static str,
}

impl Refused {
    const fn token(reason: &'static str) -> Self {
        Self { error: AuthError::InvalidToken, reason }
    }

    const fn expired(reason: &'static str) -> Self {
        Self { error: AuthError::ExpiredToken, reason }
    }

    const fn api_key(reason: &'static str) -> Self {
        Self { error: AuthError::InvalidApiKey, reason }
    }

    const fn missing(reason: &'static str) -> Self {
        Self { error: AuthError::MissingCredentials, reason }
    }

    const fn unavailable() -> Self {
        Self { error: AuthError::Unavailable, reason: "users are not loaded, or too old" }
    }
}

/// Turns credentials into callers.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
    callers: Arc<Callers>,
    api_keys_enabled: bool,
}

impl Authenticator {
    pub fn new(settings: AuthSettings, callers: Arc<Callers>) -> Self {
        let tokens = Arc::new(Tokens::new(settings.jwt));
        Self { tokens, callers, api_keys_enabled: settings.api_keys_enabled }
    }

    /// Verifies what a request has as `Authorization`, of which there may be one. A refusal has a line in the log.
    pub fn authenticate<'a>(
        &self,
        authorization: impl IntoIterator<Item = &'a [u8]>,
        request: &RequestId,
    ) -> Result<Caller, AuthError> {
        let caller = the_only(authorization).and_then(|header| self.caller(header));
        caller.map_err(|Refused { error, reason }| {
            tracing::debug!(request_id = request.as_str(), reason, "credential refused: {error}");
            error
        })
    }

    fn caller(&self, header: &[u8]) -> Result<Caller, Refused> {
        let refused = Refused::missing("Authorization has no bearer credential");
        let credential = bearer(header).ok_or(refused)?;
        // What is remembered was a token, and need not be looked at again to tell.
        if let Some(claims) = self.tokens.remembered(credential) {
            self.by_claims(claims)
        } else if let Some(token) = Token::read(credential) {
            self.by_claims(self.tokens.verify(credential, &token)?)
        } else {
            self.by_api_key(credential)
        }
    }

    fn by_claims(&self, claims: Claims) -> Result<Caller, Refused> {
        const SWITCHED_OFF: Refused = Refused::token("its user is switched off");
        let Claims { organization, user, has_upper_case_hex } = claims;
        let claimed = match organization {
            // The organization in a token is believed.
            Some(organization) if !has_upper_case_hex => {
                let is_off = self.callers.is_switched_off(&user);
                return if is_off { Err(SWITCHED_OFF) } else { Ok(Caller { organization, user }) };
            }
            claimed => claimed,
        };
        match (self.callers.user(&user), claimed) {
            (Known::SwitchedOff, _) => Err(SWITCHED_OFF),
            // The user's id as its document spells it.
            (Known::Active { organization, user }, claimed) => {
                Ok(Caller { organization: claimed.unwrap_or(organization), user })
            }
            (Known::Nobody | Known::Unknown, Some(organization)) => {
                Ok(Caller { organization, user })
            }
            (Known::Nobody, None) => {
                Err(Refused::token("it names no organization, and its user is unknown"))
            }
            (Known::Unknown, None) => Err(Refused::unavailable()),
        }
    }

    fn by_api_key(&self, key: &str) -> Result<Caller, Refused> {
        if !self.api_keys_enabled {
            return Err(Refused::api_key("it is not a token, and auth.api_key.enabled is false"));
        }
        match self.callers.api_key(key) {
            Known::Active { organization, user } => Ok(Caller { organization, user }),
            Known::SwitchedOff => Err(Refused::api_key("its user is switched off")),
            Known::Nobody => Err(Refused::api_key(
                "it is not a token, and not the key of users of one organization",
            )),
            Known::Unknown => Err(Refused::unavailable()),
        }
    }

    /// Tokens are verified as these settings say from now on.
    pub fn reload(&self, settings: JwtSettings) {
        self.tokens.replace(settings);
    }

    /// Keeps the keys that come from a file current. Never ends.
    pub fn follow_keys(
        &self,
        readiness: Reporter,
        metrics: Arc<Metrics>,
    ) -> impl Future<Output = ()> + use<> {
        jwks::follow(Arc::clone(&self.tokens), readiness, metrics)
    }
}

/// Of two credentials none is believed: another reader may take the other one.
fn the_only<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<&'a [u8], Refused> {
    let mut values = values.into_iter();
    let only = values.next().ok_or(Refused::missing("there is no Authorization"))?;
    match values.next() {
        None => Ok(only),
        Some(_) => Err(Refused::missing("there is more than one Authorization")),
    }
}

/// The credential of a `Bearer` header; the scheme is read without regard to case.
fn bearer(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, credential) = text.trim().split_once(' ')?;
    let credential = credential.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_is_a_credential() {
        assert_eq!(bearer(b"Bearer abc"), Some("abc"));
        assert_eq!(bearer(b"bEaReR   abc "), Some("abc"));
        for refused in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"abc", b"", b"Bearer \xff"] {
            assert_eq!(bearer(refused), None);
        }
    }
}
