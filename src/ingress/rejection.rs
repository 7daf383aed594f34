//! Every way in which a request is refused: the one table from error to answer.

use super::decoding::Undecodable;
use super::invalid_json::InvalidJson;
use super::webhook::WebhookError;
use crate::admission::{NoRoom, OverLimit};
use crate::auth::AuthError;
use crate::metrics::Outcome;
use crate::queue::{EnqueueError, Enqueued, InvalidIdempotencyKey};
use crate::triggers::Unknown;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Why a request is refused, with what its answer says beyond the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The caller has gone away while its body was read; nobody will see the answer.
    ClientClosed,
    FanoutTooLarge {
        matches: usize,
        max_matches: usize,
        bytes: usize,
        max_bytes: usize,
    },
    IdempotencyKeyReused,
    IndexUnavailable,
    Internal,
    InvalidBody(WebhookError),
    InvalidIdempotencyKey,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge {
        max_bytes: usize,
    },
    /// Redis takes no job of so many bytes; `None`: it does not tell how many.
    JobTooLarge {
        bytes: usize,
        max_bytes: Option<usize>,
    },
    QueueUnavailable(Enqueued),
    RateLimited(OverLimit),
    RequestTimeout,
    Unauthorized(AuthError),
    /// The body is not what its `Content-Encoding` says.
    Undecodable,
    UnsupportedEncoding {
        /// What is taken, as `Accept-Encoding` says it.
        accepted: String,
    },
    UnsupportedMediaType,
}

impl Rejection {
    /// The stable word: in the answer, and the label of the metric.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::ClientClosed => Outcome::ClientClosed,
            Self::FanoutTooLarge { .. } => Outcome::FanoutTooLarge,
            Self::IndexUnavailable | Self::Unauthorized(AuthError::Unavailable) => {
                Outcome::IndexUnavailable
            }
            Self::IdempotencyKeyReused => Outcome::IdempotencyKeyReused,
            Self::Internal => Outcome::Internal,
            Self::InvalidBody(WebhookError::InvalidJson(_)) | Self::Undecodable => {
                Outcome::InvalidJson
            }
            Self::InvalidBody(WebhookError::NotAnObject) => Outcome::BodyNotObject,
            Self::InvalidBody(WebhookError::MissingWebhookId) => Outcome::MissingWebhookId,
            Self::InvalidIdempotencyKey => Outcome::InvalidIdempotencyKey,
            Self::MethodNotAllowed => Outcome::MethodNotAllowed,
            Self::NotFound => Outcome::NotFound,
            Self::Overloaded => Outcome::Overloaded,
            Self::PayloadTooLarge { .. } | Self::JobTooLarge { .. } => Outcome::PayloadTooLarge,
            Self::QueueUnavailable(_) => Outcome::QueueUnavailable,
            Self::RateLimited(_) => Outcome::RateLimited,
            Self::RequestTimeout => Outcome::RequestTimeout,
            Self::Unauthorized(AuthError::MissingCredentials) => Outcome::MissingCredentials,
            Self::Unauthorized(AuthError::InvalidToken) => Outcome::InvalidToken,
            Self::Unauthorized(AuthError::ExpiredToken) => Outcome::ExpiredToken,
            Self::Unauthorized(AuthError::InvalidApiKey) => Outcome::InvalidApiKey,
            Self::UnsupportedEncoding { .. } | Self::UnsupportedMediaType => {
                Outcome::UnsupportedMediaType
            }
        }
    }

    pub fn status(&self) -> StatusCode {
        match self.outcome() {
            Outcome::InvalidJson
            | Outcome::BodyNotObject
            | Outcome::MissingWebhookId
            | Outcome::InvalidIdempotencyKey => StatusCode::BAD_REQUEST,
            Outcome::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Outcome::MissingCredentials
            | Outcome::InvalidToken
            | Outcome::ExpiredToken
            | Outcome::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Outcome::NotFound => StatusCode::NOT_FOUND,
            Outcome::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Outcome::RequestTimeout | Outcome::ClientClosed => StatusCode::REQUEST_TIMEOUT,
            Outcome::PayloadTooLarge | Outcome::FanoutTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Outcome::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Outcome::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Outcome::Overloaded | Outcome::IndexUnavailable | Outcome::QueueUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Outcome::Internal | Outcome::Accepted => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.status().as_u16(), 408 | 429 | 500 | 503)
    }

    /// Seconds after which to try again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Overloaded | Self::QueueUnavailable(_) => Some(1),
            Self::IndexUnavailable | Self::Unauthorized(AuthError::Unavailable) => Some(5),
            Self::RateLimited(over) => Some(over.retry_after_seconds()),
            _ => None,
        }
    }

    /// For people. Never repeats what the caller sent, never names what is inside.
    pub fn sentence(&self) -> &'static str {
        match self.outcome() {
            Outcome::QueueUnavailable if *self == Self::QueueUnavailable(Enqueued::Unknown) => {
                "Queue may have taken the webhook; send it again with the Idempotency-Key that it had"
            }
            Outcome::InvalidJson if *self == Self::Undecodable => {
                "Body is not what its Content-Encoding says, or not all of it"
            }
            Outcome::InvalidJson
                if *self
                    == Self::InvalidBody(WebhookError::InvalidJson(InvalidJson::in_framing())) =>
            {
                "Chunks of the body are not valid HTTP"
            }
            Outcome::InvalidJson => "Body is not valid JSON in UTF-8 of at most 128 levels",
            Outcome::BodyNotObject => "Body must be a JSON object",
            Outcome::MissingWebhookId => {
                "Body must have exactly one webhookId, a string of at most 256 bytes"
            }
            Outcome::InvalidIdempotencyKey => {
                "Idempotency-Key must be sent once and be 1 to 255 bytes of printable ASCII"
            }
            Outcome::IdempotencyKeyReused => "Idempotency-Key was used for another body",
            Outcome::MissingCredentials => {
                "Authentication required: send Authorization: Bearer once, with a JWT or an API key"
            }
            Outcome::InvalidToken => "Token is not valid here",
            Outcome::ExpiredToken => "Token has expired or is not valid yet",
            Outcome::InvalidApiKey => "API key is unknown or switched off",
            Outcome::NotFound => {
                "There is nothing at this path; webhooks go to /api/webhook/workflow"
            }
            Outcome::MethodNotAllowed => "Webhooks are sent with POST",
            Outcome::RequestTimeout | Outcome::ClientClosed => "Body did not arrive in time",
            Outcome::PayloadTooLarge => "Body is larger than is taken here",
            Outcome::FanoutTooLarge => "Webhook would start more than one request may",
            Outcome::UnsupportedMediaType if *self == Self::UnsupportedMediaType => {
                "Content-Type must be application/json"
            }
            Outcome::UnsupportedMediaType => {
                "Content-Encoding must be one of Accept-Encoding, or absent"
            }
            Outcome::RateLimited => "Organization sends more than it may; try again later",
            Outcome::Overloaded => "Too many requests are in flight; try again shortly",
            Outcome::IndexUnavailable => {
                "Workflows or users are not known well enough; try again shortly"
            }
            Outcome::QueueUnavailable => "Queue did not take the webhook; try again shortly",
            Outcome::Internal | Outcome::Accepted => "Webhook processing failed",
        }
    }

    pub fn details(&self) -> Option<Value> {
        match self {
            Self::FanoutTooLarge { matches, max_matches, bytes, max_bytes } => Some(json!({
                "matches": matches, "maxMatches": max_matches, "bytes": bytes, "maxBytes": max_bytes,
            })),
            Self::PayloadTooLarge { max_bytes } => Some(json!({ "maxBytes": max_bytes })),
            Self::JobTooLarge { bytes, max_bytes: Some(max_bytes) } => {
                Some(json!({ "bytes": bytes, "maxBytes": max_bytes }))
            }
            Self::JobTooLarge { bytes, max_bytes: None } => Some(json!({ "bytes": bytes })),
            Self::InvalidBody(WebhookError::InvalidJson(InvalidJson { kind, offset })) => {
                Some(match offset {
                    Some(offset) => json!({ "kind": kind.word(), "offset": offset }),
                    None => json!({ "kind": kind.word() }),
                })
            }
            Self::Undecodable => Some(json!({ "kind": "encoding" })),
            Self::QueueUnavailable(enqueued) => Some(json!({ "enqueued": enqueued.word() })),
            _ if self.status().is_server_error() => {
                Some(json!({ "enqueued": Enqueued::Nothing.word() }))
            }
            _ => None,
        }
    }
}

impl From<NoRoom> for Rejection {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Overloaded => Self::Overloaded,
            NoRoom::OverLimit(over) => Self::RateLimited(over),
        }
    }
}

impl From<Undecodable> for Rejection {
    fn from(_: Undecodable) -> Self {
        Self::Undecodable
    }
}

impl From<WebhookError> for Rejection {
    fn from(error: WebhookError) -> Self {
        Self::InvalidBody(error)
    }
}

impl From<AuthError> for Rejection {
    fn from(error: AuthError) -> Self {
        Self::Unauthorized(error)
    }
}

impl From<Unknown> for Rejection {
    fn from(_: Unknown) -> Self {
        Self::IndexUnavailable
    }
}

impl From<InvalidIdempotencyKey> for Rejection {
    fn from(_: InvalidIdempotencyKey) -> Self {
        Self::InvalidIdempotencyKey
    }
}

impl From<EnqueueError> for Rejection {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::NoRoom(no_room) => no_room.into(),
            EnqueueError::IdempotencyKeyReused => Self::IdempotencyKeyReused,
            EnqueueError::TooLarge { matches, max_matches, bytes, max_bytes } => {
                Self::FanoutTooLarge { matches, max_matches, bytes, max_bytes }
            }
            EnqueueError::PayloadTooLarge { bytes, max_bytes } => {
                Self::JobTooLarge { bytes, max_bytes }
            }
            EnqueueError::Unavailable(enqueued) => Self::QueueUnavailable(enqueued),
        }
    }
}
