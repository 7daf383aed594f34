//! The phase of a connection and when it began, in one word.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has arrived yet. Over HTTP/2: no request has arrived yet.
    New,
    /// Part of a head has arrived. HTTP/1.1 only.
    Head,
    /// At least one request is in progress. Requests have their own time limits.
    Answering,
    /// The last answer was sent before its request had arrived in full. HTTP/1.1 only.
    AnsweredEarly,
    /// Nothing has arrived since the last answer.
    Idle,
    /// The connection is being closed because its slot is needed. This phase is final.
    Evicted,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::New, Self::Head, Self::Answering, Self::AnsweredEarly, Self::Idle, Self::Evicted];

    fn from_word(word: u64) -> Self {
        let phase = Self::ALL.into_iter().find(|phase| *phase as u64 == word & 7);
        phase.expect("the word holds a phase")
    }

    /// Whether no request is in progress and the connection is not being evicted.
    fn is_idle(self) -> bool {
        !matches!(self, Self::Answering | Self::Evicted)
    }
}

/// The phase of a connection, when it began, and the requests in progress. The thread of the
/// connection changes it; any thread may evict the connection.
#[derive(Debug)]
pub struct PhaseWord {
    /// When the phase began, in milliseconds since the opening, in the upper bits; the phase in the
    /// lower three.
    word: AtomicU64,
    /// Requests in progress.
    requests: AtomicUsize,
}

impl Default for PhaseWord {
    fn default() -> Self {
        Self { word: AtomicU64::new(Phase::New as u64), requests: AtomicUsize::new(0) }
    }
}

impl PhaseWord {
    #[inline]
    pub fn phase(&self) -> Phase {
        Phase::from_word(self.word.load(Ordering::Relaxed))
    }

    /// When the phase began; while answering, when the previous phase did.
    pub fn since(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> 3
    }

    /// When the connection became idle; `None` while a request is in progress or after its
    /// eviction.
    pub fn idle_since(&self) -> Option<u64> {
        let word = self.word.load(Ordering::Relaxed);
        Phase::from_word(word).is_idle().then_some(word >> 3)
    }

    /// Evicts the connection if it has been idle since `since`, and returns whether it did. No
    /// request begins after that.
    pub fn evict(&self, since: u64) -> bool {
        self.change(|word| {
            (Phase::from_word(word).is_idle() && word >> 3 == since)
                .then_some(word & !7 | Phase::Evicted as u64)
        })
    }

    /// Begins a request, and returns whether it may begin: not if the connection is evicted.
    #[inline]
    pub fn begin_request(&self) -> bool {
        let has_begun = self.change(|word| {
            let is_evicted = Phase::from_word(word) == Phase::Evicted;
            (!is_evicted).then_some(word & !7 | Phase::Answering as u64)
        });
        if has_begun {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        has_begun
    }

    /// Ends a request, and returns whether it was the last one in progress. Then the connection is
    /// to [enter](Self::enter) its next phase.
    #[inline]
    pub fn end_request(&self) -> bool {
        self.requests.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Enters a phase, unless the connection is evicted.
    pub fn enter(&self, phase: Phase, now: u64) {
        self.change(|word| {
            let is_evicted = Phase::from_word(word) == Phase::Evicted;
            (!is_evicted).then_some(now << 3 | phase as u64)
        });
    }

    /// Changes the word unless `update` returns `None`, and returns whether it did.
    #[inline]
    fn change(&self, update: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).is_ok()
    }
}
