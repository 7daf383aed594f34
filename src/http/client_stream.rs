//! The stream of a connection from a client, whatever socket it came through.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The stream of a connection from a client.
#[derive(Debug)]
pub(crate) enum ClientStream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// A stream of which more than was needed has been read already.
    ReadAhead(Box<ReadAhead>),
}

/// Bytes that were read, and the stream that continues them.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    bytes: Vec<u8>,
    /// How many of the bytes are given out.
    used: usize,
    stream: ClientStream,
}

impl ClientStream {
    /// A stream that gives out `bytes`, from `used` on, before it continues.
    pub(crate) fn with_read_ahead(self, bytes: Vec<u8>, used: usize) -> Self {
        if used >= bytes.len() {
            return self;
        }
        Self::ReadAhead(Box::new(ReadAhead { bytes, used, stream: self }))
    }

    /// Disables Nagle's algorithm, which only TCP has.
    pub(crate) fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            // This fails only on a connection that is already gone.
            let _ = stream.set_nodelay(true);
        }
    }
}

impl ReadAhead {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { bytes, used, stream } = self;
        let rest = bytes.get(*used..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let given = rest.get(..buffer.remaining()).unwrap_or(rest);
        buffer.put_slice(given);
        *used += given.len();
        if *used == bytes.len() {
            (*bytes, *used) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientStream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::ReadAhead(ahead) => ahead.poll_read(context, buffer),
        }
    }
}

/// Calls a method of the stream below.
macro_rules! forward {
    ($stream:expr, $method:ident, $($argument:expr),*) => {
        match $stream.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Self::ReadAhead(ahead) => Pin::new(&mut ahead.stream).$method($($argument),*),
        }
    };
}

impl AsyncWrite for ClientStream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write_vectored, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_that_were_read_ahead_come_first() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut stream = ClientStream::Unix(near).with_read_ahead(b"header rest".to_vec(), 7);
        far.write_all(b" and more").await.unwrap();
        let mut piece = [0; 3];
        stream.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"res");
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        far.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        drop(far);
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "t and more");
    }

    #[tokio::test]
    async fn a_stream_without_bytes_ahead_stays_as_it_is() {
        let (near, _far) = UnixStream::pair().unwrap();
        let stream = ClientStream::Unix(near).with_read_ahead(b"header".to_vec(), 6);
        assert!(matches!(stream, ClientStream::Unix(_)), "{stream:?}");
    }
}
