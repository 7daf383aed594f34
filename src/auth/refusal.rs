//! The reasons to refuse a credential.

/// Why a credential is refused, for the answer to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the token has expired or is not valid yet")]
    ExpiredToken,
    #[error("the API key is unknown or switched off")]
    InvalidApiKey,
    #[error("the token is not valid")]
    InvalidToken,
    /// The key of the token is not in the JWK set that was fetched last, or there is no set yet.
    #[error("the key of the token is not known yet")]
    KeyUnavailable,
    #[error("there are no credentials")]
    MissingCredentials,
    /// The users are not loaded or are stale, so the credential can be neither accepted nor
    /// refused.
    #[error("the users are not loaded or are stale")]
    StaleIndex,
}

/// Why a credential is refused: the error for the caller, and the reason for the debug log. The
/// reason contains no part of the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CredentialRefusal {
    pub(super) error: AuthError,
    pub(super) reason: &'static str,
}

impl CredentialRefusal {
    pub(super) const fn token(reason: &'static str) -> Self {
        Self { error: AuthError::InvalidToken, reason }
    }

    pub(super) const fn expired(reason: &'static str) -> Self {
        Self { error: AuthError::ExpiredToken, reason }
    }

    pub(super) const fn api_key(reason: &'static str) -> Self {
        Self { error: AuthError::InvalidApiKey, reason }
    }

    pub(super) const fn missing(reason: &'static str) -> Self {
        Self { error: AuthError::MissingCredentials, reason }
    }

    pub(super) const fn key_unavailable() -> Self {
        Self {
            error: AuthError::KeyUnavailable,
            reason: "its key is not in the JWK set of auth.jwt.jwks_url that was fetched last",
        }
    }

    pub(super) const fn unavailable() -> Self {
        Self { error: AuthError::StaleIndex, reason: "the users are not loaded or are stale" }
    }
}
