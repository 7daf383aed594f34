//! The connections of the admin port: a few places, none of which can be kept from those who come later.
//!
//! A health check that goes unanswered has the process killed. So every new connection is accepted, and where all
//! places are taken, the one that has made no progress for longest is closed. Progress is what its caller reads:
//! neither a head that dribbles nor requests whose answers are left unread count.

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

/// Places. They come out of the descriptors that are kept from callers.
const MOST: usize = 64;

/// How long a connection may make no progress: for a head, between requests, and while an answer is written.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may live, whatever its progress. Then it is asked to close, and has [`PATIENCE`] to do so.
pub(super) const MOST_AGE: Duration = Duration::from_secs(60);

/// How long a new connection that has had no answer yet goes before all others: its request is on the way.
const FRESH: Duration = Duration::from_secs(1);

/// How long it keeps its place whatever comes.
const GRANTED: Duration = Duration::from_millis(20);

/// How long to wait where every connection has been granted its place.
const PAUSE: Duration = Duration::from_millis(1);

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    progress: Arc<Progress>,
    task: AbortHandle,
}

impl Connections {
    /// Serves a connection as a task, and closes another one if there are too many.
    pub(super) async fn serve<F>(&mut self, stream: TcpStream, serve: impl FnOnce(Tracked) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while !self.make_room() {
            tokio::time::sleep(PAUSE).await;
        }
        let progress = Arc::new(Progress::new());
        let tracked = Tracked { stream, progress: Arc::clone(&progress) };
        let task = tokio::spawn(serve(tracked)).abort_handle();
        self.0.push(Connection { progress, task });
    }

    /// Answers whether there is any.
    fn make_room(&mut self) -> bool {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() < MOST {
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

/// When the caller last took something of an answer.
#[derive(Debug)]
pub(super) struct Progress {
    opened: Instant,
    /// Milliseconds since the opening; 0: nothing has been taken yet.
    taken: AtomicU64,
    /// Whether it has been looked for a request.
    is_begun: AtomicBool,
}

impl Progress {
    fn new() -> Self {
        let (taken, is_begun) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { opened: Instant::now(), taken, is_begun }
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn last(&self) -> Instant {
        self.opened + Duration::from_millis(self.taken.load(Ordering::Relaxed))
    }

    fn note(&self) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.taken.store(millis.max(1), Ordering::Relaxed);
    }

    /// The least is closed first; `None`: it keeps its place.
    fn precedence(&self) -> Option<(bool, Instant)> {
        let is_answered = self.taken.load(Ordering::Relaxed) > 0;
        let age = self.opened.elapsed();
        let is_granted = !is_answered && (age < GRANTED || !self.is_begun.load(Ordering::Relaxed));
        (!is_granted).then(|| (!is_answered && age < FRESH, self.last()))
    }
}

/// A stream that notes what its caller takes.
#[derive(Debug)]
pub(super) struct Tracked {
    stream: TcpStream,
    progress: Arc<Progress>,
}

impl Tracked {
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.progress.is_begun.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.progress.note();
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
