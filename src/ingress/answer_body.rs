//! The body of an answer. A large body is given to hyper in pieces, and its memory counts against
//! the permit of its request until it is sent or dropped.
//!
//! hyper asks for the next piece when its buffer has room (32 KiB over HTTP/1.1, 8 KiB for a stream
//! of HTTP/2). So an answer that its caller does not read uses at most one such buffer and one
//! piece beyond the in-flight limits.

use crate::admission::Permit;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes of a piece. It is small because an HTTP/2 caller may leave 100 answers unread.
const CHUNK_BYTES: usize = 4 << 10;

/// The unsent part of the body of an answer.
#[derive(Debug)]
pub struct AnswerBody {
    unsent: Bytes,
    /// `None` for a small answer. The memory of those is bounded by the number of requests that a
    /// connection may have at a time.
    permit: Option<Box<Permit>>,
}

impl AnswerBody {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { unsent: bytes.into(), permit: None }
    }

    /// A body whose memory counts against `permit`.
    pub(crate) fn with_permit(bytes: Vec<u8>, permit: Permit) -> Self {
        Self { unsent: bytes.into(), permit: Some(Box::new(permit)) }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.unsent.is_empty() {
            return Poll::Ready(None);
        }
        let piece = if self.permit.is_none() {
            std::mem::take(&mut self.unsent)
        } else {
            // A copy: a slice would keep the memory of the whole body while the piece waits.
            let length = self.unsent.len().min(CHUNK_BYTES);
            Bytes::copy_from_slice(&self.unsent.split_to(length))
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unsent.len() as u64)
    }
}
