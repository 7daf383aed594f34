//! The body of an answer, which is handed over in pieces: what hyper has not asked for yet stays here, and is held by the
//! permit of its request until it has gone or is dropped.
//!
//! hyper asks for the next piece when there is room in its buffer (32 KiB over HTTP/1.1, 8 KiB for a stream of HTTP/2), so
//! that what a caller does not read costs no more memory beyond the bounds than such a buffer and a piece.

use crate::admission::Permit;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Small, since a caller of HTTP/2 may leave a hundred unread.
const PIECE: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct AnswerBody {
    rest: Bytes,
    /// Of a small answer nothing is held: what there is of it is bounded by what a connection may ask at a time.
    permit: Option<Box<Permit>>,
}

impl AnswerBody {
    pub(super) fn new(text: Vec<u8>) -> Self {
        Self { rest: text.into(), permit: None }
    }

    /// With the permit that holds it.
    pub(super) fn held(text: Vec<u8>, permit: Permit) -> Self {
        Self { rest: text.into(), permit: Some(Box::new(permit)) }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = if self.permit.is_none() {
            std::mem::take(&mut self.rest)
        } else {
            // One that shared the memory of the whole would keep it for as long as the piece waits.
            let length = self.rest.len().min(PIECE);
            Bytes::copy_from_slice(&self.rest.split_to(length))
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
