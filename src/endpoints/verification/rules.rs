//! What a description says, ready to be checked against a request.

use crate::endpoints::verification::body_path::BodyPath;
use crate::endpoints::verification::keys::Encoding;
use crate::endpoints::verification::template::Template;
use crate::endpoints::verification::time::TimeRule;
use crate::endpoints::verification::url_form::UrlForm;
use aws_lc_rs::hmac;
use std::time::Duration;

/// How a delivery is verified.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Signed(SignedRule),
    Jwt(JwtRule),
    /// A secret in a header field, after a prefix.
    Header {
        name: String,
        prefix: String,
    },
    Basic {
        user: String,
    },
    Query {
        name: String,
    },
    BodySecret {
        path: BodyPath,
    },
    None,
}

/// A signature over parts of the request.
#[derive(Debug, Clone)]
pub(super) struct SignedRule {
    pub(super) algorithm: Algorithm,
    pub(super) signed: Template,
    /// The ways in which the address may be written where it is signed; at least one.
    pub(super) url_forms: Vec<UrlForm>,
    /// The query parameter that must equal the SHA-256 of the body, in hex.
    pub(super) body_digest_query: Option<String>,
    pub(super) place: SignaturePlace,
    pub(super) encoding: Encoding,
    pub(super) time: Option<TimeRule>,
    /// Header fields with the id. Several belong to the header fields of the signature, in order.
    pub(super) id_headers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hmac(Hash),
    Ed25519,
    EcdsaP256,
}

impl Algorithm {
    /// Bound on the signatures that one request can offer. Ed25519 reads the message for each.
    pub(super) fn max_signatures(self) -> usize {
        match self {
            Self::Hmac(_) | Self::EcdsaP256 => 16,
            Self::Ed25519 => 4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// Where the signature is.
#[derive(Debug, Clone)]
pub(super) enum SignaturePlace {
    Headers(SignatureHeaders),
    Body(BodyPath),
}

/// Header fields with signatures.
#[derive(Debug, Clone)]
pub(super) struct SignatureHeaders {
    /// The first that the request has counts.
    pub(super) names: Vec<String>,
    /// The name of the items that are signatures, in a list of `name=value`.
    pub(super) item: Option<String>,
    /// What separates items, or signatures if items have no name. `None`: the field is one.
    pub(super) separator: Option<String>,
    /// What precedes each signature. In a list of signatures, those without it are of other kinds.
    pub(super) prefix: String,
}

/// A token that is signed by itself.
#[derive(Debug, Clone)]
pub(super) struct JwtRule {
    pub(super) header: String,
    pub(super) prefix: String,
    /// Of a token that is signed with a secret.
    pub(super) hash: Hash,
    pub(super) tolerance: Duration,
    /// Whether a token without `exp`, which is valid for ever, is refused.
    pub(super) requires_exp: bool,
    /// What the token has to be for. `{url}` is the address of the request.
    pub(super) audience: Option<String>,
}

/// Where the id of a delivery is.
#[derive(Debug, Clone)]
pub(super) enum DeliveryIdRule {
    None,
    /// The header field of the id that is signed.
    Signed,
    Header(String),
    Body(BodyPath),
}
