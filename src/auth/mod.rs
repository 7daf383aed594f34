//! Authenticates callers: only a verified JWT or API key becomes a [`Caller`].

mod callers;
mod jwks;
mod jwt;
#[cfg(test)]
mod model;
mod refusal;
mod token_cache;
mod users;

pub use crate::auth::callers::Callers;
pub use crate::auth::jwt::{JwtSettings, mint};
pub use crate::auth::refusal::AuthError;
pub use crate::auth::users::{UserCollection, UserRecord, UsersSettings};

use crate::auth::callers::UserLookup;
use crate::auth::jwt::{Claims, Token};
use crate::auth::refusal::CredentialRefusal;
use crate::auth::token_cache::Tokens;
use crate::ids::{OrganizationId, RequestId, UserId};
use crate::metrics::Metrics;
use crate::process::lifecycle::Reporter;
use crate::settings::Section;
use std::sync::Arc;

/// The section `[auth]`.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    pub jwt: JwtSettings,
    pub api_keys_enabled: bool,
    /// The header fields in which callers send credentials, in any case.
    pub credential_headers: Vec<String>,
}

impl AuthSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let jwt = JwtSettings::read(&mut section.section("jwt"));
        let api_keys_enabled = section.section("api_key").value("enabled", true);
        if !api_keys_enabled && !jwt.has_keys() {
            section.fault(
                "jwt",
                "no key for tokens, and API keys are disabled: every request would be rejected",
            );
        }
        Self { jwt, api_keys_enabled, credential_headers: vec!["Authorization".to_owned()] }
    }
}

/// An authenticated caller. Only [`Authenticator`] creates one.
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

/// Verifies credentials.
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

    /// Verifies the `Authorization` of a request, which must occur exactly once. A refusal is
    /// logged at debug level.
    pub fn authenticate<'a>(
        &self,
        authorization: impl IntoIterator<Item = &'a [u8]>,
        request: &RequestId,
    ) -> Result<Caller, AuthError> {
        let caller = single_header(authorization).and_then(|header| self.caller(header));
        caller.map_err(|CredentialRefusal { error, reason }| {
            tracing::debug!(request_id = request.as_str(), reason, "credential refused: {error}");
            error
        })
    }

    fn caller(&self, header: &[u8]) -> Result<Caller, CredentialRefusal> {
        let refusal = CredentialRefusal::missing("Authorization has no bearer credential");
        let credential = bearer(header).ok_or(refusal)?;
        // A cached credential is a token, so it is not parsed again to find that out.
        if let Some(claims) = self.tokens.cached(credential) {
            self.by_claims(claims)
        } else if let Some(token) = Token::read(credential) {
            self.by_claims(self.tokens.verify(credential, &token)?)
        } else {
            self.by_api_key(credential)
        }
    }

    fn by_claims(&self, claims: Claims) -> Result<Caller, CredentialRefusal> {
        const SWITCHED_OFF: CredentialRefusal =
            CredentialRefusal::token("its user is switched off");
        let Claims { organization, user, has_upper_case_hex } = claims;
        let claimed = match organization {
            // A claimed organization is trusted, so only the state of the user is looked up.
            Some(organization) if !has_upper_case_hex => {
                let is_switched_off = self.callers.is_switched_off(&user);
                return if is_switched_off {
                    Err(SWITCHED_OFF)
                } else {
                    Ok(Caller { organization, user })
                };
            }
            claimed => claimed,
        };
        match (self.callers.user(&user), claimed) {
            (UserLookup::Disabled, _) => Err(SWITCHED_OFF),
            // The caller gets the id in the spelling of the document.
            (UserLookup::Active { organization, user }, claimed) => {
                Ok(Caller { organization: claimed.unwrap_or(organization), user })
            }
            (UserLookup::NotFound | UserLookup::StaleIndex, Some(organization)) => {
                Ok(Caller { organization, user })
            }
            (UserLookup::NotFound, None) => {
                Err(CredentialRefusal::token("it has no organization, and its user is unknown"))
            }
            (UserLookup::StaleIndex, None) => Err(CredentialRefusal::unavailable()),
        }
    }

    fn by_api_key(&self, key: &str) -> Result<Caller, CredentialRefusal> {
        if !self.api_keys_enabled {
            return Err(CredentialRefusal::api_key(
                "it is not a token, and auth.api_key.enabled is false",
            ));
        }
        match self.callers.api_key(key) {
            UserLookup::Active { organization, user } => Ok(Caller { organization, user }),
            UserLookup::Disabled => Err(CredentialRefusal::api_key("its user is switched off")),
            UserLookup::NotFound => Err(CredentialRefusal::api_key(
                "it is not a token and not the key of users of exactly one organization",
            )),
            UserLookup::StaleIndex => Err(CredentialRefusal::unavailable()),
        }
    }

    /// Verifies tokens by these settings from now on.
    pub fn reload(&self, settings: JwtSettings) {
        self.tokens.replace(settings);
    }

    /// Follows the file of the JWK set. Never ends.
    pub fn follow_keys(
        &self,
        readiness: Reporter,
        metrics: Arc<Metrics>,
    ) -> impl Future<Output = ()> + use<> {
        jwks::follow(Arc::clone(&self.tokens), readiness, metrics)
    }
}

/// Returns the only header value. Two credentials are rejected, because a proxy may have verified
/// the other one.
fn single_header<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<&'a [u8], CredentialRefusal> {
    let mut values = values.into_iter();
    let first = values.next().ok_or(CredentialRefusal::missing("there is no Authorization"))?;
    match values.next() {
        None => Ok(first),
        Some(_) => Err(CredentialRefusal::missing("there is more than one Authorization")),
    }
}

/// Returns the credential of a `Bearer` header. The case of the scheme is ignored.
fn bearer(header: &[u8]) -> Option<&str> {
    let header = std::str::from_utf8(header).ok()?;
    let (scheme, credential) = header.trim().split_once(' ')?;
    let credential = credential.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_scheme_is_accepted() {
        assert_eq!(bearer(b"Bearer abc"), Some("abc"));
        assert_eq!(bearer(b"bEaReR   abc "), Some("abc"));
        for header in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"abc", b"", b"Bearer \xff"] {
            assert_eq!(bearer(header), None);
        }
    }
}
