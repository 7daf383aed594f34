//! A body as it is read, and what is left of it when its request has been refused.
//!
//! hyper closes a connection on which a body was not read to its end. A small rest is read away
//! instead, so that a caller with an expired token keeps its connection. Where more is left, the
//! connection is closed, but not before the caller has had time to see why: a socket that is closed
//! over unread bytes takes the answer with it.

use super::rejection::Rejection;
use crate::metrics::Limit;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Version;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// A rest of a body that is read away; a larger one costs more than a new connection.
const SMALL: u64 = 64 << 10;

/// How long a caller may take for a rest that is read away, and to take note of its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a caller may send without looking at the answer it was given.
const BLIND_BYTES: usize = 64 << 20;

/// How long the end of a body is waited for whose last chunk was one too many; the answer waits with it.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A body, and how far it has been read: whether all of one in chunks was, hyper does not tell.
#[derive(Debug)]
pub(super) struct Reading {
    body: Incoming,
    has_begun: bool,
    has_ended: bool,
}

impl Reading {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, has_begun: false, has_ended: false }
    }

    /// Bytes by Content-Length, where there is one.
    pub(super) fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece; `None` behind the last.
    pub(super) async fn frame(&mut self) -> Option<hyper::Result<Frame<Bytes>>> {
        self.has_begun = true;
        let frame = self.body.frame().await;
        self.has_ended |= frame.is_none();
        frame
    }
}

/// What is left.
#[derive(Debug)]
pub(super) enum Rest {
    Nothing,
    /// To be skipped.
    Small(Incoming),
    /// The connection ends here, and the answer says so.
    Large,
}

impl Rest {
    /// Looks at the body of a request that is about to be answered with this. Of one that may have ended it has to be
    /// waited for.
    pub(super) fn of(
        head: &Parts,
        body: Reading,
        rejection: &Rejection,
    ) -> Result<Self, PerhapsLast> {
        let Reading { body, has_begun, has_ended } = body;
        // HTTP/2 ends the one stream by itself.
        if has_ended || body.is_end_stream() || head.version > Version::HTTP_11 {
            return Ok(Self::Nothing);
        }
        let is_small = match body.size_hint().upper() {
            _ if *rejection == Rejection::RequestTimeout => false,
            // It was to be asked for, and may never come; reading it would ask.
            _ if !has_begun && head.headers.contains_key(EXPECT) => false,
            Some(bytes) => bytes <= SMALL,
            // Nobody has said how much more there is of it. What was one too many may have been the last.
            None if is_about_size(rejection) && has_begun => return Err(PerhapsLast(body)),
            None => !is_about_size(rejection),
        };
        Ok(if is_small { Self::Small(body) } else { Self::Large })
    }
}

/// Whether it is refused for what the body takes.
fn is_about_size(rejection: &Rejection) -> bool {
    match rejection {
        Rejection::Overloaded | Rejection::PayloadTooLarge { .. } => true,
        Rejection::RateLimited(over) => over.limit == Limit::InFlightBytes,
        _ => false,
    }
}

/// A body that was refused over a chunk, which may have been its last.
#[derive(Debug)]
pub(super) struct PerhapsLast(Incoming);

impl PerhapsLast {
    /// What is left of it, once its end has come or is not to be expected.
    pub(super) async fn rest(self) -> Rest {
        if read_away(self.0, END_PATIENCE).await { Rest::Nothing } else { Rest::Large }
    }
}

/// Reads the rest of a body away, and answers whether that was all of it. Dropped before its end, it closes the
/// connection.
pub(super) async fn skip(body: Incoming) -> bool {
    read_away(body, PATIENCE).await
}

async fn read_away(mut body: Incoming, patience: Duration) -> bool {
    let mut left = SMALL;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(bytes) else { return false };
            left = rest;
        }
        true
    };
    // Out of time is as good as over the limit.
    tokio::time::timeout(patience, reading).await.unwrap_or(false)
}

/// Reads away what still comes on a connection whose sending half has been closed, until the caller
/// closes too or tries our patience.
#[derive(Debug)]
pub(super) struct Linger {
    patience: Pin<Box<Sleep>>,
    left: usize,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self { patience: Box::pin(tokio::time::sleep(PATIENCE)), left: BLIND_BYTES }
    }

    pub(super) fn poll(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut space = [MaybeUninit::uninit(); 8 << 10];
        while self.patience.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(stream.as_mut().poll_read(context, &mut buffer));
            let bytes = buffer.filled().len();
            if read.is_err() || bytes == 0 || bytes > self.left {
                break;
            }
            self.left -= bytes;
        }
        Poll::Ready(())
    }
}
