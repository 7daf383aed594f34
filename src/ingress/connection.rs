//! One connection, with the time limits that hyper does not have.
//!
//! hyper has one timer for reading a head and for waiting for one, set anew at every request. Here
//! each phase has its own limit, and one timer for the connection, which is looked at when it
//! fires.

use super::unread::{self, Linger, Rest};
use super::{Answer, Ingress};
use crate::lifecycle::Shutdown;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes of a head at the most, and of what is read ahead.
const READ_BUFFER: usize = 32 << 10;

/// What a connection that has not yet sent anything is given when the process stops: its caller may
/// be about to send.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long a connection may live, and wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionLimits {
    /// From the first byte of a head to its last; and from the opening to the first head.
    pub(super) header_timeout: Duration,
    /// From an answer to the next request.
    pub(super) idle_timeout: Duration,
    /// Then it is asked to close; give or take a tenth, at random.
    pub(super) max_age: Duration,
}

/// Serves a connection until it is closed, by whichever side.
pub(super) async fn serve(
    stream: TcpStream,
    ingress: Arc<Ingress>,
    limits: &ConnectionLimits,
    shutdown: &Shutdown,
) {
    let phase = Arc::new(PhaseClock::new());
    let watched =
        Watched { stream, phase: Arc::clone(&phase), linger: None, has_told_of_end: false };
    let service = service_fn(|request| {
        let (ingress, phase) = (Arc::clone(&ingress), Arc::clone(&phase));
        async move {
            phase.enter(Phase::Answering);
            let Answer { response, rest } = ingress.respond(request).await;
            phase.enter(if matches!(rest, Rest::Nothing) { Phase::Idle } else { Phase::Refused });
            if let Rest::Small(body) = rest {
                tokio::spawn(async move {
                    unread::skip(body).await;
                    phase.leave_refused();
                });
            }
            Ok::<Response<_>, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(READ_BUFFER)
        .max_header_size(READ_BUFFER)
        .serve_connection(TokioIo::new(watched), service);
    let mut connection = pin!(connection);
    let mut closing = Closing::new(limits);
    let mut timer = pin!(tokio::time::sleep_until(closing.next_look(&phase, limits)));
    loop {
        tokio::select! {
            // What has arrived is served before anything else is looked at.
            biased;
            // Errors here are the other side's: half heads, resets. hyper has answered what can be.
            _ = connection.as_mut() => return,
            () = shutdown.force.cancelled() => return,
            () = shutdown.drain.cancelled(), if closing.drained_at.is_none() => {
                closing.drained_at = Some(Instant::now());
                // hyper would close a connection that has sent nothing yet at once.
                if phase.now().0 != Phase::New {
                    closing.is_asked = true;
                    connection.as_mut().graceful_shutdown();
                }
                timer.as_mut().reset(closing.next_look(&phase, limits));
            }
            () = timer.as_mut() => {
                match closing.decide(&phase, limits) {
                    Decision::Wait => {}
                    Decision::Ask => connection.as_mut().graceful_shutdown(),
                    Decision::Drop => return,
                }
                timer.as_mut().reset(closing.next_look(&phase, limits));
            }
        }
    }
}

enum Decision {
    Wait,
    /// Finish what has begun, then close.
    Ask,
    Drop,
}

/// Whether and why the connection is being closed.
struct Closing {
    old_at: Instant,
    is_asked: bool,
    drained_at: Option<Instant>,
}

impl Closing {
    fn new(limits: &ConnectionLimits) -> Self {
        let age = limits.max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        Self { old_at: Instant::now() + age, is_asked: false, drained_at: None }
    }

    fn decide(&mut self, phase: &PhaseClock, limits: &ConnectionLimits) -> Decision {
        let now = Instant::now();
        let (phase, since) = phase.now();
        let waited = now.saturating_duration_since(since);
        match phase {
            Phase::New | Phase::Head if waited >= limits.header_timeout => Decision::Drop,
            Phase::New if self.drained_at.is_some_and(|at| now >= at + LAST_CHANCE) => {
                Decision::Drop
            }
            Phase::Head | Phase::Answering | Phase::Refused | Phase::Idle
                if self.drained_at.is_some() && !self.is_asked =>
            {
                self.ask()
            }
            // The answer may not have been taken by the caller; asking comes first.
            Phase::Refused | Phase::Idle if waited >= limits.idle_timeout && self.is_asked => {
                Decision::Drop
            }
            Phase::Refused | Phase::Idle if waited >= limits.idle_timeout => self.ask(),
            _ if now >= self.old_at && !self.is_asked => self.ask(),
            _ => Decision::Wait,
        }
    }

    fn ask(&mut self) -> Decision {
        self.is_asked = true;
        Decision::Ask
    }

    /// When the next decision is due. A phase that begins meanwhile is found then, so that no limit
    /// is overrun by more than the shortest of them.
    fn next_look(&self, phase: &PhaseClock, limits: &ConnectionLimits) -> Instant {
        let now = Instant::now();
        let soonest = limits.header_timeout.min(limits.idle_timeout);
        let (phase, since) = phase.now();
        let due = match phase {
            _ if self.drained_at.is_some() && !self.is_asked => now + LAST_CHANCE / 10,
            Phase::New | Phase::Head => since + limits.header_timeout,
            Phase::Refused | Phase::Idle if !self.is_asked => since + limits.idle_timeout,
            Phase::Refused | Phase::Idle | Phase::Answering => now + soonest,
        };
        let due = if self.is_asked { due } else { due.min(self.old_at) };
        due.min(now + soonest).max(now + Duration::from_millis(1))
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived yet.
    New,
    /// A head has begun to arrive.
    Head,
    /// A request is read, carried out and answered; it has limits of its own.
    Answering,
    /// The last answer went out before all of its request had come.
    Refused,
    /// Nothing since the last answer.
    Idle,
}

impl Phase {
    const ALL: [Self; 5] = [Self::New, Self::Head, Self::Answering, Self::Refused, Self::Idle];
}

/// The phase and when it began, in one atomic word: the reader below hyper, the service above it and
/// the timer beside it are one task, but three borrowers.
#[derive(Debug)]
struct PhaseClock {
    opened: Instant,
    /// Milliseconds since the opening, times eight, plus the phase.
    word: AtomicU64,
}

impl PhaseClock {
    fn new() -> Self {
        Self { opened: Instant::now(), word: AtomicU64::new(Phase::New as u64) }
    }

    fn enter(&self, phase: Phase) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> 3);
        self.word.store(millis << 3 | phase as u64, Ordering::Relaxed);
    }

    /// The rest of a refused request is read; if the next has not begun by then, it is waited for.
    fn leave_refused(&self) {
        if self.now().0 == Phase::Refused {
            self.enter(Phase::Idle);
        }
    }

    fn now(&self) -> (Phase, Instant) {
        let word = self.word.load(Ordering::Relaxed);
        let phase = Phase::ALL.into_iter().find(|phase| *phase as u64 == word & 7);
        (phase.unwrap_or(Phase::Head), self.opened + Duration::from_millis(word >> 3))
    }
}

/// A stream that notes when bytes arrive while none were due: a head has begun.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    phase: Arc<PhaseClock>,
    linger: Option<Linger>,
    has_told_of_end: bool,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let has_read = polled.is_ready() && buffer.filled().len() > before;
        let phase = self.phase.now().0;
        if has_read && matches!(phase, Phase::New | Phase::Idle) {
            self.phase.enter(Phase::Head);
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

impl AsyncWrite for Watched {
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
        let Self { stream, phase, linger, .. } = self.get_mut();
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        // In a head, hyper has refused it: the caller may still be sending, as after our refusals.
        if matches!(phase.now().0, Phase::Head | Phase::Refused) {
            let linger = linger.get_or_insert_with(Linger::new);
            ready!(linger.poll(Pin::new(stream), context));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
