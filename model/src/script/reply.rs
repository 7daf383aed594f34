//! Replies of the script.

use std::fmt::{self, Display, Formatter};

/// A successful reply. Its text is what the script replies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    pub number: u64,
    /// The clock of the server.
    pub now_ms: u64,
    pub result: BatchResult,
}

/// The result of a batch, which the record of its producer keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BatchResult {
    /// `*`: every job of every request was added. Also the reply to a probe.
    Added,
    Outcomes(Vec<Outcome>),
    Late,
    /// The number is not above the low-water mark. This is never recorded.
    Stale,
    Withdrawn,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Added,
    /// Its idempotency key was used before for the same body, with this number of jobs.
    Repeated(u64),
    /// Another value holds a key that a job needs.
    KeyConflict,
    /// Its idempotency key was used before for another body.
    KeyReused,
}

impl Display for Reply {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.number, self.now_ms, self.result)
    }
}

impl Display for BatchResult {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => formatter.write_str("*"),
            Self::Outcomes(outcomes) => {
                outcomes.iter().try_for_each(|outcome| outcome.fmt(formatter))
            }
            Self::Late => formatter.write_str("late"),
            Self::Stale => formatter.write_str("stale"),
            Self::Withdrawn => formatter.write_str("-"),
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => formatter.write_str("A"),
            Self::Repeated(jobs) => write!(formatter, "R{jobs}"),
            Self::KeyConflict => formatter.write_str("E"),
            Self::KeyReused => formatter.write_str("X"),
        }
    }
}
