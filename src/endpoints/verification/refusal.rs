//! Why a delivery is refused.

use std::fmt;

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The verification is for other clients.
    AddressNotAllowed,
    /// The verification is for certain clients, and the client's address is not known. Every
    /// connection over TCP has one; a caller that has none passes none.
    AddressUnknown,
    /// A field, a query parameter or a member of the body that is needed is not there.
    Missing,
    /// It is there more than once.
    Repeated,
    /// It is not written as the description says.
    Malformed,
    /// The signature is right, but the time is further in the past than the tolerance.
    TooOld,
    /// The signature is right, but the time is further in the future than the tolerance.
    TooEarly,
    /// No secret or key gives this signature.
    WrongSignature,
    /// The secret, user name, password or token is another one.
    WrongSecret,
    /// The token is for another receiver.
    WrongAudience,
    /// The digest in the query is not that of the body.
    WrongBodyDigest,
    /// The body is of a kind that this scheme does not sign.
    UnsignedBody,
}

impl RefusalKind {
    /// The kind in one word, for logs and for the preview.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AddressNotAllowed => "address_not_allowed",
            Self::AddressUnknown => "address_unknown",
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Malformed => "malformed",
            Self::TooOld => "too_old",
            Self::TooEarly => "too_early",
            Self::WrongSignature => "wrong_signature",
            Self::WrongSecret => "wrong_secret",
            Self::WrongAudience => "wrong_audience",
            Self::WrongBodyDigest => "wrong_body_digest",
            Self::UnsignedBody => "unsigned_body",
        }
    }
}

/// Why a delivery is refused. It contains no value of the request and no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// The name of what is missing or wrong, as the description gives it.
    pub part: Option<String>,
    /// How far the time is off, in milliseconds: positive in the future.
    pub off_by: Option<i64>,
}

impl Refusal {
    /// Whether only the time of the delivery is wrong.
    pub fn is_stale(&self) -> bool {
        matches!(self.kind, RefusalKind::TooOld | RefusalKind::TooEarly)
    }

    pub(super) fn new(kind: RefusalKind) -> Self {
        Self { kind, part: None, off_by: None }
    }

    /// A refusal that names what is missing or wrong.
    pub(super) fn with_part(kind: RefusalKind, part: &str) -> Self {
        Self { part: Some(part.to_owned()), ..Self::new(kind) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.as_str())?;
        if let Some(part) = &self.part {
            write!(formatter, ": {part}")?;
        }
        match self.off_by {
            Some(milliseconds) => write!(formatter, " (off by {milliseconds} ms)"),
            None => Ok(()),
        }
    }
}
