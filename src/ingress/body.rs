//! Reading the body: what it may be, how large, and for how long.

use super::rejection::Rejection;
use super::webhook::WebhookError;
use crate::admission::Permit;
use crate::settings::Section;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use std::time::Duration;

/// The keys of `[server]` that concern bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodySettings {
    /// Bytes, 1 KiB to 64 MiB.
    pub max_body: usize,
    /// From the head of the request to the last byte of its body.
    pub timeout: Duration,
}

impl BodySettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_body: section.size("max_body", "1MiB", 1024..=(64 << 20)),
            timeout: section.duration(
                "body_timeout",
                "15s",
                Duration::from_millis(100)..=Duration::from_secs(600),
            ),
        }
    }
}

/// Reads the whole body; its bytes are held by the permit.
pub(super) async fn read(
    headers: &HeaderMap,
    body: &mut Incoming,
    settings: &BodySettings,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    check_media(headers)?;
    match tokio::time::timeout(settings.timeout, collect(body, settings.max_body, permit)).await {
        Ok(collected) => collected,
        Err(_) => Err(Rejection::RequestTimeout),
    }
}

/// JSON, or no word of what it is; and as it is, not compressed.
fn check_media(headers: &HeaderMap) -> Result<(), Rejection> {
    let is_json = |value: &str| {
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    };
    let is_fine = |name, check: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(check))
    };
    let is_plain =
        |value: &str| value.trim().is_empty() || value.trim().eq_ignore_ascii_case("identity");
    if is_fine(CONTENT_TYPE, &is_json) && is_fine(CONTENT_ENCODING, &is_plain) {
        return Ok(());
    }
    Err(Rejection::UnsupportedMediaType)
}

async fn collect(
    body: &mut Incoming,
    max_body: usize,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    let too_large = || Rejection::PayloadTooLarge { max_bytes: max_body };
    // By Content-Length where there is one, so that nothing is read in vain.
    let announced =
        body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if let Some(bytes) = announced {
        if bytes > max_body {
            return Err(too_large());
        }
        permit.hold(bytes)?;
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if announced.is_none() {
            permit.hold(data.len())?;
        }
        // Most bodies come in one piece, which is taken as it is.
        if collected.is_empty() && announced == Some(data.len()) {
            return Ok(data);
        }
        if collected.len() + data.len() > max_body {
            return Err(too_large());
        }
        collected.reserve(announced.unwrap_or_default().saturating_sub(collected.len()));
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
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
        return Rejection::InvalidBody(WebhookError::InvalidJson);
    }
    Rejection::ClientClosed
}
