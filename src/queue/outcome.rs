//! The outcome of enqueuing a request, for the other modules.

use crate::admission::AdmissionError;

/// Which jobs of a request are in the queue although it was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    Nothing,
    /// Either all of its jobs or none: no reply arrived, or too few replicas confirmed the write.
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
    Admission(#[from] AdmissionError),
    #[error("the idempotency key was used for another body")]
    IdempotencyKeyReused,
    #[error("{matches} jobs with {bytes} bytes in total exceed the limits of one request")]
    FanoutTooLarge { matches: usize, max_matches: usize, bytes: usize, max_bytes: usize },
    /// `max_bytes` is `None` if Redis does not report its limit.
    #[error("{bytes} bytes exceed a limit of Redis")]
    JobTooLarge { bytes: usize, max_bytes: Option<usize> },
    #[error("Redis did not acknowledge the jobs")]
    Unavailable(Enqueued),
}
