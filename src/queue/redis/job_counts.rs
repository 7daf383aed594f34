//! The number of jobs in a queue by state, for metrics.

use crate::metrics::{JobState, RedisMetrics};
use crate::process::lifecycle::Condition;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::redis::server_config::is_switched_off;
use crate::queue::settings::QueueSettings;
use fred::error::Error;
use fred::types::Value;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait before a count is tried again that this user may not make. Redis adds each
/// refusal to its ACL LOG.
const REFUSED_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// How long to wait before a count without a reply is tried again. Doubled each time, up to the
/// interval, because Redis may be slow to count.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Counts the jobs of a queue from time to time, over the connection of the health check.
#[derive(Debug)]
pub(in crate::queue) struct JobCounts {
    /// `telemetry.queue_interval`; zero: never.
    interval: Duration,
    next_at: Instant,
    retry: Duration,
    condition: Condition,
}

impl JobCounts {
    pub(in crate::queue) fn new(interval: Duration) -> Self {
        Self { interval, next_at: Instant::now(), retry: FIRST_RETRY, condition: Condition::Ready }
    }

    /// Updates the metrics if it is time. The condition is degraded while this user may not count.
    pub(in crate::queue) async fn refresh(
        &mut self,
        connection: &RedisConnection,
        settings: &QueueSettings,
        metrics: &RedisMetrics,
    ) -> Condition {
        let now = Instant::now();
        if self.interval.is_zero() || now < self.next_at {
            return self.condition.clone();
        }
        self.next_at = now + self.interval;
        let counting = measure(connection, settings, metrics);
        self.condition = match tokio::time::timeout(settings.reply_timeout(), counting).await {
            Ok(Ok(())) => {
                self.retry = FIRST_RETRY;
                Condition::Ready
            }
            Ok(Err(CallError::Refused(error))) => {
                Self::set_unknown(metrics);
                if is_switched_off(error.details()) {
                    self.next_at = now + REFUSED_INTERVAL;
                }
                Condition::Degraded(vec![note(&error)])
            }
            // The health check reports that Redis does not answer.
            Ok(Err(CallError::Lost | CallError::NotSent)) | Err(_) => {
                Self::set_unknown(metrics);
                self.next_at = now + self.retry.min(self.interval);
                self.retry = self.retry.saturating_mul(2).min(self.interval);
                Condition::Ready
            }
        };
        self.condition.clone()
    }

    /// Sets all counts to NaN, because the last ones may be wrong by now. They are counted again
    /// as soon as Redis answers.
    pub(in crate::queue) fn forget(&mut self, metrics: &RedisMetrics) {
        self.next_at = Instant::now();
        Self::set_unknown(metrics);
    }

    fn set_unknown(metrics: &RedisMetrics) {
        for state in JobState::ALL {
            metrics.jobs(*state).set(f64::NAN);
        }
    }
}

async fn measure(
    connection: &RedisConnection,
    settings: &QueueSettings,
    metrics: &RedisMetrics,
) -> Result<(), CallError> {
    for state in JobState::ALL {
        let jobs = count(connection, settings, *state).await?;
        metrics.jobs(*state).set(jobs as f64);
    }
    Ok(())
}

/// The number of jobs in a state.
pub(in crate::queue) async fn count(
    connection: &RedisConnection,
    settings: &QueueSettings,
    state: JobState,
) -> Result<u64, CallError> {
    let mut jobs = 0;
    for (command, key) in settings.queue.counted_keys(state) {
        jobs += connection.call::<u64>(command, vec![Value::from(key)]).await?;
    }
    Ok(jobs)
}

/// What a refusal to count means.
pub(in crate::queue) fn note(error: &Error) -> String {
    format!("hookgate_queue_jobs is unknown: {}", error.details())
}
