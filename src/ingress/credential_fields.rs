//! The header fields of a request that carry credentials, and the answer to a request without one.

use crate::auth::{CredentialField, CredentialSettings};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

/// Finds the credentials of a request.
#[derive(Debug)]
pub struct CredentialFields {
    names: Vec<HeaderName>,
    /// The value of `WWW-Authenticate`.
    pub(super) challenge: HeaderValue,
    /// The error sentence for a request without credentials.
    pub(super) instruction: String,
}

impl CredentialFields {
    pub fn new(settings: &CredentialSettings) -> Self {
        // The settings have only valid names.
        let names = settings.headers.iter().filter_map(|name| name.parse().ok());
        let challenge = HeaderValue::try_from(settings.challenge());
        Self {
            names: names.collect(),
            challenge: challenge.unwrap_or(HeaderValue::from_static("Bearer")),
            instruction: settings.instruction(),
        }
    }

    /// All values of these fields, in order.
    pub(super) fn values<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = CredentialField<'a>> {
        self.names.iter().flat_map(|name| {
            let is_authorization = *name == AUTHORIZATION;
            headers.get_all(name).iter().map(move |value| {
                if is_authorization {
                    CredentialField::Authorization(value.as_bytes())
                } else {
                    CredentialField::ApiKey(value.as_bytes())
                }
            })
        })
    }
}
