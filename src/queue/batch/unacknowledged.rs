//! Batches that Redis has not acknowledged: why, and whether they are sent again.

use crate::metrics::RedisError;
use crate::queue::outcome::Enqueued;
use crate::queue::redis::health::RedisHealth;
use std::time::Duration;

/// Bounds of the backoff between two attempts of a batch that Redis refuses temporarily.
pub(in crate::queue) const FIRST_BACKOFF: Duration = Duration::from_millis(20);
pub(in crate::queue) const LONGEST_BACKOFF: Duration = Duration::from_millis(250);

/// Why a batch was not acknowledged.
#[derive(Debug, Clone)]
pub(in crate::queue) struct Unacknowledged {
    pub(in crate::queue) kind: RedisError,
    pub(in crate::queue) enqueued: Enqueued,
    /// The error message of Redis, if there is one.
    pub(in crate::queue) refusal: Option<String>,
}

impl Unacknowledged {
    pub(in crate::queue) fn new(kind: RedisError, enqueued: Enqueued) -> Self {
        Self { kind, enqueued, refusal: None }
    }
}

/// Whether to retry after this error. For READONLY, also starts the grace period.
pub(in crate::queue) fn is_momentary(kind: RedisError, health: &RedisHealth) -> bool {
    match kind {
        // A protocol error means that the call was corrupted in transit. Redis then closes the
        // connection.
        RedisError::Protocol | RedisError::Cluster | RedisError::Loading | RedisError::Busy => true,
        RedisError::ReadOnly => health.record_read_only(),
        _ => false,
    }
}
