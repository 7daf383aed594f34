//! Delivery of a batch: attempts are sent until its outcome is known, and its callers are answered
//! at its deadline at the latest.

use crate::metrics::{RedisError, RedisMetrics};
use crate::process::backoff::Backoff;
use crate::process::failpoint;
use crate::process::unix_time;
use crate::queue::batch::isolation::{Isolation, Refusal};
use crate::queue::batch::pending::{PendingCaller, PendingRequest};
use crate::queue::batch::producer::Producer;
use crate::queue::batch::script::{Attempt, RequestOutcome, ScriptError};
use crate::queue::batch::sender::BatchSender;
use crate::queue::batch::spans::{self, BatchSpans};
use crate::queue::batch::staging::is_staged;
use crate::queue::batch::unacknowledged::{
    FIRST_BACKOFF, LONGEST_BACKOFF, Unacknowledged, is_momentary,
};
use crate::queue::bullmq::job::Jobs;
use crate::queue::outcome::{Added, EnqueueError, Enqueued};
use crate::queue::parts::QueueParts;
use crate::queue::redis::connection::RedisConnection;
use crate::queue::redis::health::RedisHealth;
use crate::queue::redis::limits::ExceededLimit;
use crate::queue::redis::reconnect::CurrentConnection;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// A batch that was in flight when this many connections broke may be the cause. Two failovers in a
/// row look the same, so the batch is not refused but sent alone.
const SUSPECT_AFTER: usize = 2;

/// Delivers batches over the shared connection, and suspected ones alone.
#[derive(Debug)]
pub(in crate::queue) struct Delivery {
    sender: BatchSender,
    isolation: Isolation,
    reconnect: CurrentConnection,
    health: Arc<RedisHealth>,
    metrics: Arc<RedisMetrics>,
    /// The name of the queue, for spans.
    queue: String,
}

/// What is known of a batch whose outcome is not known yet.
struct DeliveryState<'a> {
    requests: &'a [Jobs],
    failure: Unacknowledged,
    /// Number of connections that broke while the batch was in flight on them.
    broken_connections: usize,
}

impl DeliveryState<'_> {
    fn is_in_doubt(&self) -> bool {
        self.failure.enqueued == Enqueued::Unknown
    }

    /// Whether Redis may refuse an attempt before the script can look up an earlier one.
    fn is_staged(&self) -> bool {
        self.requests.iter().any(is_staged)
    }

    /// Whether the batch may be what breaks connections.
    fn is_suspect(&self) -> bool {
        self.broken_connections >= SUSPECT_AFTER
    }
}

/// How a delivery over the shared connection ends without an outcome.
enum DeliveryEnd {
    GivenUp(Unacknowledged),
    /// No attempt of the batch will be executed any more. The shared connection is not risked for
    /// it again.
    Suspect,
}

/// What to do after an attempt has failed.
enum NextStep {
    End(DeliveryEnd),
    Retry,
    RetryLater,
}

/// The callers that wait for a batch. Callers that a panic drops without an answer are counted.
struct PendingCallers {
    remaining: std::vec::IntoIter<PendingCaller>,
    metrics: Arc<RedisMetrics>,
}

impl Iterator for PendingCallers {
    type Item = PendingCaller;

    fn next(&mut self) -> Option<PendingCaller> {
        self.remaining.next()
    }
}

impl Drop for PendingCallers {
    fn drop(&mut self) {
        self.metrics.unacknowledged_unknown.increment(self.remaining.len() as u64);
    }
}

impl Delivery {
    /// Creates a delivery over this connection, with a new producer.
    pub(in crate::queue) fn new(
        QueueParts { settings, health, metrics, .. }: &QueueParts,
        reconnect: CurrentConnection,
    ) -> Self {
        Self {
            sender: BatchSender::new(settings, Producer::new()),
            isolation: Isolation::new(settings, reconnect.clone(), health),
            reconnect,
            health: Arc::clone(health),
            metrics: Arc::clone(metrics),
            queue: settings.name().to_owned(),
        }
    }

    /// Delivers a batch and answers its callers. `slot` is released when the shared connection is
    /// no longer needed.
    pub(in crate::queue) async fn deliver(
        self: Arc<Self>,
        batch: Vec<PendingRequest>,
        slot: OwnedSemaphorePermit,
    ) {
        let started_at = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|request| self.sender.latest_execution(request.deadline) > started_at);
        spans::end_late(&late, &self.queue);
        self.fail_all(late.into_iter().map(|request| request.caller), Enqueued::Nothing);
        let Some(deadline) = batch.iter().map(|request| request.deadline).min() else { return };
        let (requests, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|PendingRequest { jobs, caller, .. }| (jobs, caller)).unzip();
        let callers =
            PendingCallers { remaining: callers.into_iter(), metrics: Arc::clone(&self.metrics) };
        let jobs: usize = requests.iter().map(|jobs| jobs.heads.len()).sum();
        self.metrics.batch_jobs.record(jobs as f64);
        let mut spans = BatchSpans::new(&requests, &self.queue);
        let result = if self.isolation.is_suspect(&requests) {
            Err(DeliveryEnd::Suspect)
        } else {
            self.settle(&requests, deadline, spans.as_mut()).await
        };
        failpoint::pass("delivery");
        // Other batches do not wait until the isolated one has its own connection.
        drop(slot);
        match result {
            Ok(outcomes) => self.acknowledge(&requests, callers, &outcomes),
            Err(DeliveryEnd::GivenUp(error)) => self.refuse(callers, error),
            Err(DeliveryEnd::Suspect) => {
                Box::pin(self.deliver_alone(&requests, callers, deadline, spans.as_mut())).await;
            }
        }
        self.metrics.call_duration.record(started_at.elapsed());
    }

    /// Sends attempts of a batch until Redis reports its outcome. The script ensures that at most
    /// one attempt is executed, and none after the deadline.
    async fn settle(
        &self,
        requests: &[Jobs],
        deadline: Instant,
        mut spans: Option<&mut BatchSpans<'_>>,
    ) -> Result<Vec<RequestOutcome>, DeliveryEnd> {
        let latest = self.sender.latest_execution(deadline);
        let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        let failure = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
        let mut state = DeliveryState { requests, failure, broken_connections: 0 };
        let timestamp = unix_time::milliseconds(SystemTime::now());
        let mut number = None;
        let mut redis_deadline = None;
        while let Some(connection) = self.reconnect.connection(latest).await {
            if state.is_in_doubt() {
                self.metrics.resent_batches.increment(1);
            } else {
                if Instant::now() >= latest {
                    break;
                }
                // No attempt is in doubt, so this one may get a new number and a new deadline. A
                // number under which Redis has refused jobs may be used up. While an attempt is in
                // doubt, all attempts have one deadline: if one is late, no other is executed.
                (number, redis_deadline) = (None, None);
            }
            let attempt = Attempt {
                number: number.get_or_insert_with(|| self.sender.open_batch()),
                deadline: *redis_deadline.get_or_insert_with(|| connection.clock().at(latest)),
                timestamp,
                requests,
                is_withdrawal: state.is_suspect(),
            };
            let sent = self.sender.send(&connection, attempt, latest);
            spans::begin_call(&mut spans);
            let sent = tokio::time::timeout_at(deadline, sent).await;
            if let Some(spans) = &spans {
                spans.end_call(&connection.server(), spans::error(&sent));
            }
            let failure = match sent {
                Ok(Ok(outcomes)) => return Ok(outcomes),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let timeout = Unacknowledged::new(RedisError::Timeout, Enqueued::Unknown);
                    return Err(DeliveryEnd::GivenUp(timeout));
                }
            };
            match self.next_step(failure, &mut state, &connection) {
                NextStep::End(end) => return Err(end),
                NextStep::Retry => {}
                NextStep::RetryLater => {
                    let _ = tokio::time::timeout_at(latest, backoff.wait()).await;
                }
            }
        }
        Err(DeliveryEnd::GivenUp(state.failure))
    }

    /// Records the failure of an attempt, and returns what to do next.
    fn next_step(
        &self,
        failure: ScriptError,
        state: &mut DeliveryState<'_>,
        connection: &RedisConnection,
    ) -> NextStep {
        match failure {
            ScriptError::Late if state.is_in_doubt() => NextStep::End(DeliveryEnd::GivenUp(
                Unacknowledged::new(RedisError::Timeout, Enqueued::Nothing),
            )),
            // The deadline was computed from a wrong reading of the clock. The reply has corrected
            // it.
            ScriptError::Late => {
                state.failure.kind = RedisError::Timeout;
                NextStep::Retry
            }
            ScriptError::Withdrawn => NextStep::End(DeliveryEnd::Suspect),
            ScriptError::TooFewReplicas => NextStep::End(DeliveryEnd::GivenUp(
                Unacknowledged::new(RedisError::TooFewReplicas, Enqueued::Unknown),
            )),
            ScriptError::Refused(kind, message) => {
                self.next_step_after_refusal(kind, message, state, connection)
            }
            ScriptError::NotSent => {
                // A connection that is being replaced still has to deliver replies to other calls.
                if !connection.is_closing() {
                    connection.give_up();
                }
                NextStep::Retry
            }
            ScriptError::Lost(kind) => {
                connection.give_up();
                state.failure = Unacknowledged::new(kind, Enqueued::Unknown);
                state.broken_connections += usize::from(kind == RedisError::Connection);
                // Connections to a cluster that is down succeed and are lost at once, so retries
                // need a backoff.
                if kind == RedisError::Cluster { NextStep::RetryLater } else { NextStep::Retry }
            }
        }
    }

    fn next_step_after_refusal(
        &self,
        kind: RedisError,
        message: String,
        state: &mut DeliveryState<'_>,
        connection: &RedisConnection,
    ) -> NextStep {
        // The server may no longer be the primary. A replacement connection asks Sentinel again.
        if matches!(kind, RedisError::ReadOnly | RedisError::Authentication) {
            connection.request_replacement();
        }
        let enqueued = state.failure.enqueued;
        let refused = Unacknowledged { kind, enqueued, refusal: Some(message) };
        // The refusal of this attempt does not reveal the outcome of an earlier one.
        if state.is_in_doubt() {
            state.failure = refused;
            // A withdrawal has no jobs that could be refused, and reports an earlier attempt.
            if kind == RedisError::TooLarge || state.is_staged() {
                state.broken_connections = SUSPECT_AFTER;
            }
            return NextStep::RetryLater;
        }
        if kind == RedisError::TooLarge {
            return NextStep::End(DeliveryEnd::Suspect);
        }
        if is_momentary(kind, &self.health) {
            let queue = self.health.queue();
            tracing::debug!(queue, cause = refused.refusal, "batch refused temporarily");
            state.failure = refused;
            return NextStep::RetryLater;
        }
        NextStep::End(DeliveryEnd::GivenUp(refused))
    }

    /// Sends a suspected batch alone, and answers each request separately, because one of them may
    /// be refused while the others are accepted.
    async fn deliver_alone(
        &self,
        requests: &[Jobs],
        callers: PendingCallers,
        deadline: Instant,
        mut spans: Option<&mut BatchSpans<'_>>,
    ) {
        spans::begin_call(&mut spans);
        let results = self.isolation.settle(requests, deadline).await;
        spans::end_isolated(spans);
        for ((caller, jobs), result) in callers.zip(requests).zip(results) {
            match result {
                Ok(outcome) => {
                    self.health.batch_accepted();
                    self.answer(caller, jobs, outcome);
                }
                Err(Refusal::TooLarge(excess)) => self.refuse_too_large(caller, excess),
                Err(Refusal::Unavailable(error)) => self.refuse(std::iter::once(caller), error),
            }
        }
    }

    fn refuse_too_large(&self, caller: PendingCaller, excess: ExceededLimit) {
        self.metrics.error(RedisError::TooLarge).increment(1);
        self.health.request_too_large(excess);
        let ExceededLimit { bytes, max_bytes, .. } = excess;
        caller.answer(Err(EnqueueError::JobTooLarge { bytes, max_bytes }));
    }

    fn acknowledge(&self, requests: &[Jobs], callers: PendingCallers, outcomes: &[RequestOutcome]) {
        self.health.batch_accepted();
        for ((caller, jobs), outcome) in callers.zip(requests).zip(outcomes) {
            self.answer(caller, jobs, *outcome);
        }
    }

    fn answer(&self, caller: PendingCaller, jobs: &Jobs, outcome: RequestOutcome) {
        caller.answer(match outcome {
            RequestOutcome::Added => {
                let matched = jobs.heads.len();
                self.metrics.jobs_enqueued.increment(matched as u64);
                Ok(Added { matched, is_repeated: false })
            }
            RequestOutcome::Repeated { matched } => Ok(Added { matched, is_repeated: true }),
            RequestOutcome::KeyReused => Err(EnqueueError::IdempotencyKeyReused),
            RequestOutcome::KeyConflict => {
                self.metrics.error(RedisError::WrongType).increment(1);
                self.metrics.unacknowledged_none.increment(1);
                self.health.key_conflict();
                Err(EnqueueError::Unavailable(Enqueued::Nothing))
            }
        });
    }

    fn refuse(&self, callers: impl Iterator<Item = PendingCaller>, error: Unacknowledged) {
        let Unacknowledged { kind, enqueued, refusal } = error;
        self.metrics.error(kind).increment(1);
        let requests = self.fail_all(callers, enqueued);
        self.log(kind, requests, enqueued, refusal.as_deref());
        // The size of one request says nothing about the health of Redis.
        if let Some(message) = refusal.filter(|_| kind != RedisError::TooLarge) {
            self.health.batch_refused(&message);
        }
    }

    /// Logs a batch that was not acknowledged. Many batches fail at the same time, so only one per
    /// kind and interval is logged as a warning.
    fn log(&self, kind: RedisError, requests: usize, enqueued: Enqueued, refusal: Option<&str>) {
        let (server, queue) = (self.reconnect.server(), self.health.queue());
        let enqueued = enqueued.as_str();
        let cause = match (refusal, kind) {
            (Some(message), _) => message.to_owned(),
            (None, RedisError::Connection) => self.reconnect.cause(),
            (None, kind) => kind.as_str().to_owned(),
        };
        if self.health.may_log(kind) {
            tracing::warn!(
                server,
                queue,
                cause,
                requests,
                enqueued,
                "batch not acknowledged; further ones are counted in hookgate_redis_errors_total"
            );
        } else {
            tracing::debug!(server, queue, cause, requests, enqueued, "batch not acknowledged");
        }
    }

    /// Answers all callers with 503, and returns how many they are.
    fn fail_all(&self, callers: impl Iterator<Item = PendingCaller>, enqueued: Enqueued) -> usize {
        let counter = match enqueued {
            Enqueued::Nothing => &self.metrics.unacknowledged_none,
            Enqueued::Unknown => &self.metrics.unacknowledged_unknown,
        };
        let mut answered = 0;
        for caller in callers {
            counter.increment(1);
            caller.answer(Err(EnqueueError::Unavailable(enqueued)));
            answered += 1;
        }
        answered
    }
}
