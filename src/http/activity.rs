//! The phase of a connection, and when it began.

use crate::http::linger::Linger;
use crate::http::unread_body;
use crate::http::unread_body::UnreadBody;
pub(crate) use atomics::phase::Phase;
use atomics::phase::PhaseWord;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The phase of a connection and when it began. The members are atomics because the reader below
/// hyper, the service above it, the timer and the HTTP/2 streams share them, and other threads use
/// them to evict the connection.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    /// The phase, when it began in milliseconds since the opening, and the requests in progress.
    word: PhaseWord,
    /// Whether the next answer is the last one.
    is_last: AtomicBool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { opened: Instant::now(), word: PhaseWord::default(), is_last: AtomicBool::new(false) }
    }

    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    pub(crate) fn phase(&self) -> Phase {
        self.word.phase()
    }

    /// When the phase began; while answering, when the previous phase did.
    pub(crate) fn since(&self) -> Instant {
        self.moment(self.word.since())
    }

    fn moment(&self, milliseconds: u64) -> Instant {
        self.opened + Duration::from_millis(milliseconds)
    }

    /// When the connection became idle; `None` while a request is in progress or after its
    /// eviction.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        Some(self.moment(self.word.idle_since()?))
    }

    /// Evicts the connection if it has been idle since `since`, and returns whether it did. No
    /// request begins after that. Any thread may call this.
    pub(crate) fn evict(&self, since: Instant) -> bool {
        let since = since.saturating_duration_since(self.opened).as_millis();
        u64::try_from(since).is_ok_and(|since| self.word.evict(since))
    }

    /// Begins a request; `None` if the connection is evicted.
    pub(crate) fn begin_request(self: &Arc<Self>) -> Option<ActiveRequest> {
        let has_begun = self.word.begin_request();
        has_begun.then(|| ActiveRequest { activity: Arc::clone(self), next_phase: Phase::Idle })
    }

    /// Makes the next answer the last one of the connection.
    pub(crate) fn make_last(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    fn enter(&self, phase: Phase) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> 3);
        self.word.enter(phase, now);
    }
}

/// A request in progress. The connection becomes idle when the last of them is dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    activity: Arc<Activity>,
    /// The phase after the last request.
    next_phase: Phase,
}

impl ActiveRequest {
    /// Whether the connection closes after the answer.
    pub(crate) fn is_last(&self) -> bool {
        self.activity.is_last.load(Ordering::Relaxed)
    }

    /// Records the unread part of the request's body, and discards it if it is small.
    pub(crate) fn finish_with_unread(&mut self, unread: UnreadBody) {
        if matches!(unread, UnreadBody::Nothing) {
            return;
        }
        self.next_phase = Phase::AnsweredEarly;
        if let UnreadBody::Small(body) = unread {
            let activity = Arc::clone(&self.activity);
            tokio::spawn(async move {
                let is_complete = unread_body::skip(body).await;
                // If the next request has already begun, its phase stays.
                if is_complete && activity.phase() == Phase::AnsweredEarly {
                    activity.enter(Phase::Idle);
                }
            });
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        if self.activity.word.end_request() {
            self.activity.enter(self.next_phase);
        }
    }
}

/// A stream that records the beginning of a head: bytes that arrive while no request is in
/// progress.
#[derive(Debug)]
pub(crate) struct TrackedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    linger: Option<Linger>,
    has_delayed_end: bool,
}

impl<S> TrackedStream<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, linger: None, has_delayed_end: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let has_read = polled.is_ready() && buffer.filled().len() > before;
        let phase = self.activity.phase();
        if has_read && matches!(phase, Phase::New | Phase::Idle) {
            self.activity.enter(Phase::Head);
        }
        // hyper drops a complete request that it has not begun if the end of the stream follows at
        // once. So the end is reported one poll later, after the request has begun.
        let is_end = matches!(polled, Poll::Ready(Ok(()))) && !has_read && buffer.remaining() > 0;
        if is_end && phase != Phase::Answering && !self.has_delayed_end {
            self.has_delayed_end = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, activity, linger, .. } = self.get_mut();
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        // hyper has rejected the head, or Hookgate the request. The caller may still be sending.
        if matches!(activity.phase(), Phase::Head | Phase::AnsweredEarly) {
            let linger = linger.get_or_insert_with(Linger::new);
            ready!(linger.poll(Pin::new(stream), context));
        }
        Poll::Ready(Ok(()))
    }
}
