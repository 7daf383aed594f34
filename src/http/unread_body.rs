//! The body of a request while it is read, and the unread part of it after a rejection.
//!
//! hyper closes a connection if a body was not read to its end. A small unread part is discarded
//! instead, so that a caller with an expired token, for example, keeps its connection. If more is
//! unread, the connection is closed after a linger that gives the caller time to read the answer:
//! closing a socket with unread bytes sends a reset, which destroys the answer.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Version;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use std::time::Duration;

/// Bytes of the largest unread part that is discarded. Discarding a larger one costs more than a
/// new connection.
const MAX_DISCARDED_BYTES: u64 = 64 << 10;

/// The time limit for discarding an unread part.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the end of a body after a chunk that was too much. The answer is delayed
/// until then.
const BODY_END_TIMEOUT: Duration = Duration::from_secs(1);

/// A body that records how far it has been read. hyper does not report whether a chunked body has
/// been read to its end.
#[derive(Debug)]
pub(crate) struct TrackedBody {
    body: Incoming,
    has_begun: bool,
    has_ended: bool,
}

impl TrackedBody {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, has_begun: false, has_ended: false }
    }

    /// The `Content-Length`, if there is one.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece; `None` after the last.
    pub(crate) async fn frame(&mut self) -> Option<hyper::Result<Frame<Bytes>>> {
        self.has_begun = true;
        let frame = self.body.frame().await;
        self.has_ended |= frame.is_none();
        frame
    }
}

/// How the reason of a rejection concerns the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RejectionCause {
    /// The body took too long.
    Timeout,
    /// The body is too large, or more of it would exceed the in-flight limits.
    Size,
    /// The reason does not concern the size or time of the body.
    Other,
}

/// The unread part of a rejected request's body.
#[derive(Debug)]
pub(crate) enum UnreadBody {
    Nothing,
    /// Discarded by [`skip`].
    Small(Incoming),
    /// The connection closes, and the answer has `Connection: close`.
    Large,
}

impl UnreadBody {
    /// Determines the unread part of a body. `Err` if the last chunk read may have been the end of
    /// the body, which only waiting shows.
    pub(crate) fn from_body(
        head: &Parts,
        body: TrackedBody,
        cause: RejectionCause,
    ) -> Result<Self, MaybeLastChunk> {
        let TrackedBody { body, has_begun, has_ended } = body;
        // HTTP/2 ends only the stream, and hyper does that.
        if has_ended || body.is_end_stream() || head.version > Version::HTTP_11 {
            return Ok(Self::Nothing);
        }
        let is_small = match body.size_hint().upper() {
            _ if cause == RejectionCause::Timeout => false,
            // The caller waits for `100 Continue` before it sends the body, and may never send it.
            // Reading would send the `100 Continue`.
            _ if !has_begun && head.headers.contains_key(EXPECT) => false,
            Some(bytes) => bytes <= MAX_DISCARDED_BYTES,
            // The length is unknown. The chunk that was too much may have been the last one.
            None if cause == RejectionCause::Size && has_begun => {
                return Err(MaybeLastChunk(body));
            }
            None => cause != RejectionCause::Size,
        };
        Ok(if is_small { Self::Small(body) } else { Self::Large })
    }
}

/// A body that was rejected because of a chunk that may be its last.
#[derive(Debug)]
pub(crate) struct MaybeLastChunk(Incoming);

impl MaybeLastChunk {
    /// Waits for the end of the body, for at most [`BODY_END_TIMEOUT`]; returns its unread part.
    pub(crate) async fn into_unread(self) -> UnreadBody {
        if discard(self.0, BODY_END_TIMEOUT).await {
            UnreadBody::Nothing
        } else {
            UnreadBody::Large
        }
    }
}

/// Discards the unread part of a body, and returns whether its end was reached. If it was not,
/// dropping the body closes the connection.
pub(crate) async fn skip(body: Incoming) -> bool {
    discard(body, DISCARD_TIMEOUT).await
}

async fn discard(mut body: Incoming, time_limit: Duration) -> bool {
    let mut left = MAX_DISCARDED_BYTES;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(remaining) = left.checked_sub(bytes) else { return false };
            left = remaining;
        }
        true
    };
    // Exceeding the time counts as exceeding the bytes.
    tokio::time::timeout(time_limit, reading).await.unwrap_or(false)
}
