//! What a run has reached, and the trace of its events.

use std::fmt::Arguments;
use tokio::time::Instant;

/// Declares the kinds of events.
macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        /// A kind of event: a fault, a reply, a step of the delivery, or an answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind { $($kind),* }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind),*];
        }
    };
}

kinds! {
    // The network.
    Connected, ConnectRefused, CutBefore, CutAfter, CutTravelling, Silenced, LateCopy, LateCopyExecuted,
    NotWritten, KeptForever, ReplyOfAnother, ReplySwapped, ReplyMangled, Spike,
    // The servers.
    Frozen, ScriptMissing, ClockForward, ClockBack, FailoverEqual, FailoverOlder, OldPrimaryDead,
    OldPrimaryDemoted, OldPrimarySplit, Resynchronized, Restarted, JobsLost, WithdrawalLost, LateLost,
    RefusedLoading, RefusedBusy, RefusedReadOnly, RefusedTryAgain, RefusedClusterDown, RefusedMemory,
    RefusedSave, RefusedPermission, KeyHeld, CallTooLarge, ArgumentTooLarge, Waited, WaitFailed,
    // The replies of the script.
    ReplyAdded, ReplyOutcomes, ReplyKnown, ReplyLate, ReplyWithdrawn, ReplyStale, ReplyError,
    // What the delivery does.
    FirstAttempt, Resent, NumberAfterRefusal, Withdrawal, WithdrawalFoundOutcomes, SentAlone, Halved,
    LimitsRead, LimitProbed,
    // Callers.
    CallerLeft, CallerSlow, CallerResent, Drained,
    AnswerAdded, AnswerRepeated, AnswerReused, AnswerNone, AnswerUnknown, AnswerTooLarge,
    AnswerTooLargeUnknown,
}

/// Counts events, and keeps a line for each if it is traced.
#[derive(Debug)]
pub(super) struct Trace {
    begun: Instant,
    reached: Vec<u64>,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Self {
            begun: Instant::now(),
            reached: vec![0; Kind::ALL.len()],
            lines: is_kept.then(Vec::new),
        }
    }

    pub(super) fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    pub(super) fn note(&mut self, kind: Kind, details: Arguments<'_>) {
        self.reached[kind as usize] += 1;
        if self.lines.is_none() {
            return;
        }
        let now = self.milliseconds();
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now:>6} ms  {kind:?}  {details}"));
        }
    }

    pub(super) fn into_parts(self) -> (Vec<u64>, Vec<String>) {
        (self.reached, self.lines.unwrap_or_default())
    }
}
