//! Who calls: a JWT or an API key becomes a [`Caller`], and nothing else does.

mod callers;
mod jwt;
#[cfg(test)]
mod model;
mod tokens;
mod users;

pub use callers::Callers;
pub use jwt::{JwtSettings, mint};
pub use users::{UserRecord, UsersLoad, UsersSettings, UsersView};

use crate::ids::{OrganizationId, UserId};
use crate::settings::Section;
use callers::Known;
use jwt::Claims;
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

    /// Verifies the value of the `Authorization` header.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Caller, AuthError> {
        let credential = authorization.and_then(bearer).ok_or(AuthError::MissingCredentials)?;
        // What is remembered was a token, and need not be looked at again to tell.
        if let Some(claims) = self.tokens.remembered(credential) {
            self.by_claims(claims)
        } else if is_token(credential) {
            self.by_claims(self.tokens.verify(credential)?)
        } else {
            self.by_api_key(credential)
        }
    }

    fn by_claims(&self, claims: Claims) -> Result<Caller, AuthError> {
        let Claims { organization, user } = claims;
        let organization = match organization {
            // The organization in a token is believed.
            Some(organization) => (!self.callers.is_switched_off(&user)).then_some(organization),
            None => match self.callers.user(&user) {
                Known::Active { organization, .. } => Some(organization),
                Known::SwitchedOff | Known::Nobody => None,
                Known::Unknown => return Err(AuthError::Unavailable),
            },
        };
        let Some(organization) = organization else {
            tracing::debug!(
                "token refused: its user is switched off, or unknown and it names no organization"
            );
            return Err(AuthError::InvalidToken);
        };
        Ok(Caller { organization, user })
    }

    fn by_api_key(&self, key: &str) -> Result<Caller, AuthError> {
        if !self.api_keys_enabled {
            return Err(AuthError::InvalidApiKey);
        }
        match self.callers.api_key(key) {
            Known::Active { organization, user } => Ok(Caller { organization, user }),
            Known::SwitchedOff | Known::Nobody => Err(AuthError::InvalidApiKey),
            Known::Unknown => Err(AuthError::Unavailable),
        }
    }

    /// Tokens are verified as these settings say from now on.
    pub fn reload(&self, settings: JwtSettings) {
        self.tokens.replace(settings);
    }

    /// Keeps the keys that come from a file current. Never ends.
    pub fn follow_keys(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.tokens).follow_jwks()
    }
}

/// The credential of a `Bearer` header; the scheme is read without regard to case.
fn bearer(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, credential) = text.trim().split_once(' ')?;
    let credential = credential.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// Three non-empty parts in base64url, with dots between: a JWT. Anything else is an API key.
fn is_token(credential: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    credential.split('.').count() == 3 && credential.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_credential_tells_its_kind() {
        assert!(is_token("eyJ.e-_0.abc"));
        for key in ["eyJ.e30.", "a.b.c.d", "a.b", "key", "a.b.c="] {
            assert!(!is_token(key), "{key}");
        }
    }

    #[test]
    fn only_bearer_is_a_credential() {
        assert_eq!(bearer(b"Bearer abc"), Some("abc"));
        assert_eq!(bearer(b"bEaReR   abc "), Some("abc"));
        for refused in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"abc", b"", b"Bearer \xff"] {
            assert_eq!(bearer(refused), None);
        }
    }
}
