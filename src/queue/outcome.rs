//! The outcome of enqueuing a request, for the other rooms.

use crate::admission::NoRoom;

/// Which jobs of a request are in the queue although it was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    Nothing,
    /// All of its jobs or none: a batch was sent and no reply arrived.
    Unknown,
}

impl Enqueued {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// The jobs that Redis has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Number of jobs of the request.
    pub matched: usize,
    /// Whether an earlier request with the same idempotency key has added them.
    pub is_repeated: bool,
}

/// Why the jobs of a request were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("the idempotency key was used for another body")]
    IdempotencyKeyReused,
    #[error("{matches} jobs with {bytes} bytes in total exceed the limits of one request")]
    TooLarge { matches: usize, max_matches: usize, bytes: usize, max_bytes: usize },
    /// `max_bytes` is `None` if Redis does not report its limit.
    #[error("{bytes} bytes exceed a limit of Redis")]
    PayloadTooLarge { bytes: usize, max_bytes: Option<usize> },
    #[error("Redis did not acknowledge the jobs")]
    Unavailable(Enqueued),
}
