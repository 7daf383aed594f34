//! A batch on its way: sent, sent again while nobody knows what became of it, and answered at its
//! deadline at the latest.

use super::batcher::Waiting;
use super::job::Jobs;
use super::link::Link;
use super::producer::Producer;
use super::script::{AddJobs, Copy, Failure, Fate};
use super::session::{CallError, Session};
use super::{Added, EnqueueError, Enqueued, QueueSettings};
use crate::metrics::{Metrics, RedisError};
use fred::types::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Between two copies of a batch that Redis refuses while an earlier one is in doubt.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// How late WAIT may end: Redis looks at its time limits ten times a second.
const WAIT_LATENESS: Duration = Duration::from_millis(100);

/// What a batch needs.
#[derive(Debug)]
pub(super) struct Delivery {
    settings: Arc<QueueSettings>,
    add_jobs: AddJobs,
    producer: Producer,
    link: Link,
    metrics: Arc<Metrics>,
}

/// A batch that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unacknowledged {
    kind: RedisError,
    enqueued: Enqueued,
}

impl Unacknowledged {
    fn nothing(kind: RedisError) -> Self {
        Self { kind, enqueued: Enqueued::Nothing }
    }

    fn unknown(kind: RedisError) -> Self {
        Self { kind, enqueued: Enqueued::Unknown }
    }
}

impl Delivery {
    /// Connects to Redis, as a new producer.
    pub(super) fn start(settings: &Arc<QueueSettings>, metrics: &Arc<Metrics>) -> Self {
        let producer = Producer::new();
        Self {
            add_jobs: AddJobs::new(settings, &producer),
            link: Link::start(settings),
            producer,
            settings: Arc::clone(settings),
            metrics: Arc::clone(metrics),
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link.clone()
    }

    /// Takes a batch to Redis and answers those who wait for it together.
    pub(super) async fn deliver(self: Arc<Self>, batch: Vec<Waiting>, slot: OwnedSemaphorePermit) {
        let begun = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| self.latest(waiting.deadline) > begun);
        for Waiting { caller, .. } in late {
            caller.answer(Err(EnqueueError::Unavailable(Enqueued::Nothing)));
        }
        let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).min() else { return };
        let (requests, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|Waiting { jobs, caller, .. }| (jobs, caller)).unzip();
        let jobs: usize = requests.iter().map(|jobs| jobs.heads.len()).sum();
        self.metrics.redis.batch_jobs.record(jobs as f64);
        let result = self.settle(&requests, deadline).await;
        drop(slot);
        self.metrics.redis.call_duration.record(begun.elapsed());
        match result {
            Ok(fates) => {
                for ((caller, jobs), fate) in callers.into_iter().zip(&requests).zip(fates) {
                    caller.answer(self.answer(jobs, fate));
                }
            }
            Err(error) => {
                self.metrics.redis.error(error.kind).increment(1);
                tracing::debug!(
                    kind = error.kind.word(),
                    requests = requests.len(),
                    enqueued = error.enqueued.word(),
                    "batch not acknowledged"
                );
                for caller in callers {
                    caller.answer(Err(EnqueueError::Unavailable(error.enqueued)));
                }
            }
        }
    }

    /// When a batch with this deadline is last carried out. What is left is for the reply: a call with
    /// less time than that could only end unknown.
    fn latest(&self, deadline: Instant) -> Instant {
        deadline - self.settings.margin()
    }

    /// Sends copies of a batch until Redis has said what became of it. One copy at the most is carried
    /// out, and none after the deadline: the script sees to that.
    async fn settle(
        &self,
        requests: &[Jobs],
        deadline: Instant,
    ) -> Result<Vec<Fate>, Unacknowledged> {
        let number = self.producer.open_batch();
        let latest = self.latest(deadline);
        let mut link = self.link.clone();
        let mut fate = Unacknowledged { kind: RedisError::Connection, enqueued: Enqueued::Nothing };
        // The same for all copies, so that none is carried out when another was too late.
        let mut redis_deadline = None;
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        while let Some(session) = link.session(latest).await {
            if fate.enqueued == Enqueued::Unknown {
                self.metrics.redis.resent_batches.increment(1);
            }
            let copy = Copy {
                number: &number,
                deadline: *redis_deadline.get_or_insert_with(|| session.clock().at(latest)),
                timestamp,
                requests,
            };
            let sent = tokio::time::timeout_at(deadline, self.send(&session, copy, latest)).await;
            match sent {
                Ok(Ok(fates)) => return Ok(fates),
                Ok(Err(Failure::Late)) => return Err(Unacknowledged::nothing(RedisError::Timeout)),
                Ok(Err(Failure::TooFewReplicas)) => {
                    return Err(Unacknowledged::unknown(RedisError::TooFewReplicas));
                }
                Ok(Err(Failure::Refused(kind))) => {
                    // A server that is not the primary any more is left, so that Sentinel is asked again.
                    if matches!(kind, RedisError::ReadOnly | RedisError::Authentication) {
                        session.give_up();
                    }
                    fate.kind = kind;
                    // What an earlier copy has come to is another question.
                    if fate.enqueued == Enqueued::Nothing || Instant::now() >= latest {
                        return Err(fate);
                    }
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Ok(Err(Failure::NotSent)) => session.give_up(),
                Ok(Err(Failure::Lost(kind))) => {
                    session.give_up();
                    fate = Unacknowledged::unknown(kind);
                }
                Err(_) => return Err(Unacknowledged::unknown(RedisError::Timeout)),
            }
        }
        Err(fate)
    }

    /// Sends a copy, and waits for as many replicas as are asked for.
    async fn send(
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
            let replicas: Result<usize, CallError> = session.call("WAIT", arguments).await;
            // The jobs are there: no error can say otherwise.
            if replicas.map_err(|_| Failure::Lost(RedisError::Connection))? >= wanted {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Failure::TooFewReplicas);
            }
        }
    }

    fn answer(&self, jobs: &Jobs, fate: Fate) -> Result<Added, EnqueueError> {
        match fate {
            Fate::Added => {
                let matched = jobs.heads.len();
                self.metrics.jobs_enqueued.increment(matched as u64);
                Ok(Added { matched, is_repeated: false })
            }
            Fate::Repeated { matched } => Ok(Added { matched, is_repeated: true }),
            Fate::KeyReused => Err(EnqueueError::IdempotencyKeyReused),
            Fate::InTheWay => {
                self.metrics.redis.error(RedisError::WrongType).increment(1);
                tracing::warn!("a key that a job needs is held by something else in Redis");
                Err(EnqueueError::Unavailable(Enqueued::Nothing))
            }
        }
    }
}
