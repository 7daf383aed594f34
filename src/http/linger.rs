//! The linger of a connection: after an answer that its caller may not have read, what still
//! arrives is discarded for a time. Closing a socket with unread bytes sends a reset, which
//! destroys the answer.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// The time limit of a linger.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum bytes that a linger discards: what a caller may send before it reads the answer.
const LINGER_BYTES: usize = 64 << 20;

/// Discards what still arrives on a connection after its sending half was closed. It ends when the
/// caller closes, after [`LINGER_TIMEOUT`], or after [`LINGER_BYTES`].
#[derive(Debug)]
pub(crate) struct Linger {
    time_limit: Pin<Box<Sleep>>,
    left: usize,
}

impl Linger {
    pub(crate) fn new() -> Self {
        Self { time_limit: Box::pin(tokio::time::sleep(LINGER_TIMEOUT)), left: LINGER_BYTES }
    }

    pub(crate) fn poll(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut space = [MaybeUninit::uninit(); 8 << 10];
        while self.time_limit.as_mut().poll(context).is_pending() {
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
