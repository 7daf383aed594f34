//! Sends attempts of batches under one producer, over any connection, and waits for the requested
//! number of replicas.

use crate::metrics::RedisError;
use crate::queue::batch::producer::{BatchNumber, Producer};
use crate::queue::batch::script::{AddJobs, Attempt, RequestOutcome, ScriptError};
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::settings::QueueSettings;
use fred::types::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How late WAIT may end: Redis checks its timeouts ten times a second.
const WAIT_LATENESS: Duration = Duration::from_millis(100);

/// Runs the script under one producer.
#[derive(Debug)]
pub(in crate::queue) struct BatchSender {
    settings: Arc<QueueSettings>,
    add_jobs: AddJobs,
    producer: Producer,
}

impl BatchSender {
    /// Creates a sender with this producer.
    pub(in crate::queue) fn new(settings: &Arc<QueueSettings>, producer: Producer) -> Self {
        Self {
            add_jobs: AddJobs::new(settings, &producer),
            producer,
            settings: Arc::clone(settings),
        }
    }

    /// Returns the number of a new batch. The batch stays open until the number is dropped.
    pub(in crate::queue) fn open_batch(&self) -> BatchNumber {
        self.producer.open_batch()
    }

    /// Latest time Redis may execute a batch with this deadline. The margin is kept for the reply:
    /// a call with less time than that could only end as unknown.
    pub(in crate::queue) fn latest_execution(&self, deadline: Instant) -> Instant {
        deadline - self.settings.reply_margin()
    }

    /// Sends an attempt, and waits for `queue.wait_replicas` replicas.
    pub(in crate::queue) async fn send(
        &self,
        connection: &RedisConnection,
        attempt: Attempt<'_>,
        latest: Instant,
    ) -> Result<Vec<RequestOutcome>, ScriptError> {
        let outcomes = self.add_jobs.call(connection, attempt).await?;
        if self.settings.wait_replicas > 0 {
            self.wait_for_replicas(connection, latest).await?;
        }
        Ok(outcomes)
    }

    async fn wait_for_replicas(
        &self,
        connection: &RedisConnection,
        latest: Instant,
    ) -> Result<(), ScriptError> {
        let wanted = self.settings.wait_replicas;
        loop {
            // One WAIT is shorter than the time for which a connection may be silent.
            let remaining = latest.saturating_duration_since(Instant::now() + WAIT_LATENESS);
            let timeout =
                remaining.min(self.settings.reply_timeout() / 2).max(Duration::from_millis(1));
            let arguments = [wanted.to_string(), timeout.as_millis().to_string()];
            let arguments = arguments.map(|number| Value::Bytes(number.into())).to_vec();
            match connection.call::<usize>("WAIT", arguments).await {
                Ok(replicas) if replicas >= wanted => return Ok(()),
                Ok(_) if !remaining.is_zero() => {}
                // The jobs are on the primary, whatever WAIT reports.
                Ok(_) | Err(CallError::Refused(_)) => return Err(ScriptError::TooFewReplicas),
                Err(_) => return Err(ScriptError::Lost(RedisError::Connection)),
            }
        }
    }
}
