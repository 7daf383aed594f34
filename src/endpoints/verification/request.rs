//! A delivery as a verification sees it.

use std::fmt;
use std::net::IpAddr;

/// A header field of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    Missing,
    Once(&'a [u8]),
    /// The field is there more than once. No value is picked, because another reader could pick
    /// another one.
    Repeated,
}

/// The header fields of a request.
pub trait HeaderFields: Sync {
    /// The field of a name in lower case.
    fn field(&self, name: &str) -> Field<'_>;
}

/// A delivery as it came, before it is decoded or parsed.
#[derive(Clone, Copy)]
pub struct DeliveryRequest<'a> {
    pub method: &'a str,
    /// Scheme, host, path and query, as the provider sees them.
    pub url: &'a str,
    /// The query without its question mark, still encoded.
    pub query: &'a str,
    pub headers: &'a dyn HeaderFields,
    /// The bytes as they came.
    pub body: &'a [u8],
    /// `None` if the client's address is not known.
    pub client: Option<IpAddr>,
}

impl fmt::Debug for DeliveryRequest<'_> {
    /// Neither the query nor the fields nor the body: each can contain a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("DeliveryRequest");
        debug.field("method", &self.method).field("body", &self.body.len()).finish_non_exhaustive()
    }
}

impl<'a> DeliveryRequest<'a> {
    /// Whether the body is announced as a form.
    pub(super) fn is_form(&self) -> bool {
        let Field::Once(value) = self.headers.field("content-type") else { return false };
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    }

    /// The values of a query parameter, decoded.
    pub(super) fn query_values(&self, name: &str) -> impl Iterator<Item = String> + use<'a> {
        let name = name.to_owned();
        form_urlencoded::parse(self.query.as_bytes())
            .filter(move |(found, _)| *found == name)
            .map(|(_, value)| value.into_owned())
    }
}
