//! Reads the body of a request, and bounds its type, encoding, size and time.

use crate::admission::Permit;
use crate::http::unread_body::TrackedBody;
use crate::ingress::content_encoding::{ContentEncoding, ContentEncodings};
use crate::ingress::decompress;
use crate::ingress::rejection::Rejection;
use crate::ingress::webhook::WebhookError;
use crate::json::{self, InvalidJson};
use crate::settings::Section;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Bodies that a worker decodes at a time. A brotli decoder may use 16 MiB for its window and 4 MiB
/// for its tables. More decoders at a time would be no faster, because a worker is one thread.
const DECODERS_PER_WORKER: usize = 2;

/// Bytes reserved for a body with `Content-Length` before any of it has arrived, and its first
/// buffer if it arrives in pieces. The buffer doubles as the body grows. The announced bytes may
/// never arrive, so the reservation is at most about twice what has arrived, or
/// `RESERVATION_STEP` before that.
const RESERVATION_STEP: usize = 16 << 10;

/// The first buffer of a body without `Content-Length`, in bytes.
const FIRST_BUFFER_BYTES: usize = 4 << 10;

/// The keys of `[server]` that concern bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodySettings {
    /// Bytes, 1 KiB to 64 MiB. Bounds both the encoded and the decoded body.
    pub max_body: usize,
    pub encodings: ContentEncodings,
    /// From the head of the request to the last byte of its body.
    pub timeout: Duration,
}

impl BodySettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_body: section.size("max_body", "1MiB", 1024..=(64 << 20)),
            encodings: ContentEncodings::read(section),
            timeout: section.duration(
                "body_timeout",
                "15s",
                Duration::from_millis(100)..=Duration::from_secs(600),
            ),
        }
    }
}

/// Reads the bodies of a worker.
#[derive(Debug)]
pub struct BodyReader {
    settings: BodySettings,
    decoders: Semaphore,
}

impl BodyReader {
    pub fn new(settings: BodySettings) -> Self {
        Self { settings, decoders: Semaphore::new(DECODERS_PER_WORKER) }
    }

    /// Checks the headers that describe the body, before any of it is read.
    pub(super) fn check_head(
        &self,
        headers: &HeaderMap,
        body: &TrackedBody,
    ) -> Result<BodyHead, Rejection> {
        check_type(headers)?;
        self.check_head_of_any_type(headers, body)
    }

    /// As [`Self::check_head`], for a body that may have any `Content-Type`.
    pub(super) fn check_head_of_any_type(
        &self,
        headers: &HeaderMap,
        body: &TrackedBody,
    ) -> Result<BodyHead, Rejection> {
        let deadline = Instant::now() + self.settings.timeout;
        let encoding = self.settings.encodings.select(headers)?;
        let bytes = body.content_length();
        let bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if bytes.is_some_and(|bytes| bytes > self.settings.max_body) {
            return Err(too_large(self.settings.max_body));
        }
        Ok(BodyHead { encoding, bytes, deadline })
    }

    /// Reads the whole body and decodes it. Its memory counts against the permit.
    pub(super) async fn read(
        &self,
        body: &mut TrackedBody,
        announced: BodyHead,
        permit: &mut Permit,
    ) -> Result<Bytes, Rejection> {
        let raw = self.read_raw(body, &announced, permit).await?;
        self.decode(raw, &announced, permit).await
    }

    /// Reads the whole body as it comes. Its memory counts against the permit.
    pub(super) async fn read_raw(
        &self,
        body: &mut TrackedBody,
        announced: &BodyHead,
        permit: &mut Permit,
    ) -> Result<Bytes, Rejection> {
        let collected = collect(body, announced.bytes, self.settings.max_body, permit);
        let collected = timeout_at(announced.deadline, collected).await;
        collected.map_err(|_| Rejection::RequestTimeout)?
    }

    /// Decodes a body that was read, if it is encoded. The permit is resized to what is decoded.
    pub(super) async fn decode(
        &self,
        raw: Bytes,
        announced: &BodyHead,
        permit: &mut Permit,
    ) -> Result<Bytes, Rejection> {
        let Some(encoding) = announced.encoding else { return Ok(raw) };
        let deadline = announced.deadline;
        let slot = timeout_at(deadline, self.decoders.acquire()).await;
        let slot = slot.map_err(|_| Rejection::Overloaded)?;
        let _slot = slot.expect("the semaphore is never closed");
        let decoded = decompress::decode(encoding, &raw, self.settings.max_body, permit);
        timeout_at(deadline, decoded).await.map_err(|_| Rejection::Overloaded)?
    }
}

/// The description of a body in the head of its request.
#[derive(Debug)]
pub(super) struct BodyHead {
    encoding: Option<ContentEncoding>,
    /// The `Content-Length`, if there is one.
    bytes: Option<usize>,
    /// When the body must be complete and decoded.
    deadline: Instant,
}

impl BodyHead {
    /// Whether the body has a `Content-Encoding`.
    pub(super) fn is_encoded(&self) -> bool {
        self.encoding.is_some()
    }
}

/// Accepts a JSON media type, or no `Content-Type`.
fn check_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    // The exact value, which most callers send, needs no parsing.
    if types.all(|value| value == "application/json" || is_json(value)) {
        return Ok(());
    }
    Err(Rejection::UnsupportedMediaType)
}

fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(value) = content_type.to_str() else { return false };
    json::is_json(value.split(';').next().unwrap_or_default().trim())
}

async fn collect(
    body: &mut TrackedBody,
    announced: Option<usize>,
    max_body: usize,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    if let Some(bytes) = announced {
        // A body that does not fit now is rejected before it is read.
        permit.check(bytes)?;
        permit.reserve_at_least(bytes.min(RESERVATION_STEP))?;
    }
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        // Most bodies arrive in one piece, which is used without a copy.
        if collected.is_empty() && announced == Some(data.len()) {
            permit.reserve_at_least(data.len())?;
            return Ok(data);
        }
        let arrived = collected.len() + data.len();
        if arrived > max_body {
            return Err(too_large(max_body));
        }
        if arrived > collected.capacity() {
            let capacity = next_capacity(collected.capacity(), announced, max_body).max(arrived);
            permit.reserve_at_least(capacity)?;
            collected.reserve_exact(capacity - collected.len());
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.into())
}

/// The next size of the buffer of a body that has outgrown it.
fn next_capacity(capacity: usize, announced: Option<usize>, max_body: usize) -> usize {
    match announced {
        Some(bytes) => (2 * capacity).max(RESERVATION_STEP).min(bytes),
        None => (2 * capacity).max(FIRST_BUFFER_BYTES).min(max_body),
    }
}

fn too_large(max_bytes: usize) -> Rejection {
    Rejection::BodyTooLarge { max_bytes }
}

/// The rejection of a body that ends early or has invalid chunks.
fn broken(error: &hyper::Error) -> Rejection {
    let is_broken_chunk = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData
            )
        });
    if is_broken_chunk {
        return Rejection::InvalidBody(WebhookError::InvalidJson(InvalidJson::in_framing()));
    }
    Rejection::ClientClosed
}
