//! Isolation of batches that may break connections: each is sent over its own connection, so that
//! it does not break the shared one.
//!
//! If a batch breaks its own connection too, the same producer withdraws it under the same number,
//! so that the answer to its callers stays true. If Redis answers the withdrawal on the shared
//! connection that existed before, the batch is the cause. If it has many requests, its halves are
//! sent in the same way until a single request is left, which is refused.

use crate::metrics::RedisError;
use crate::process::backoff::Backoff;
use crate::process::unix_time;
use crate::queue::batch::producer::Producer;
use crate::queue::batch::script::{Attempt, RequestOutcome, ScriptError};
use crate::queue::batch::sender::BatchSender;
use crate::queue::batch::unacknowledged::{
    FIRST_BACKOFF, LONGEST_BACKOFF, Unacknowledged, is_momentary,
};
use crate::queue::bullmq::job::Jobs;
use crate::queue::outcome::Enqueued;
use crate::queue::redis::connection::RedisConnection;
use crate::queue::redis::health::RedisHealth;
use crate::queue::redis::limits::{ExceededLimit, Limits};
use crate::queue::redis::reconnect::CurrentConnection;
use crate::queue::redis::transport::Driver;
use crate::queue::settings::QueueSettings;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Connections for isolated batches, besides the shared one.
const MAX_CONNECTIONS: usize = 2;

/// The shared producer never gets to this number. Those of isolated batches follow it, because
/// their withdrawals use the shared connection.
const LAST_OF_SHARED: u64 = 1 << 40;

/// The margin is the size of a request that broke its connection, divided by this. A request that
/// is smaller by no more than the margin is sent alone as well.
const SUSPECT_MARGIN: usize = 8;

/// Sends suspected batches alone.
#[derive(Debug)]
pub(in crate::queue) struct Isolation {
    settings: Arc<QueueSettings>,
    /// A producer of its own: isolated batches stay open for long, and the record of the shared
    /// producer would grow meanwhile.
    sender: BatchSender,
    /// The shared connection.
    reconnect: CurrentConnection,
    health: Arc<RedisHealth>,
    slots: Semaphore,
    /// Requests of at least this many bytes are sent alone at once, because one of about this size
    /// has broken a connection.
    suspect_bytes: AtomicUsize,
}

/// Why a request was not acknowledged.
#[derive(Debug, Clone)]
pub(in crate::queue) enum Refusal {
    /// Redis does not accept a request of this size.
    TooLarge(ExceededLimit),
    Unavailable(Unacknowledged),
}

/// Why a part of a batch has no outcomes.
enum Unsettled {
    /// The part breaks connections or would break them; `Some`: because of its size.
    Culprit(Option<ExceededLimit>),
    Unavailable(Unacknowledged),
}

/// The result of sending a part of a batch alone once.
enum IsolatedOutcome {
    Settled(Vec<RequestOutcome>),
    /// The part was refused, or it breaks connections. Nothing of it will be executed; `Some`:
    /// because of its size.
    Culprit(Option<ExceededLimit>),
    /// Nothing of the part will be executed. The reason may be temporary.
    Retry(Unacknowledged),
    GivenUp(Unacknowledged),
}

/// What is known of a batch that may have been executed.
enum BatchStatus {
    Settled(Vec<RequestOutcome>),
    Withdrawn {
        /// Whether the withdrawal went over the connection that existed before the loss.
        is_by_witness: bool,
    },
    Unknown,
}

impl Isolation {
    pub(in crate::queue) fn new(
        settings: &Arc<QueueSettings>,
        reconnect: CurrentConnection,
        health: &Arc<RedisHealth>,
    ) -> Self {
        Self {
            settings: Arc::clone(settings),
            sender: BatchSender::new(settings, Producer::numbering_after(LAST_OF_SHARED)),
            reconnect,
            health: Arc::clone(health),
            slots: Semaphore::new(MAX_CONNECTIONS),
            suspect_bytes: AtomicUsize::new(usize::MAX),
        }
    }

    /// Whether a request of the batch is so large that the batch must be sent alone.
    pub(in crate::queue) fn is_suspect(&self, requests: &[Jobs]) -> bool {
        let suspect_bytes = self.suspect_bytes.load(Ordering::Relaxed);
        requests.iter().any(|jobs| jobs.bytes >= suspect_bytes)
    }

    /// Sends a batch alone, and returns the outcome of each request. No earlier attempt of the
    /// batch may be executed any more.
    pub(in crate::queue) async fn settle(
        &self,
        requests: &[Jobs],
        deadline: Instant,
    ) -> Vec<Result<RequestOutcome, Refusal>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut parts = vec![requests];
        while let Some(part) = parts.pop() {
            match self.settle_part(part, deadline).await {
                Ok(outcomes) => results.extend(outcomes.into_iter().map(Ok)),
                Err(Unsettled::Culprit(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    // The first half is next, because the last part is popped first.
                    parts.extend([second, first]);
                }
                Err(Unsettled::Culprit(excess)) => {
                    for jobs in part {
                        results.push(Err(self.explain(jobs, excess, deadline).await));
                    }
                }
                Err(Unsettled::Unavailable(error)) => {
                    results.extend(part.iter().map(|_| Err(Refusal::Unavailable(error.clone()))));
                }
            }
        }
        results
    }

    async fn settle_part(
        &self,
        part: &[Jobs],
        deadline: Instant,
    ) -> Result<Vec<RequestOutcome>, Unsettled> {
        let latest = self.sender.latest_execution(deadline);
        let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        let mut failure = Unacknowledged::new(RedisError::Timeout, Enqueued::Nothing);
        let slot = timeout_at(latest, self.slots.acquire()).await;
        while slot.is_ok() && Instant::now() < latest {
            let Some(witness) = self.reconnect.connection(latest).await else {
                failure = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
                break;
            };
            match Box::pin(self.attempt(part, &witness, deadline)).await {
                IsolatedOutcome::Settled(outcomes) => {
                    self.clear_suspicion(part);
                    return Ok(outcomes);
                }
                IsolatedOutcome::Culprit(excess) => {
                    self.record_suspicion(part);
                    return Err(Unsettled::Culprit(excess));
                }
                IsolatedOutcome::GivenUp(unacknowledged) => {
                    return Err(Unsettled::Unavailable(unacknowledged));
                }
                IsolatedOutcome::Retry(unacknowledged) => failure = unacknowledged,
            }
            let _ = timeout_at(latest, backoff.wait()).await;
        }
        Err(Unsettled::Unavailable(failure))
    }

    /// Opens a connection, and sends the part over it unless it exceeds a limit that Redis reports.
    async fn attempt(
        &self,
        part: &[Jobs],
        witness: &RedisConnection,
        deadline: Instant,
    ) -> IsolatedOutcome {
        let latest = self.sender.latest_execution(deadline);
        let unreachable = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
        let Ok(Ok((connection, mut driver))) =
            timeout_at(latest, RedisConnection::open(&self.settings)).await
        else {
            return IsolatedOutcome::Retry(unreachable);
        };
        let Ok(Some(limits)) = timeout_at(latest, Limits::query(&connection)).await else {
            return IsolatedOutcome::Retry(unreachable);
        };
        if let Some(excess) = part.iter().find_map(|jobs| limits.exceeded_by(jobs)) {
            return IsolatedOutcome::Culprit(Some(excess));
        }
        let number = self.sender.open_batch();
        let attempt = Attempt {
            number: &number,
            deadline: connection.clock().at(latest),
            timestamp: unix_time::milliseconds(SystemTime::now()),
            requests: part,
            is_withdrawal: false,
        };
        match self.send(&connection, &mut driver, attempt, deadline).await {
            Ok(outcomes) => IsolatedOutcome::Settled(outcomes),
            Err(ScriptError::Lost(kind)) => {
                self.investigate_loss(kind, attempt, witness, deadline).await
            }
            Err(failure) => self.outcome_of_failure(failure, part),
        }
    }

    /// Sends an attempt over a connection that nothing else uses, and detects the end of that
    /// connection.
    async fn send(
        &self,
        connection: &RedisConnection,
        driver: &mut Driver,
        attempt: Attempt<'_>,
        deadline: Instant,
    ) -> Result<Vec<RequestOutcome>, ScriptError> {
        let latest = self.sender.latest_execution(deadline);
        tokio::select! {
            biased;
            sent = self.sender.send(connection, attempt, latest) => sent,
            end = connection.ended(driver, self.settings.reply_timeout()) => {
                let (server, queue) = (connection.server(), self.settings.shard_name());
                tracing::debug!(server, queue, cause = end, "connection of an isolated batch lost");
                Err(ScriptError::Lost(RedisError::Connection))
            }
            () = tokio::time::sleep_until(deadline) => Err(ScriptError::Lost(RedisError::Timeout)),
        }
    }

    /// The outcome of any failure except `Lost`.
    fn outcome_of_failure(&self, failure: ScriptError, part: &[Jobs]) -> IsolatedOutcome {
        let nothing = |kind| Unacknowledged::new(kind, Enqueued::Nothing);
        match failure {
            ScriptError::TooFewReplicas => IsolatedOutcome::GivenUp(Unacknowledged::new(
                RedisError::TooFewReplicas,
                Enqueued::Unknown,
            )),
            ScriptError::Refused(RedisError::TooLarge, _) => {
                IsolatedOutcome::Culprit(part.first().map(ExceededLimit::unknown_limit))
            }
            ScriptError::Refused(kind, message) => {
                let refused = Unacknowledged { refusal: Some(message), ..nothing(kind) };
                if is_momentary(kind, &self.health) {
                    IsolatedOutcome::Retry(refused)
                } else {
                    IsolatedOutcome::GivenUp(refused)
                }
            }
            ScriptError::Late => IsolatedOutcome::Retry(nothing(RedisError::Timeout)),
            _ => IsolatedOutcome::Retry(nothing(RedisError::Connection)),
        }
    }

    /// Withdraws the batch over another connection after its own connection was lost, and decides
    /// by the reply whether the batch is the cause.
    async fn investigate_loss(
        &self,
        kind: RedisError,
        attempt: Attempt<'_>,
        witness: &RedisConnection,
        deadline: Instant,
    ) -> IsolatedOutcome {
        let unknown = Unacknowledged::new(kind, Enqueued::Unknown);
        match timeout_at(deadline, self.withdraw(attempt, witness, deadline)).await {
            Ok(BatchStatus::Settled(outcomes)) => IsolatedOutcome::Settled(outcomes),
            Ok(BatchStatus::Withdrawn { is_by_witness: true })
                if kind == RedisError::Connection =>
            {
                IsolatedOutcome::Culprit(None)
            }
            Ok(BatchStatus::Withdrawn { .. }) => {
                IsolatedOutcome::Retry(Unacknowledged::new(kind, Enqueued::Nothing))
            }
            Ok(BatchStatus::Unknown) | Err(_) => IsolatedOutcome::GivenUp(unknown),
        }
    }

    /// Withdraws the batch, and reports its status. The shared connection that existed before the
    /// loss is used first: if it answers, Redis was reachable all the time.
    async fn withdraw(
        &self,
        attempt: Attempt<'_>,
        witness: &RedisConnection,
        deadline: Instant,
    ) -> BatchStatus {
        let latest = self.sender.latest_execution(deadline);
        let attempt = Attempt { is_withdrawal: true, ..attempt };
        let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        let mut answer = self.sender.send(witness, attempt, latest).await;
        let mut is_by_witness = true;
        loop {
            match answer {
                Ok(outcomes) => return BatchStatus::Settled(outcomes),
                // Late is final: every other attempt has the same deadline.
                Err(ScriptError::Withdrawn | ScriptError::Late) => {
                    return BatchStatus::Withdrawn { is_by_witness };
                }
                Err(ScriptError::TooFewReplicas) => return BatchStatus::Unknown,
                // The next answer may come over another connection, from another server.
                Err(ScriptError::NotSent | ScriptError::Lost(_) | ScriptError::Refused(..)) => {
                    is_by_witness = false;
                }
            }
            backoff.wait().await;
            let Some(connection) = self.reconnect.connection(latest).await else {
                return BatchStatus::Unknown;
            };
            answer = self.sender.send(&connection, attempt, latest).await;
        }
    }

    /// Records the size of a request that broke its connection, so that no caller breaks the shared
    /// connection with a slightly smaller one. The recorded size is at most `max_bytes + 1`. So
    /// every request that is a batch of its own because of its size is sent alone from then on.
    fn record_suspicion(&self, part: &[Jobs]) {
        if let [jobs] = part {
            let max_bytes = self.settings.batch.max_bytes;
            let margin = jobs.bytes / SUSPECT_MARGIN;
            let bytes = (max_bytes + 1).min(jobs.bytes - margin);
            self.suspect_bytes.fetch_min(bytes, Ordering::Relaxed);
        }
    }

    /// Raises the recorded size after Redis has accepted a suspect part.
    fn clear_suspicion(&self, part: &[Jobs]) {
        if self.is_suspect(part) {
            let largest = part.iter().map(|jobs| jobs.bytes).max().unwrap_or(0);
            self.suspect_bytes.store(largest + 1, Ordering::Relaxed);
        }
    }

    /// Returns why a request that breaks connections alone is refused: the exceeded limit of Redis,
    /// as far as it can be found out.
    async fn explain(
        &self,
        jobs: &Jobs,
        excess: Option<ExceededLimit>,
        deadline: Instant,
    ) -> Refusal {
        match excess {
            Some(excess) if excess.max_bytes.is_some() => Refusal::TooLarge(excess),
            excess => {
                let found =
                    timeout_at(self.sender.latest_execution(deadline), self.exceeded_limit(jobs))
                        .await;
                let excess = found.ok().flatten().or(excess);
                excess.map_or_else(|| self.unexplained(), Refusal::TooLarge)
            }
        }
    }

    async fn exceeded_limit(&self, jobs: &Jobs) -> Option<ExceededLimit> {
        let latest = Instant::now() + self.settings.reply_timeout();
        let connection = self.reconnect.connection(latest).await?;
        ExceededLimit::find(&connection, &self.settings.queue.producer_key("none"), jobs).await
    }

    /// The refusal of a request that breaks its connection without exceeding a known limit of
    /// Redis.
    fn unexplained(&self) -> Refusal {
        let limits = self.health.limits.get();
        Refusal::Unavailable(Unacknowledged {
            refusal: Some(format!(
                "a request breaks its connection while Redis answers on other connections; {limits}"
            )),
            ..Unacknowledged::new(RedisError::TooLarge, Enqueued::Nothing)
        })
    }
}
