//! Authenticates callers: only a verified JWT or API key becomes a [`Caller`].

mod callers;
mod conflicts;
mod credential;
mod jwks;
mod jwt;
mod key_encoding;
#[cfg(test)]
mod model;
mod refusal;
mod token_cache;
mod unknown_key_ids;
mod users;

pub use crate::auth::callers::Callers;
pub use crate::auth::credential::{CredentialField, CredentialSettings};
pub use crate::auth::jwt::{JwkSet, JwksSource, JwtSettings, mint};
pub use crate::auth::refusal::AuthError;
pub use crate::auth::users::{UserCollection, UserRecord, UsersSettings};

use crate::auth::callers::UserLookup;
use crate::auth::credential::Credential;
use crate::auth::jwt::{Claims, Token};
use crate::auth::refusal::CredentialRefusal;
use crate::auth::token_cache::Tokens;
use crate::ids::{OrganizationId, RequestId, UserId};
use crate::metrics::Metrics;
use crate::process::findings::Findings;
use crate::process::lifecycle::Reporter;
use crate::settings::Section;
use std::sync::Arc;

/// The section `[auth]`.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    pub jwt: JwtSettings,
    pub api_keys_enabled: bool,
    pub credentials: CredentialSettings,
}

impl AuthSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let jwt = JwtSettings::read(&mut section.section("jwt"));
        let api_keys_enabled = section.section("api_key").value("enabled", true);
        let credentials = CredentialSettings::read(&mut section.section("api_key"));
        if !api_keys_enabled && !jwt.has_keys() {
            section.fault(
                "jwt",
                "no key for tokens, and API keys are disabled: every request would be rejected",
            );
        }
        if !credentials.accept_tokens() {
            let note = "tokens are accepted only after Bearer in Authorization";
            if !api_keys_enabled {
                section.fault(
                    "api_key",
                    format!("{note}, and API keys are disabled: every request would be rejected"),
                );
            } else if jwt.has_keys() {
                section.warning("api_key", format!("{note}, so auth.jwt has no effect"));
            }
        }
        Self { jwt, api_keys_enabled, credentials }
    }

    /// Checks the URL of the JWK set, for `hookgate check --connect`. `None` without a URL.
    pub async fn survey(&self) -> Option<Findings> {
        jwks::survey(&self.jwt, self.api_keys_enabled).await
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
    credentials: CredentialSettings,
}

impl Authenticator {
    pub fn new(settings: AuthSettings, callers: Arc<Callers>) -> Self {
        let AuthSettings { jwt, api_keys_enabled, credentials } = settings;
        Self { tokens: Arc::new(Tokens::new(jwt)), callers, api_keys_enabled, credentials }
    }

    /// Verifies the credential of a request. `fields` are the values of all header fields that may
    /// carry one, and there must be exactly one. A refusal is logged at debug level.
    pub fn authenticate<'a>(
        &self,
        fields: impl IntoIterator<Item = CredentialField<'a>>,
        request: &RequestId,
    ) -> Result<Caller, AuthError> {
        let caller = single_field(fields).and_then(|field| self.caller(field));
        caller.map_err(|CredentialRefusal { error, reason }| {
            tracing::debug!(request_id = request.as_str(), reason, "credential refused: {error}");
            error
        })
    }

    fn caller(&self, field: CredentialField<'_>) -> Result<Caller, CredentialRefusal> {
        let refusal = CredentialRefusal::missing("there is no bearer credential or API key");
        let credential = match self.credentials.credential(field).ok_or(refusal)? {
            Credential::ApiKey(key) => return self.by_api_key(key),
            Credential::TokenOrApiKey(credential) => credential,
        };
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
                let is_switched_off = self.callers.is_switched_off(&user, &organization);
                return if is_switched_off {
                    Err(SWITCHED_OFF)
                } else {
                    Ok(Caller { organization, user })
                };
            }
            claimed => claimed,
        };
        match (self.callers.user(&user, claimed.as_ref()), claimed) {
            (UserLookup::Disabled, _) => Err(SWITCHED_OFF),
            // The caller gets the ids in the spelling of the document.
            (UserLookup::Active { organization, user }, claimed) => {
                let other = claimed.filter(|claimed| *claimed != organization);
                let other = other.map(OrganizationId::with_lower_case_hex);
                Ok(Caller { organization: other.unwrap_or(organization), user })
            }
            (UserLookup::NotFound | UserLookup::StaleIndex, Some(organization)) => {
                Ok(Caller { organization: organization.with_lower_case_hex(), user })
            }
            (UserLookup::NotFound, None) => Err(CredentialRefusal::token(
                "it has no organization, and its user is unknown or users of several organizations have its id",
            )),
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
        self.tokens.reload(settings);
    }

    /// Follows the file or URL of the JWK set. Never ends.
    pub fn follow_keys(
        &self,
        readiness: Reporter,
        metrics: Arc<Metrics>,
    ) -> impl Future<Output = ()> + use<> {
        jwks::follow(Arc::clone(&self.tokens), self.api_keys_enabled, readiness, metrics)
    }
}

/// Returns the only field. Two credentials are rejected, because a proxy may have verified the other
/// one.
fn single_field<'a>(
    fields: impl IntoIterator<Item = CredentialField<'a>>,
) -> Result<CredentialField<'a>, CredentialRefusal> {
    let mut fields = fields.into_iter();
    let first = fields.next();
    let first = first
        .ok_or(CredentialRefusal::missing("there is no Authorization or other configured field"))?;
    match fields.next() {
        None => Ok(first),
        Some(_) => Err(CredentialRefusal::missing("there is more than one credential")),
    }
}
