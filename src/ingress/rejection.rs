//! The table of rejections: the status, code, sentence and details of each error.

use crate::admission::{AdmissionError, OverLimit};
use crate::auth::AuthError;
use crate::endpoints::failures::RetryAfter;
use crate::endpoints::payload::{MultipartFault, PayloadError};
use crate::endpoints::verification::UnfitHandshake;
use crate::http::unread_body::RejectionCause;
use crate::ingress::webhook::WebhookError;
use crate::json::InvalidJson;
use crate::metrics::{Limit, Outcome};
use crate::queue::{EnqueueError, Enqueued, InvalidIdempotencyKey};
use crate::triggers::StaleIndex;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Why a request is rejected, with the details for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The caller closed the connection while its body was read. No one receives the answer.
    ClientClosed,
    FanoutTooLarge {
        matches: usize,
        max_matches: usize,
        bytes: usize,
        max_bytes: usize,
    },
    IdempotencyKeyReused,
    StaleIndex,
    DeliveryMethodNotAllowed,
    Internal,
    InvalidBody(WebhookError),
    InvalidIdempotencyKey,
    InvalidMultipart(MultipartFault),
    MethodNotAllowed,
    NotFound,
    Overloaded,
    BodyTooLarge {
        max_bytes: usize,
    },
    /// The job exceeds the size that Redis accepts. `max_bytes` is `None` if Redis does not report
    /// its limit.
    JobTooLarge {
        bytes: usize,
        max_bytes: Option<usize>,
    },
    QueueUnavailable(Enqueued),
    RateLimited(OverLimit),
    RequestTimeout,
    /// Too many deliveries of this client to this address failed their verification.
    TooManyFailures {
        retry_after_seconds: u64,
    },
    Unauthorized(AuthError),
    /// The body cannot be decoded by its `Content-Encoding`.
    Undecodable,
    UnsupportedEncoding {
        /// The supported encodings, as the value of `Accept-Encoding`.
        accepted: String,
    },
    UnsupportedMediaType,
    /// No trigger has this address.
    UnknownWebhook,
    /// No verification of the address accepts the delivery.
    InvalidSignature,
    /// A verification would accept the delivery, but for its time.
    StaleSignature,
}

impl Rejection {
    /// How this rejection affects the unread part of the body.
    pub(crate) fn body_cause(&self) -> RejectionCause {
        match self {
            Self::RequestTimeout => RejectionCause::Timeout,
            Self::Overloaded | Self::BodyTooLarge { .. } => RejectionCause::Size,
            Self::RateLimited(over) if over.limit == Limit::InFlightBytes => RejectionCause::Size,
            _ => RejectionCause::Other,
        }
    }

    /// The stable code in the answer, which is also the label of the metric.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::ClientClosed => Outcome::ClientClosed,
            Self::FanoutTooLarge { .. } => Outcome::FanoutTooLarge,
            Self::StaleIndex | Self::Unauthorized(AuthError::StaleIndex) => {
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
            Self::InvalidMultipart(_) => Outcome::InvalidMultipart,
            Self::MethodNotAllowed | Self::DeliveryMethodNotAllowed => Outcome::MethodNotAllowed,
            Self::NotFound => Outcome::NotFound,
            Self::Overloaded => Outcome::Overloaded,
            Self::BodyTooLarge { .. } | Self::JobTooLarge { .. } => Outcome::PayloadTooLarge,
            Self::QueueUnavailable(_) => Outcome::QueueUnavailable,
            Self::RateLimited(_) | Self::TooManyFailures { .. } => Outcome::RateLimited,
            Self::RequestTimeout => Outcome::RequestTimeout,
            Self::Unauthorized(AuthError::MissingCredentials) => Outcome::MissingCredentials,
            Self::Unauthorized(AuthError::InvalidToken) => Outcome::InvalidToken,
            Self::Unauthorized(AuthError::ExpiredToken) => Outcome::ExpiredToken,
            Self::Unauthorized(AuthError::InvalidApiKey) => Outcome::InvalidApiKey,
            Self::Unauthorized(AuthError::KeyUnavailable) => Outcome::KeysUnavailable,
            Self::UnsupportedEncoding { .. } | Self::UnsupportedMediaType => {
                Outcome::UnsupportedMediaType
            }
            Self::UnknownWebhook => Outcome::UnknownWebhook,
            Self::InvalidSignature => Outcome::InvalidSignature,
            Self::StaleSignature => Outcome::StaleSignature,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self.outcome() {
            Outcome::InvalidJson
            | Outcome::BodyNotObject
            | Outcome::InvalidMultipart
            | Outcome::MissingWebhookId
            | Outcome::InvalidIdempotencyKey => StatusCode::BAD_REQUEST,
            Outcome::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Outcome::MissingCredentials
            | Outcome::InvalidToken
            | Outcome::ExpiredToken
            | Outcome::InvalidApiKey
            | Outcome::InvalidSignature
            | Outcome::StaleSignature => StatusCode::UNAUTHORIZED,
            Outcome::NotFound | Outcome::UnknownWebhook => StatusCode::NOT_FOUND,
            Outcome::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Outcome::RequestTimeout | Outcome::ClientClosed => StatusCode::REQUEST_TIMEOUT,
            Outcome::PayloadTooLarge | Outcome::FanoutTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Outcome::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Outcome::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Outcome::Overloaded
            | Outcome::IndexUnavailable
            | Outcome::KeysUnavailable
            | Outcome::QueueUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::Internal | Outcome::Accepted | Outcome::Handshake => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.status().as_u16(), 408 | 429 | 500 | 503)
    }

    /// The value of `Retry-After`, in seconds.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Overloaded | Self::QueueUnavailable(_) => Some(1),
            Self::StaleIndex | Self::Unauthorized(AuthError::StaleIndex) => Some(5),
            Self::Unauthorized(AuthError::KeyUnavailable) => Some(10),
            Self::RateLimited(over) => Some(over.retry_after_seconds()),
            Self::TooManyFailures { retry_after_seconds } => Some(*retry_after_seconds),
            _ => None,
        }
    }

    /// The error sentence for people. It never repeats what the caller sent and never names
    /// internals.
    pub fn sentence(&self) -> &'static str {
        match self.outcome() {
            Outcome::QueueUnavailable if *self == Self::QueueUnavailable(Enqueued::Unknown) => {
                "Jobs may have been enqueued; retry only with the Idempotency-Key of this request"
            }
            Outcome::InvalidJson if *self == Self::Undecodable => {
                "Body does not match its Content-Encoding or is incomplete"
            }
            Outcome::InvalidJson
                if *self
                    == Self::InvalidBody(WebhookError::InvalidJson(InvalidJson::in_framing())) =>
            {
                "Body has malformed HTTP chunks"
            }
            Outcome::InvalidJson => {
                "Body must be valid JSON in UTF-8 with at most 128 levels of nesting"
            }
            Outcome::InvalidMultipart => "Body must be valid multipart/form-data",
            Outcome::BodyNotObject => "Body must be a JSON object",
            Outcome::MissingWebhookId => {
                "Body must contain exactly one webhookId, a string of at most 256 bytes"
            }
            Outcome::InvalidIdempotencyKey => {
                "Idempotency-Key must be sent once and be 1 to 255 bytes of printable ASCII"
            }
            Outcome::IdempotencyKeyReused => {
                "Idempotency-Key was already used with a different body"
            }
            Outcome::MissingCredentials => {
                "Authentication required: send exactly one Authorization header: Bearer with a JWT or an API key"
            }
            Outcome::InvalidToken => "Token is not valid for this service",
            Outcome::ExpiredToken => "Token has expired or is not valid yet",
            Outcome::InvalidApiKey => "API key is unknown or switched off",
            Outcome::NotFound => "No such path; send webhooks to /api/webhook/workflow",
            Outcome::MethodNotAllowed if *self == Self::DeliveryMethodNotAllowed => {
                "Method must be GET, POST, PUT, PATCH or DELETE"
            }
            Outcome::MethodNotAllowed => "Method must be POST",
            Outcome::RequestTimeout | Outcome::ClientClosed => "Body did not arrive in time",
            Outcome::PayloadTooLarge => "Body exceeds the size limit",
            Outcome::FanoutTooLarge => "Webhook exceeds the fan-out limit of one request",
            Outcome::UnsupportedMediaType if *self == Self::UnsupportedMediaType => {
                "Content-Type must be application/json or application/*+json"
            }
            Outcome::UnsupportedMediaType => {
                "Content-Encoding must be absent or one of those in Accept-Encoding"
            }
            Outcome::RateLimited if matches!(self, Self::TooManyFailures { .. }) => {
                "Too many deliveries of this client failed their verification; retry later"
            }
            Outcome::RateLimited => {
                "Organization is over its rate or concurrency limit; retry later"
            }
            Outcome::Overloaded => "Service is overloaded; retry shortly",
            Outcome::IndexUnavailable => "Workflow index is not loaded or is stale; retry shortly",
            Outcome::KeysUnavailable => "Key of the token is not known yet; retry later",
            Outcome::QueueUnavailable => "Queue did not accept the webhook; retry shortly",
            Outcome::UnknownWebhook => "No trigger has this address",
            Outcome::InvalidSignature => "Delivery failed verification",
            Outcome::StaleSignature => "Delivery was signed too long ago or in the future",
            Outcome::Internal | Outcome::Accepted | Outcome::Handshake => {
                "Webhook processing failed"
            }
        }
    }

    pub fn details(&self) -> Option<Value> {
        match self {
            Self::FanoutTooLarge { matches, max_matches, bytes, max_bytes } => Some(json!({
                "matches": matches, "maxMatches": max_matches, "bytes": bytes, "maxBytes": max_bytes,
            })),
            Self::InvalidMultipart(fault) => Some(json!({ "fault": fault.as_str() })),
            Self::BodyTooLarge { max_bytes } => Some(json!({ "maxBytes": max_bytes })),
            Self::JobTooLarge { bytes, max_bytes: Some(max_bytes) } => {
                Some(json!({ "bytes": bytes, "maxBytes": max_bytes }))
            }
            Self::JobTooLarge { bytes, max_bytes: None } => Some(json!({ "bytes": bytes })),
            Self::InvalidBody(WebhookError::InvalidJson(InvalidJson { kind, offset })) => {
                Some(match offset {
                    Some(offset) => json!({ "kind": kind.as_str(), "offset": offset }),
                    None => json!({ "kind": kind.as_str() }),
                })
            }
            Self::Undecodable => Some(json!({ "kind": "encoding" })),
            Self::QueueUnavailable(enqueued) => Some(json!({ "enqueued": enqueued.as_str() })),
            _ if self.status().is_server_error() => {
                Some(json!({ "enqueued": Enqueued::Nothing.as_str() }))
            }
            _ => None,
        }
    }
}

impl From<AdmissionError> for Rejection {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Overloaded => Self::Overloaded,
            AdmissionError::OverLimit(over) => Self::RateLimited(over),
        }
    }
}

impl From<PayloadError> for Rejection {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::InvalidJson(error) => Self::InvalidBody(WebhookError::InvalidJson(error)),
            PayloadError::InvalidMultipart(fault) => Self::InvalidMultipart(fault),
        }
    }
}

impl From<UnfitHandshake> for Rejection {
    /// It starts no job, and nothing can be answered.
    fn from(_: UnfitHandshake) -> Self {
        Self::InvalidSignature
    }
}

impl From<RetryAfter> for Rejection {
    fn from(RetryAfter { seconds }: RetryAfter) -> Self {
        Self::TooManyFailures { retry_after_seconds: seconds }
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

impl From<StaleIndex> for Rejection {
    fn from(_: StaleIndex) -> Self {
        Self::StaleIndex
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
            EnqueueError::Admission(error) => error.into(),
            EnqueueError::IdempotencyKeyReused => Self::IdempotencyKeyReused,
            EnqueueError::FanoutTooLarge { matches, max_matches, bytes, max_bytes } => {
                Self::FanoutTooLarge { matches, max_matches, bytes, max_bytes }
            }
            EnqueueError::JobTooLarge { bytes, max_bytes } => {
                Self::JobTooLarge { bytes, max_bytes }
            }
            EnqueueError::Unavailable(enqueued) => Self::QueueUnavailable(enqueued),
        }
    }
}
