//! Reading the body: what it may be, how large, and for how long.

use super::decoding;
use super::encoding::{Encoding, Encodings};
use super::invalid_json::InvalidJson;
use super::rejection::Rejection;
use super::unread::Reading;
use super::webhook::WebhookError;
use crate::admission::Permit;
use crate::settings::Section;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Bodies that a worker decodes at a time. A decoder of brotli may hold 16 MiB for its window and 4
/// for its tables, and more of them at a time would be no faster.
const DECODERS: usize = 2;

/// What is held for a body whose length was announced before any of it has arrived, and the least memory that is taken
/// for it when it comes in pieces; it doubles as the body grows. What was announced may never come, so no more is held
/// than a step ahead of what has.
const STEP: usize = 16 << 10;

/// Likewise, if nobody has said how much there is of it.
const UNANNOUNCED: usize = 4 << 10;

/// The keys of `[server]` that concern bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodySettings {
    /// Bytes, 1 KiB to 64 MiB; as sent, and as decoded.
    pub max_body: usize,
    pub encodings: Encodings,
    /// From the head of the request to the last byte of its body.
    pub timeout: Duration,
}

impl BodySettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_body: section.size("max_body", "1MiB", 1024..=(64 << 20)),
            encodings: Encodings::read(section),
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
        Self { settings, decoders: Semaphore::new(DECODERS) }
    }

    /// Looks at what is said of the body, before any of it is read.
    pub(super) fn announced(
        &self,
        headers: &HeaderMap,
        body: &Reading,
    ) -> Result<Announced, Rejection> {
        let deadline = Instant::now() + self.settings.timeout;
        check_type(headers)?;
        let encoding = self.settings.encodings.of(headers)?;
        let bytes = body.announced();
        let bytes = bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if bytes.is_some_and(|bytes| bytes > self.settings.max_body) {
            return Err(too_large(self.settings.max_body));
        }
        Ok(Announced { encoding, bytes, deadline })
    }

    /// Reads the whole body, and decodes it; its bytes are held by the permit.
    pub(super) async fn read(
        &self,
        body: &mut Reading,
        announced: Announced,
        permit: &mut Permit,
    ) -> Result<Bytes, Rejection> {
        let Announced { encoding, bytes, deadline } = announced;
        let max_body = self.settings.max_body;
        let collected = timeout_at(deadline, collect(body, bytes, max_body, permit)).await;
        let collected = collected.map_err(|_| Rejection::RequestTimeout)??;
        let Some(encoding) = encoding else { return Ok(collected) };
        let slot = timeout_at(deadline, self.decoders.acquire()).await;
        let slot = slot.map_err(|_| Rejection::Overloaded)?;
        let _slot = slot.expect("the semaphore is never closed");
        let decoded = decoding::decode(encoding, &collected, max_body, permit);
        timeout_at(deadline, decoded).await.map_err(|_| Rejection::Overloaded)?
    }
}

/// What the head of a request says of its body.
#[derive(Debug)]
pub(super) struct Announced {
    encoding: Option<Encoding>,
    /// By Content-Length, where there is one.
    bytes: Option<usize>,
    /// For its last byte.
    deadline: Instant,
}

/// JSON, or no word of what it is.
fn check_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let is_json = |value: &str| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json") || is_other_json(essence)
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    if types.all(|value| value.to_str().is_ok_and(is_json)) {
        return Ok(());
    }
    Err(Rejection::UnsupportedMediaType)
}

fn is_other_json(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    essence.starts_with("application/") && essence.ends_with("+json")
}

async fn collect(
    body: &mut Reading,
    announced: Option<usize>,
    max_body: usize,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    if let Some(bytes) = announced {
        // What does not fit now is refused before it is read.
        permit.check(bytes)?;
        permit.hold_at_least(bytes.min(STEP))?;
    }
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        // Most bodies come in one piece, which is taken as it is.
        if collected.is_empty() && announced == Some(data.len()) {
            permit.hold_at_least(data.len())?;
            return Ok(data);
        }
        let arrived = collected.len() + data.len();
        if arrived > max_body {
            return Err(too_large(max_body));
        }
        if arrived > collected.capacity() {
            let capacity = next_capacity(collected.capacity(), announced, max_body).max(arrived);
            permit.hold_at_least(capacity)?;
            collected.reserve_exact(capacity - collected.len());
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.into())
}

/// Memory for a body that has outgrown what it has.
fn next_capacity(capacity: usize, announced: Option<usize>, max_body: usize) -> usize {
    match announced {
        Some(bytes) => (2 * capacity).max(STEP).min(bytes),
        None => (2 * capacity).max(UNANNOUNCED).min(max_body),
    }
}

fn too_large(max_bytes: usize) -> Rejection {
    Rejection::PayloadTooLarge { max_bytes }
}

/// A body that ends before its end, or whose chunks are none.
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
