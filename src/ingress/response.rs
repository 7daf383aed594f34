//! Builds answers: one for accepted webhooks, one for previews, and one envelope for all errors.

use crate::admission::OverLimit;
use crate::admission::Permit;
use crate::endpoints::verification::{HandshakeAnswer, Status};
use crate::ids::{RequestId, WebhookId};
use crate::ingress::answer_body::AnswerBody;
use crate::ingress::credential_fields::CredentialFields;
use crate::ingress::delivery::address_path::METHODS;
use crate::ingress::delivery::delivered::Delivered;
use crate::ingress::rejection::Rejection;
use crate::metrics::{Limit, Outcome};
use crate::queue::Added;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Bytes to allocate for the body of a typical answer.
const USUAL_BYTES: usize = 128;

/// A webhook whose jobs are all in Redis.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) webhook: WebhookId,
    pub(super) added: Added,
}

pub(super) fn accepted(accepted: &Accepted, id: &RequestId) -> Response<AnswerBody> {
    enqueued(StatusCode::ACCEPTED, &accepted.webhook, accepted.added, id)
}

/// The answer to a request whose jobs are all in Redis.
fn enqueued(
    status: StatusCode,
    webhook: &WebhookId,
    added: Added,
    id: &RequestId,
) -> Response<AnswerBody> {
    let mut body = Vec::with_capacity(USUAL_BYTES);
    body.extend_from_slice(br#"{"success":true,"message":"Webhook accepted","data":{"webhookId":"#);
    append(&mut body, webhook.as_str());
    body.extend_from_slice(br#","matchedCount":"#);
    append(&mut body, &added.matched);
    body.extend_from_slice(b"}}");
    mark_repeated(with_json_body(status, id, AnswerBody::new(body)), added)
}

/// The answer to a request to an endpoint.
pub(super) fn delivered(delivered: &Delivered, id: &RequestId) -> Response<AnswerBody> {
    match delivered {
        Delivered::Enqueued { status, webhook, added } => match status {
            Status::Ok => enqueued(StatusCode::OK, webhook, *added, id),
            Status::Accepted => enqueued(StatusCode::ACCEPTED, webhook, *added, id),
            Status::NoContent => mark_repeated(empty(StatusCode::NO_CONTENT, id), *added),
        },
        Delivered::Handshake(answer) => handshake(answer, id),
        Delivered::Exists => empty(StatusCode::OK, id),
        Delivered::Methods => {
            let mut response = empty(StatusCode::NO_CONTENT, id);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
            response
        }
    }
}

fn handshake(answer: &HandshakeAnswer, id: &RequestId) -> Response<AnswerBody> {
    let (text, content_type) = match answer {
        HandshakeAnswer::Empty => return empty(StatusCode::NO_CONTENT, id),
        HandshakeAnswer::Json(json) => (json, "application/json"),
        HandshakeAnswer::Text(text) => (text, "text/plain; charset=utf-8"),
    };
    let body = AnswerBody::new(text.clone().into_bytes());
    let mut response = with_json_body(StatusCode::OK, id, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A browser must not render an echoed value as a page.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Says whether the jobs were added by an earlier request.
fn mark_repeated(mut response: Response<AnswerBody>, added: Added) -> Response<AnswerBody> {
    if added.is_repeated {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The answer to a preview. Its memory counts against the permit until it is sent.
pub(super) fn preview(json: Vec<u8>, permit: Permit, id: &RequestId) -> Response<AnswerBody> {
    with_json_body(StatusCode::OK, id, AnswerBody::with_permit(json, permit))
}

/// The answer to a malformed head. It is empty, like hyper's own answers to malformed heads.
pub(super) fn malformed() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::new(Vec::new()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

pub(super) fn rejected(
    rejection: &Rejection,
    credentials: &CredentialFields,
    id: &RequestId,
) -> Response<AnswerBody> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        success: bool,
        error: &'a str,
        code: &'static str,
        retryable: bool,
        request_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<serde_json::Value>,
    }
    let status = rejection.status();
    let error = match rejection.outcome() {
        Outcome::MissingCredentials => &credentials.instruction,
        _ => rejection.sentence(),
    };
    let mut response = json(
        status,
        id,
        &Envelope {
            success: false,
            error,
            code: rejection.outcome().as_str(),
            retryable: rejection.is_retryable(),
            request_id: id.as_str(),
            details: rejection.details(),
        },
    );
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, credentials.challenge.clone());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let is_delivery = *rejection == Rejection::DeliveryMethodNotAllowed;
        headers.insert(ALLOW, HeaderValue::from_static(if is_delivery { METHODS } else { "POST" }));
    }
    // Only sent for an unsupported encoding: callers tell it from an unsupported media type by this
    // header (RFC 9110 12.5.3).
    if let Rejection::UnsupportedEncoding { accepted } = rejection
        && let Ok(accepted) = HeaderValue::from_str(accepted)
    {
        headers.insert(ACCEPT_ENCODING, accepted);
    }
    if let Some(seconds) = rejection.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        if let Rejection::RateLimited(over) = rejection {
            add_limit_headers(headers, over, seconds);
        }
    }
    response
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10.
fn add_limit_headers(headers: &mut HeaderMap, over: &OverLimit, seconds: u64) {
    let OverLimit { limit, quota, window, .. } = over;
    let name = limit.as_str();
    let parameters = match limit {
        Limit::Rate => format!("w={}", window.unwrap_or_default().as_secs()),
        Limit::Jobs => format!("qu=\"jobs\";w={}", window.unwrap_or_default().as_secs()),
        Limit::InFlight => "qu=\"concurrent-requests\"".to_owned(),
        Limit::InFlightBytes => "qu=\"content-bytes\"".to_owned(),
    };
    let fields = [
        ("ratelimit-policy", format!("\"{name}\";q={quota};{parameters}")),
        ("ratelimit", format!("\"{name}\";r=0;t={seconds}")),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

fn json(status: StatusCode, id: &RequestId, body: &impl Serialize) -> Response<AnswerBody> {
    let mut json = Vec::new();
    append(&mut json, body);
    with_json_body(status, id, AnswerBody::new(json))
}

/// Appends a value as JSON.
pub(super) fn append<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(json, value).expect("an answer has only strings and numbers");
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode, id: &RequestId) -> Response<AnswerBody> {
    let mut response = with_json_body(status, id, AnswerBody::new(Vec::new()));
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

pub(super) fn with_json_body(
    status: StatusCode,
    id: &RequestId,
    body: AnswerBody,
) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}
