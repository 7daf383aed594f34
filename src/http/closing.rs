//! Decides when a connection ends, and how.

use crate::http::activity::{Activity, Phase};
use crate::process::lifecycle::Stage;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection that has sent nothing stays open when the process stops: its caller may be
/// about to send.
pub(crate) const FIRST_BYTE_GRACE: Duration = Duration::from_secs(1);

/// The time limits of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From the first byte of a head to its last, and from the opening to the first head.
    pub(crate) header_timeout: Duration,
    /// From an answer to the next request.
    pub(crate) idle_timeout: Duration,
    /// The age at which a connection is asked to close, ±10 % at random.
    pub(crate) max_age: Duration,
}

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
}

/// What to do with a connection.
pub(crate) enum Decision {
    Wait,
    /// Shut down gracefully: finish the requests in progress, then close.
    ShutDown,
    /// Close at once.
    Drop,
}

/// Whether and why a connection is being closed.
#[derive(Debug)]
pub(crate) struct Closing {
    version: HttpVersion,
    /// When the connection reaches its maximum age; `None` after that has been acted on.
    max_age_at: Option<Instant>,
    stage: Stage,
    /// When the process began to drain.
    draining_since: Option<Instant>,
    shutdown_requested: bool,
}

impl Closing {
    pub(crate) fn new(version: HttpVersion, limits: &ConnectionLimits) -> Self {
        let age = limits.max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        Self {
            version,
            max_age_at: Some(Instant::now() + age),
            stage: Stage::Serving,
            draining_since: None,
            shutdown_requested: false,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Records the stage that the process has reached.
    pub(crate) fn enter(&mut self, stage: Stage, activity: &Activity) {
        self.stage = stage;
        if stage >= Stage::LameDuck {
            activity.make_last();
        }
        if stage >= Stage::Draining {
            self.draining_since.get_or_insert_with(Instant::now);
        }
    }

    pub(crate) fn decide(&mut self, activity: &Activity, limits: &ConnectionLimits) -> Decision {
        let now = Instant::now();
        let phase = activity.phase();
        let waited = now.saturating_duration_since(activity.since());
        match phase {
            _ if self.stage == Stage::Aborting => Decision::Drop,
            Phase::Evicted => Decision::Drop,
            Phase::New | Phase::Head if waited >= limits.header_timeout => Decision::Drop,
            Phase::New if self.draining_since.is_some_and(|at| now >= at + FIRST_BYTE_GRACE) => {
                Decision::Drop
            }
            // A head that has begun is answered first, and its answer is the last one.
            Phase::Head if self.version == HttpVersion::Http1 => self.check_age(now, activity),
            Phase::Head | Phase::Answering | Phase::AnsweredEarly | Phase::Idle
                if self.should_shut_down() =>
            {
                self.ask()
            }
            // The caller may not have read the answer yet, so the connection is asked first.
            Phase::AnsweredEarly | Phase::Idle
                if waited >= limits.idle_timeout && self.shutdown_requested =>
            {
                Decision::Drop
            }
            Phase::AnsweredEarly | Phase::Idle if waited >= limits.idle_timeout => self.ask(),
            _ => self.check_age(now, activity),
        }
    }

    /// Ends an old connection. Over HTTP/1.1 its next answer is the last one: a graceful shutdown
    /// would close an idle connection at once, even if its caller is about to send a request.
    fn check_age(&mut self, now: Instant, activity: &Activity) -> Decision {
        if self.shutdown_requested || self.max_age_at.is_none_or(|old_at| now < old_at) {
            return Decision::Wait;
        }
        self.max_age_at = None;
        match self.version {
            HttpVersion::Http1 => {
                activity.make_last();
                Decision::Wait
            }
            HttpVersion::Http2 => self.ask(),
        }
    }

    /// Whether the process is stopping and the connection has not been asked to close. Over
    /// HTTP/1.1 an idle connection that is asked closes at once, even if its caller is about to
    /// send a request. So before the drain its next answer has `Connection: close` instead, which
    /// loses no request.
    fn should_shut_down(&self) -> bool {
        let from = match self.version {
            HttpVersion::Http1 => Stage::Draining,
            HttpVersion::Http2 => Stage::LameDuck,
        };
        self.stage >= from && !self.shutdown_requested
    }

    fn ask(&mut self) -> Decision {
        self.shutdown_requested = true;
        Decision::ShutDown
    }

    /// When to decide again. A phase that begins in the meantime is noticed only then, so a limit
    /// may be exceeded by up to the shorter of the two timeouts.
    pub(crate) fn next_check(&self, activity: &Activity, limits: &ConnectionLimits) -> Instant {
        let now = Instant::now();
        let soonest = limits.header_timeout.min(limits.idle_timeout);
        let since = activity.since();
        let due = match activity.phase() {
            Phase::Evicted => now,
            _ if self.should_shut_down() => now + FIRST_BYTE_GRACE / 10,
            Phase::New | Phase::Head => since + limits.header_timeout,
            Phase::AnsweredEarly | Phase::Idle if !self.shutdown_requested => {
                since + limits.idle_timeout
            }
            Phase::AnsweredEarly | Phase::Idle | Phase::Answering => now + soonest,
        };
        let due = self
            .max_age_at
            .filter(|_| !self.shutdown_requested)
            .map_or(due, |old_at| due.min(old_at));
        due.min(now + soonest).max(now + Duration::from_millis(1))
    }
}
