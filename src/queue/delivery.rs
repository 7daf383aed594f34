//! A batch on its way: sent, sent again while nobody knows what became of it, and answered at its
//! deadline at the latest.

use super::batcher::{Caller, Waiting};
use super::health::Health;
use super::job::Jobs;
use super::link::Link;
use super::producer::Producer;
use super::script::{AddJobs, Copy, Failure, Fate};
use super::session::{CallError, Session};
use super::{Added, EnqueueError, Enqueued, QueueSettings};
use crate::failpoint;
use crate::metrics::{Metrics, RedisError};
use crate::pause::Pause;
use fred::types::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Between two copies of a batch that Redis refuses while an earlier one is in doubt.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How late WAIT may end: Redis looks at its time limits ten times a second.
const WAIT_LATENESS: Duration = Duration::from_millis(100);

/// What a batch needs.
#[derive(Debug)]
pub(super) struct Delivery {
    settings: Arc<QueueSettings>,
    add_jobs: AddJobs,
    producer: Producer,
    link: Link,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// A batch that was not acknowledged, and why.
#[derive(Debug)]
struct Unacknowledged {
    kind: RedisError,
    enqueued: Enqueued,
    /// What Redis has said, if it has.
    refusal: Option<String>,
}

impl Unacknowledged {
    fn new(kind: RedisError, enqueued: Enqueued) -> Self {
        Self { kind, enqueued, refusal: None }
    }
}

/// What to do after a copy has failed.
enum Next {
    GiveUp(Unacknowledged),
    AskAgain,
    AskAgainLater,
}

impl Delivery {
    /// Over this link, as a new producer.
    pub(super) fn new(
        settings: &Arc<QueueSettings>,
        link: Link,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let producer = Producer::new();
        Self {
            add_jobs: AddJobs::new(settings, &producer),
            link,
            producer,
            settings: Arc::clone(settings),
            health: Arc::clone(health),
            metrics: Arc::clone(metrics),
        }
    }

    /// Takes a batch to Redis and answers those who wait for it together.
    pub(super) async fn deliver(self: Arc<Self>, batch: Vec<Waiting>, slot: OwnedSemaphorePermit) {
        let begun = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| self.latest(waiting.deadline) > begun);
        self.leave(late.into_iter().map(|waiting| waiting.caller), Enqueued::Nothing);
        let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).min() else { return };
        let (requests, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|Waiting { jobs, caller, .. }| (jobs, caller)).unzip();
        let jobs: usize = requests.iter().map(|jobs| jobs.heads.len()).sum();
        self.metrics.redis.batch_jobs.record(jobs as f64);
        let result = self.settle(&requests, deadline).await;
        failpoint::pass("delivery");
        drop(slot);
        self.metrics.redis.call_duration.record(begun.elapsed());
        match result {
            Ok(fates) => self.acknowledge(&requests, callers, &fates),
            Err(error) => self.refuse(callers, error),
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
        let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut state = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
        let timestamp = milliseconds_since_1970();
        let mut redis_deadline = None;
        while let Some(session) = link.session(latest).await {
            if state.enqueued == Enqueued::Unknown {
                self.metrics.redis.resent_batches.increment(1);
            } else {
                // No copy is in doubt. While one is, all have the same deadline, so that none is carried out when
                // another was too late.
                redis_deadline = None;
            }
            let copy = Copy {
                number: &number,
                deadline: *redis_deadline.get_or_insert_with(|| session.clock().at(latest)),
                timestamp,
                requests,
            };
            let sent = tokio::time::timeout_at(deadline, self.send(&session, copy, latest)).await;
            let failure = match sent {
                Ok(Ok(fates)) => return Ok(fates),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    return Err(Unacknowledged::new(RedisError::Timeout, Enqueued::Unknown));
                }
            };
            match Self::next(failure, &mut state, &session) {
                Next::GiveUp(unacknowledged) => return Err(unacknowledged),
                Next::AskAgain => {}
                Next::AskAgainLater => {
                    let _ = tokio::time::timeout_at(latest, pause.wait()).await;
                }
            }
        }
        Err(state)
    }

    /// Takes a failure into what is known of a batch, and says how to go on.
    fn next(failure: Failure, state: &mut Unacknowledged, session: &Session) -> Next {
        let is_in_doubt = state.enqueued == Enqueued::Unknown;
        match failure {
            Failure::Late if is_in_doubt => {
                Next::GiveUp(Unacknowledged::new(RedisError::Timeout, Enqueued::Nothing))
            }
            // Its time was reckoned by a clock that we had read wrong, and has been read again by now.
            Failure::Late => {
                state.kind = RedisError::Timeout;
                Next::AskAgain
            }
            Failure::TooFewReplicas => {
                Next::GiveUp(Unacknowledged::new(RedisError::TooFewReplicas, Enqueued::Unknown))
            }
            Failure::Refused(kind, text) => {
                // A server that is not the primary any more is left, so that Sentinel is asked again.
                if matches!(kind, RedisError::ReadOnly | RedisError::Authentication) {
                    session.give_up();
                }
                let enqueued = state.enqueued;
                let refused = Unacknowledged { kind, enqueued, refusal: Some(text) };
                // What an earlier copy has come to is another question.
                if !is_in_doubt {
                    return Next::GiveUp(refused);
                }
                *state = refused;
                Next::AskAgainLater
            }
            Failure::NotSent => {
                session.give_up();
                Next::AskAgain
            }
            Failure::Lost(kind) => {
                session.give_up();
                *state = Unacknowledged::new(kind, Enqueued::Unknown);
                Next::AskAgain
            }
        }
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
            match session.call::<usize>("WAIT", arguments).await {
                Ok(replicas) if replicas >= wanted => return Ok(()),
                Ok(_) if !left.is_zero() => {}
                // The jobs are there, whatever it says.
                Ok(_) | Err(CallError::Refused(_)) => return Err(Failure::TooFewReplicas),
                Err(CallError::NotSent | CallError::Lost) => {
                    return Err(Failure::Lost(RedisError::Connection));
                }
            }
        }
    }

    fn acknowledge(&self, requests: &[Jobs], callers: Vec<Caller>, fates: &[Fate]) {
        self.health.jobs_taken();
        for ((caller, jobs), fate) in callers.into_iter().zip(requests).zip(fates) {
            caller.answer(match *fate {
                Fate::Added => {
                    let matched = jobs.heads.len();
                    self.metrics.jobs_enqueued.increment(matched as u64);
                    Ok(Added { matched, is_repeated: false })
                }
                Fate::Repeated { matched } => Ok(Added { matched, is_repeated: true }),
                Fate::KeyReused => Err(EnqueueError::IdempotencyKeyReused),
                Fate::InTheWay => {
                    self.metrics.redis.error(RedisError::WrongType).increment(1);
                    self.metrics.redis.unacknowledged_none.increment(1);
                    self.health.job_in_the_way();
                    Err(EnqueueError::Unavailable(Enqueued::Nothing))
                }
            });
        }
    }

    fn refuse(&self, callers: Vec<Caller>, error: Unacknowledged) {
        let Unacknowledged { kind, enqueued, refusal } = error;
        self.metrics.redis.error(kind).increment(1);
        self.log(kind, callers.len(), enqueued, refusal.as_deref());
        if let Some(text) = refusal {
            self.health.jobs_refused(&text);
        }
        self.leave(callers.into_iter(), enqueued);
    }

    /// Many fail together: the first is a line for operators.
    fn log(&self, kind: RedisError, requests: usize, enqueued: Enqueued, refusal: Option<&str>) {
        let (server, enqueued) = (self.link.server(), enqueued.word());
        let cause = match (refusal, kind) {
            (Some(text), _) => text.to_owned(),
            (None, RedisError::Connection) => self.link.cause(),
            (None, kind) => kind.word().to_owned(),
        };
        if self.health.may_log(kind) {
            tracing::warn!(
                server,
                cause,
                requests,
                enqueued,
                "batch not acknowledged; more like it are counted in hookgate_redis_errors_total"
            );
        } else {
            tracing::debug!(server, cause, requests, enqueued, "batch not acknowledged");
        }
    }

    fn leave(&self, callers: impl Iterator<Item = Caller>, enqueued: Enqueued) {
        let count = match enqueued {
            Enqueued::Nothing => &self.metrics.redis.unacknowledged_none,
            Enqueued::Unknown => &self.metrics.redis.unacknowledged_unknown,
        };
        for caller in callers {
            count.increment(1);
            caller.answer(Err(EnqueueError::Unavailable(enqueued)));
        }
    }
}

fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
