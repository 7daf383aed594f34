//! The errors of admission.

use crate::metrics::Limit;
use std::time::Duration;

/// Why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    #[error("too much is in flight")]
    Overloaded,
    #[error("the organization is over its limit")]
    OverLimit(OverLimit),
}

/// The limit that an organization is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the organization is over its limit")]
pub struct OverLimit {
    pub limit: Limit,
    /// Requests or jobs within the window, or requests or bytes in flight.
    pub quota: usize,
    /// The time in which the quota refills; `None` for the limits on what is in flight.
    pub window: Option<Duration>,
    /// How long the caller should wait.
    pub retry_after: Duration,
}

impl OverLimit {
    /// [`Self::retry_after`] in whole seconds, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> u64 {
        let has_part = self.retry_after.subsec_nanos() > 0;
        (self.retry_after.as_secs() + u64::from(has_part)).max(1)
    }
}
