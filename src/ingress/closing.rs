//! When a connection is to end, and how.

use super::activity::{Activity, Phase};
use crate::lifecycle::Stage;
use std::time::Duration;
use tokio::time::Instant;

/// What a connection that has not yet sent anything is given when the process stops: its caller may
/// be about to send.
pub(super) const LAST_CHANCE: Duration = Duration::from_secs(1);

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

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

pub(super) enum Decision {
    Wait,
    /// Finish what has begun, then close.
    Ask,
    Drop,
}

/// Whether and why a connection is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    version: Version,
    /// `None`: it has been told, or asked.
    old_at: Option<Instant>,
    stage: Stage,
    drained_at: Option<Instant>,
    is_asked: bool,
}

impl Closing {
    pub(super) fn new(version: Version, limits: &ConnectionLimits) -> Self {
        let age = limits.max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        Self {
            version,
            old_at: Some(Instant::now() + age),
            stage: Stage::Serving,
            drained_at: None,
            is_asked: false,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// How far the process has got with stopping.
    pub(super) fn enter(&mut self, stage: Stage, activity: &Activity) {
        self.stage = stage;
        if stage >= Stage::Leaving {
            activity.make_last();
        }
        if stage >= Stage::Draining {
            self.drained_at.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn decide(&mut self, activity: &Activity, limits: &ConnectionLimits) -> Decision {
        let now = Instant::now();
        let phase = activity.phase();
        let waited = now.saturating_duration_since(activity.since());
        match phase {
            _ if self.stage == Stage::Cut => Decision::Drop,
            Phase::Evicted => Decision::Drop,
            Phase::New | Phase::Head if waited >= limits.header_timeout => Decision::Drop,
            Phase::New if self.drained_at.is_some_and(|at| now >= at + LAST_CHANCE) => {
                Decision::Drop
            }
            // A head that has begun is answered first, and its answer is the last one.
            Phase::Head if self.version == Version::Http1 => self.tell_age(now, activity),
            Phase::Head | Phase::Answering | Phase::Refused | Phase::Idle if self.is_leaving() => {
                self.ask()
            }
            // The answer may not have been taken by the caller; asking comes first.
            Phase::Refused | Phase::Idle if waited >= limits.idle_timeout && self.is_asked => {
                Decision::Drop
            }
            Phase::Refused | Phase::Idle if waited >= limits.idle_timeout => self.ask(),
            _ => self.tell_age(now, activity),
        }
    }

    /// An old connection of HTTP/1.1 is left to its next answer, which says that it closes: hyper would close it at
    /// once, whatever its caller is about to send.
    fn tell_age(&mut self, now: Instant, activity: &Activity) -> Decision {
        if self.is_asked || self.old_at.is_none_or(|old_at| now < old_at) {
            return Decision::Wait;
        }
        self.old_at = None;
        match self.version {
            Version::Http1 => {
                activity.make_last();
                Decision::Wait
            }
            Version::Http2 => self.ask(),
        }
    }

    /// Whether the process wants it asked and it has not been. Over HTTP/1.1 an idle connection
    /// that is asked closes at once, whatever its caller is about to send; before the drain its
    /// next answer says that it closes, which no request can miss.
    fn is_leaving(&self) -> bool {
        let from = match self.version {
            Version::Http1 => Stage::Draining,
            Version::Http2 => Stage::Leaving,
        };
        self.stage >= from && !self.is_asked
    }

    fn ask(&mut self) -> Decision {
        self.is_asked = true;
        Decision::Ask
    }

    /// When the next decision is due. A phase that begins meanwhile is found then, so that no limit
    /// is overrun by more than the shortest of them.
    pub(super) fn next_look(&self, activity: &Activity, limits: &ConnectionLimits) -> Instant {
        let now = Instant::now();
        let soonest = limits.header_timeout.min(limits.idle_timeout);
        let since = activity.since();
        let due = match activity.phase() {
            Phase::Evicted => now,
            _ if self.is_leaving() => now + LAST_CHANCE / 10,
            Phase::New | Phase::Head => since + limits.header_timeout,
            Phase::Refused | Phase::Idle if !self.is_asked => since + limits.idle_timeout,
            Phase::Refused | Phase::Idle | Phase::Answering => now + soonest,
        };
        let due = self.old_at.filter(|_| !self.is_asked).map_or(due, |old_at| due.min(old_at));
        due.min(now + soonest).max(now + Duration::from_millis(1))
    }
}
