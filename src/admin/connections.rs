//! The connections of the admin port: a fixed number of slots, which cannot be occupied
//! permanently.
//!
//! An unanswered health check makes an orchestrator kill the process. So every new connection is
//! accepted. If no slot is free, the connection that has made no progress for longest is closed.
//! Progress means that the client reads answers: a head that arrives slowly is no progress, and
//! neither are requests whose answers are not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Maximum connections. Their file descriptors are reserved, so that callers cannot use them up.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may make no progress: during a head, between requests, and while an answer
/// is written.
pub(super) const MAX_STALL: Duration = Duration::from_secs(10);

/// The maximum age of a connection. Then it shuts down gracefully, within [`MAX_STALL`].
pub(super) const MAX_AGE: Duration = Duration::from_secs(60);

/// How long a new connection without an answer has priority over all others: its request is on the
/// wire.
const PRIORITY_TIME: Duration = Duration::from_secs(1);

/// How long a new connection without an answer cannot be closed at all.
const PROTECTED_TIME: Duration = Duration::from_millis(20);

/// How long to wait if no connection can be closed.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct AdminConnections(Vec<AdminConnection>);

#[derive(Debug)]
struct AdminConnection {
    progress: Arc<Progress>,
    task: AbortHandle,
}

impl AdminConnections {
    /// Serves a connection as a task. If there are too many, another one is closed first.
    pub(super) async fn serve<F>(
        &mut self,
        stream: TcpStream,
        serve: impl FnOnce(TrackedAdminStream) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        while !self.make_room() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        let progress = Arc::new(Progress::new());
        let tracked = TrackedAdminStream { stream, progress: Arc::clone(&progress) };
        let task = tokio::spawn(serve(tracked)).abort_handle();
        self.0.push(AdminConnection { progress, task });
    }

    /// Closes a connection if no slot is free. Returns whether there is a free slot now.
    fn make_room(&mut self) -> bool {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() < MAX_CONNECTIONS {
            return true;
        }
        let connections = self.0.iter().enumerate();
        let closable = connections.filter_map(|(at, connection)| {
            connection.progress.precedence().map(|precedence| (precedence, at))
        });
        let Some((_, at)) = closable.min() else { return false };
        self.0.swap_remove(at).task.abort();
        true
    }
}

/// When the client last read part of an answer.
#[derive(Debug)]
pub(super) struct Progress {
    opened: Instant,
    /// Milliseconds from the opening to the last read; 0: nothing has been read yet.
    last_read: AtomicU64,
    /// Whether the task of the connection has begun to read requests.
    is_begun: AtomicBool,
}

impl Progress {
    fn new() -> Self {
        let (last_read, is_begun) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { opened: Instant::now(), last_read, is_begun }
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn last(&self) -> Instant {
        self.opened + Duration::from_millis(self.last_read.load(Ordering::Relaxed))
    }

    fn record(&self) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_read.store(millis.max(1), Ordering::Relaxed);
    }

    /// The connection with the least precedence is closed first; `None`: it cannot be closed.
    fn precedence(&self) -> Option<(bool, Instant)> {
        let is_answered = self.last_read.load(Ordering::Relaxed) > 0;
        let age = self.opened.elapsed();
        let is_protected =
            !is_answered && (age < PROTECTED_TIME || !self.is_begun.load(Ordering::Relaxed));
        (!is_protected).then(|| (!is_answered && age < PRIORITY_TIME, self.last()))
    }
}

/// A stream that records when its client reads. A successful write counts as a read, because it
/// means that the socket buffer had room.
#[derive(Debug)]
pub(super) struct TrackedAdminStream {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl TrackedAdminStream {
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl AsyncRead for TrackedAdminStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.progress.is_begun.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TrackedAdminStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.progress.record();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
