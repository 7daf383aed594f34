//! What a connection is doing, and since when.

use super::unread::{self, Linger, Rest};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has arrived yet; over HTTP/2: no request.
    New,
    /// A head has begun to arrive. HTTP/1.1 only.
    Head,
    /// Requests are read, carried out and answered; they have limits of their own.
    Answering,
    /// The last answer went out before all of its request had come. HTTP/1.1 only.
    Refused,
    /// Nothing since the last answer.
    Idle,
    /// Its place is needed for another connection. It stays so.
    Evicted,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::New, Self::Head, Self::Answering, Self::Refused, Self::Idle, Self::Evicted];

    fn of(word: u64) -> Self {
        let phase = Self::ALL.into_iter().find(|phase| *phase as u64 == word & 7);
        phase.expect("only phases are put into the word")
    }
}

/// The phase and when it began. The reader below hyper, the service above it, the timer beside it
/// and the streams of HTTP/2 run on one thread, but are several borrowers.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Milliseconds since the opening, times eight, plus the phase.
    word: AtomicU64,
    requests: AtomicUsize,
    is_last: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            word: AtomicU64::new(Phase::New as u64),
            requests: AtomicUsize::new(0),
            is_last: AtomicBool::new(false),
        }
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::of(self.word.load(Ordering::Relaxed))
    }

    /// When the phase began; while answering, when the one before it did.
    pub(super) fn since(&self) -> Instant {
        self.since_in(self.word.load(Ordering::Relaxed))
    }

    fn since_in(&self, word: u64) -> Instant {
        self.opened + Duration::from_millis(word >> 3)
    }

    /// Since when there has been no request; `None` while there is one, or if it is being closed.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let word = self.word.load(Ordering::Relaxed);
        let is_idle = !matches!(Phase::of(word), Phase::Answering | Phase::Evicted);
        is_idle.then(|| self.since_in(word))
    }

    /// Has no more requests begin, if there has been none since. Another thread may ask.
    pub(super) fn evict(&self, since: Instant) -> bool {
        self.change(|word| {
            let is_idle = !matches!(Phase::of(word), Phase::Answering | Phase::Evicted);
            (is_idle && self.since_in(word) == since).then_some(word & !7 | Phase::Evicted as u64)
        })
    }

    /// A request begins; `None` if the connection is to be closed instead.
    pub(super) fn answer(self: &Arc<Self>) -> Option<Answering> {
        let has_begun = self.change(|word| {
            let is_evicted = Phase::of(word) == Phase::Evicted;
            (!is_evicted).then_some(word & !7 | Phase::Answering as u64)
        });
        if !has_begun {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        Some(Answering { activity: Arc::clone(self), then: Phase::Idle })
    }

    /// From now on the next answer is the last one.
    pub(super) fn make_last(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    fn enter(&self, phase: Phase) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> 3);
        self.change(|word| {
            let is_evicted = Phase::of(word) == Phase::Evicted;
            (!is_evicted).then_some(millis << 3 | phase as u64)
        });
    }

    /// The word is changed by its own thread, and by those who need its place.
    fn change(&self, to: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to).is_ok()
    }
}

/// A request under way; when the last of them ends, however it ends, the connection is idle.
#[derive(Debug)]
pub(super) struct Answering {
    activity: Arc<Activity>,
    then: Phase,
}

impl Answering {
    /// Whether the connection is to close behind the answer.
    pub(super) fn is_last(&self) -> bool {
        self.activity.is_last.load(Ordering::Relaxed)
    }

    /// Says what was not read of the request, and reads it away if it is little.
    pub(super) fn leave(&mut self, rest: Rest) {
        if matches!(rest, Rest::Nothing) {
            return;
        }
        self.then = Phase::Refused;
        if let Rest::Small(body) = rest {
            let activity = Arc::clone(&self.activity);
            tokio::spawn(async move {
                let is_all = unread::skip(body).await;
                // Unless the next request has begun by then, it is waited for.
                if is_all && activity.phase() == Phase::Refused {
                    activity.enter(Phase::Idle);
                }
            });
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.activity.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.activity.enter(self.then);
        }
    }
}

/// A stream that notes when bytes arrive while none were due: a head has begun.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    linger: Option<Linger>,
    has_told_of_end: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, linger: None, has_told_of_end: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
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
        // hyper would drop a whole request that it has not begun yet when the end comes right behind
        // it; so the end is told when the request has had its turn.
        let is_end = matches!(polled, Poll::Ready(Ok(()))) && !has_read && buffer.remaining() > 0;
        if is_end && phase != Phase::Answering && !self.has_told_of_end {
            self.has_told_of_end = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
        // In a head, hyper has refused it: the caller may still be sending, as after our refusals.
        if matches!(activity.phase(), Phase::Head | Phase::Refused) {
            let linger = linger.get_or_insert_with(Linger::new);
            ready!(linger.poll(Pin::new(stream), context));
        }
        Poll::Ready(Ok(()))
    }
}
