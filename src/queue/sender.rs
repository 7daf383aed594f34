//! Copies of batches over whatever session: under one producer, with as many replicas as are asked for.

use super::QueueSettings;
use super::producer::{BatchNumber, Producer};
use super::script::{AddJobs, Copy, Failure, Fate};
use super::session::{CallError, Session};
use crate::metrics::RedisError;
use fred::types::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How late WAIT may end: Redis looks at its time limits ten times a second.
const WAIT_LATENESS: Duration = Duration::from_millis(100);

/// A producer and its script.
#[derive(Debug)]
pub(super) struct Sender {
    settings: Arc<QueueSettings>,
    add_jobs: AddJobs,
    producer: Producer,
}

impl Sender {
    /// As a new producer.
    pub(super) fn new(settings: &Arc<QueueSettings>) -> Self {
        let producer = Producer::new();
        Self {
            add_jobs: AddJobs::new(settings, &producer),
            producer,
            settings: Arc::clone(settings),
        }
    }

    /// The number of a new batch, which stays open until it is dropped.
    pub(super) fn open_batch(&self) -> BatchNumber {
        self.producer.open_batch()
    }

    /// When a batch with this deadline is last carried out. What is left is for the reply: a call with
    /// less time than that could only end unknown.
    pub(super) fn latest(&self, deadline: Instant) -> Instant {
        deadline - self.settings.margin()
    }

    /// Sends a copy, and waits for as many replicas as are asked for.
    pub(super) async fn send(
        &self,
        session: &Session,
        copy: Copy<'_>,
        latest: Instant,
    ) -> Result<Vec<Fate>, Failure> {
        let fates = self.add_jobs.call(session, copy).await?;
        if self.settings.wait_replicas > 0 {
            self.wait_for_replicas(session, latest).await?;
        }
        Ok(fates)
    }

    async fn wait_for_replicas(&self, session: &Session, latest: Instant) -> Result<(), Failure> {
        let wanted = self.settings.wait_replicas;
        loop {
            // Not for longer at a time than a session may be silent.
            let left = latest.saturating_duration_since(Instant::now() + WAIT_LATENESS);
            let span = left.min(self.settings.patience() / 2).max(Duration::from_millis(1));
            let arguments = [wanted.to_string(), span.as_millis().to_string()];
            let arguments = arguments.map(|number| Value::Bytes(number.into())).to_vec();
            match session.call::<usize>("WAIT", arguments).await {
                Ok(replicas) if replicas >= wanted => return Ok(()),
                Ok(_) if !left.is_zero() => {}
                // The jobs are there, whatever it says.
                Ok(_) | Err(CallError::Refused(_)) => return Err(Failure::TooFewReplicas),
                Err(_) => return Err(Failure::Lost(RedisError::Connection)),
            }
        }
    }
}
