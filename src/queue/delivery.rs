//! A batch on its way: sent, sent again while nobody knows what became of it, and answered at its
//! deadline at the latest.

use super::batcher::{Caller, Waiting};
use super::health::Health;
use super::isolation::{Isolation, Refusal};
use super::job::Jobs;
use super::limits::Excess;
use super::link::Link;
use super::script::{Copy, Failure, Fate};
use super::sender::Sender;
use super::session::Session;
use super::{Added, EnqueueError, Enqueued, QueueSettings};
use crate::failpoint;
use crate::metrics::{Metrics, RedisError};
use crate::pause::Pause;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Between two copies of a batch that Redis refuses for now.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A batch that was in flight at so many breaks may be their cause. Two failovers in a row look the same, so it is not
/// refused for that, but goes alone.
const BREAKS: usize = 2;

/// What a batch needs.
#[derive(Debug)]
pub(super) struct Delivery {
    sender: Sender,
    isolation: Isolation,
    link: Link,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// A batch that was not acknowledged, and why.
#[derive(Debug, Clone)]
pub(super) struct Unacknowledged {
    pub(super) kind: RedisError,
    pub(super) enqueued: Enqueued,
    /// What Redis has said, if it has.
    pub(super) refusal: Option<String>,
}

impl Unacknowledged {
    pub(super) fn new(kind: RedisError, enqueued: Enqueued) -> Self {
        Self { kind, enqueued, refusal: None }
    }
}

/// How a batch that has no fates yet has fared.
struct Course {
    state: Unacknowledged,
    /// Of connections on which it was in flight.
    breaks: usize,
}

impl Course {
    fn is_in_doubt(&self) -> bool {
        self.state.enqueued == Enqueued::Unknown
    }

    /// Whether it may be what breaks connections.
    fn is_suspect(&self) -> bool {
        self.breaks >= BREAKS
    }
}

/// Why a batch has no fates.
enum End {
    GivenUp(Unacknowledged),
    /// No copy of it is carried out any more, and the shared connection is not risked for it again.
    Suspect,
}

/// What to do after a copy has failed.
enum Next {
    End(End),
    AskAgain,
    AskAgainLater,
}

/// Those who wait for a batch. Who is left without an answer when a panic drops them is counted.
struct Callers {
    left: std::vec::IntoIter<Caller>,
    metrics: Arc<Metrics>,
}

impl Iterator for Callers {
    type Item = Caller;

    fn next(&mut self) -> Option<Caller> {
        self.left.next()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.metrics.redis.unacknowledged_unknown.increment(self.left.len() as u64);
    }
}

impl Delivery {
    /// Over this link, as a new producer.
    pub(super) fn new(
        settings: &Arc<QueueSettings>,
        link: Link,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            sender: Sender::new(settings),
            isolation: Isolation::new(settings, link.clone(), health),
            link,
            health: Arc::clone(health),
            metrics: Arc::clone(metrics),
        }
    }

    /// Takes a batch to Redis and answers those who wait for it together.
    pub(super) async fn deliver(self: Arc<Self>, batch: Vec<Waiting>, slot: OwnedSemaphorePermit) {
        let begun = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| self.sender.latest(waiting.deadline) > begun);
        self.leave(late.into_iter().map(|waiting| waiting.caller), Enqueued::Nothing);
        let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).min() else { return };
        let (requests, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|Waiting { jobs, caller, .. }| (jobs, caller)).unzip();
        let callers = Callers { left: callers.into_iter(), metrics: Arc::clone(&self.metrics) };
        let jobs: usize = requests.iter().map(|jobs| jobs.heads.len()).sum();
        self.metrics.redis.batch_jobs.record(jobs as f64);
        let result = if self.isolation.suspects(&requests) {
            Err(End::Suspect)
        } else {
            self.settle(&requests, deadline).await
        };
        failpoint::pass("delivery");
        // Others need not wait until a connection was made for this one alone.
        drop(slot);
        match result {
            Ok(fates) => self.acknowledge(&requests, callers, &fates),
            Err(End::GivenUp(error)) => self.refuse(callers, error),
            Err(End::Suspect) => Box::pin(self.deliver_alone(&requests, callers, deadline)).await,
        }
        self.metrics.redis.call_duration.record(begun.elapsed());
    }

    /// Sends copies of a batch until Redis has said what became of it. One copy at the most is carried
    /// out, and none after the deadline: the script sees to that.
    async fn settle(&self, requests: &[Jobs], deadline: Instant) -> Result<Vec<Fate>, End> {
        let latest = self.sender.latest(deadline);
        let mut link = self.link.clone();
        let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
        let nothing = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
        let mut course = Course { state: nothing, breaks: 0 };
        let timestamp = milliseconds_since_1970();
        let mut number = None;
        let mut redis_deadline = None;
        while let Some(session) = link.session(latest).await {
            if course.is_in_doubt() {
                self.metrics.redis.resent_batches.increment(1);
            } else {
                if Instant::now() >= latest {
                    break;
                }
                // No copy is in doubt. While one is, all have the same deadline, so that none is carried out when
                // another was too late. A number under which Redis has refused jobs may be used up.
                (number, redis_deadline) = (None, None);
            }
            let copy = Copy {
                number: number.get_or_insert_with(|| self.sender.open_batch()),
                deadline: *redis_deadline.get_or_insert_with(|| session.clock().at(latest)),
                timestamp,
                requests,
                is_withdrawal: course.is_suspect(),
            };
            let sent = self.sender.send(&session, copy, latest);
            let failure = match tokio::time::timeout_at(deadline, sent).await {
                Ok(Ok(fates)) => return Ok(fates),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let state = Unacknowledged::new(RedisError::Timeout, Enqueued::Unknown);
                    return Err(End::GivenUp(state));
                }
            };
            match self.next(failure, &mut course, &session) {
                Next::End(end) => return Err(end),
                Next::AskAgain => {}
                Next::AskAgainLater => {
                    let _ = tokio::time::timeout_at(latest, pause.wait()).await;
                }
            }
        }
        Err(End::GivenUp(course.state))
    }

    /// Takes a failure into what is known of a batch, and says how to go on.
    fn next(&self, failure: Failure, course: &mut Course, session: &Session) -> Next {
        match failure {
            Failure::Late if course.is_in_doubt() => {
                Next::End(End::GivenUp(Unacknowledged::new(RedisError::Timeout, Enqueued::Nothing)))
            }
            // Its time was reckoned by a clock that we had read wrong, and has been read again by now.
            Failure::Late => {
                course.state.kind = RedisError::Timeout;
                Next::AskAgain
            }
            Failure::Withdrawn => Next::End(End::Suspect),
            Failure::TooFewReplicas => Next::End(End::GivenUp(Unacknowledged::new(
                RedisError::TooFewReplicas,
                Enqueued::Unknown,
            ))),
            Failure::Refused(kind, text) => self.next_to_refusal(kind, text, course, session),
            Failure::NotSent => {
                // One that was left still owes others their replies.
                if !session.is_given_up() {
                    session.give_up();
                }
                Next::AskAgain
            }
            Failure::Lost(kind) => {
                session.give_up();
                course.state = Unacknowledged::new(kind, Enqueued::Unknown);
                course.breaks += usize::from(kind == RedisError::Connection);
                // A connection to a cluster that is down is made as fast as it is lost.
                if kind == RedisError::Cluster { Next::AskAgainLater } else { Next::AskAgain }
            }
        }
    }

    fn next_to_refusal(
        &self,
        kind: RedisError,
        text: String,
        course: &mut Course,
        session: &Session,
    ) -> Next {
        // A server that is not the primary any more is left, so that Sentinel is asked again.
        if matches!(kind, RedisError::ReadOnly | RedisError::Authentication) {
            session.leave();
        }
        let enqueued = course.state.enqueued;
        let refused = Unacknowledged { kind, enqueued, refusal: Some(text) };
        // What an earlier copy has come to is another question.
        if course.is_in_doubt() {
            course.state = refused;
            if kind == RedisError::TooLarge {
                course.breaks = BREAKS;
            }
            return Next::AskAgainLater;
        }
        if kind == RedisError::TooLarge {
            return Next::End(End::Suspect);
        }
        if is_momentary(kind, &self.health) {
            tracing::debug!(cause = refused.refusal, "batch refused for now");
            course.state = refused;
            return Next::AskAgainLater;
        }
        Next::End(End::GivenUp(refused))
    }

    /// Answers each request by itself: one of them may be refused alone.
    async fn deliver_alone(&self, requests: &[Jobs], callers: Callers, deadline: Instant) {
        let results = self.isolation.settle(requests, deadline).await;
        for ((caller, jobs), result) in callers.zip(requests).zip(results) {
            match result {
                Ok(fate) => {
                    self.health.jobs_taken();
                    self.answer(caller, jobs, fate);
                }
                Err(Refusal::TooLarge(excess)) => self.refuse_too_large(caller, excess),
                Err(Refusal::Unavailable(error)) => self.refuse(std::iter::once(caller), error),
            }
        }
    }

    fn refuse_too_large(&self, caller: Caller, excess: Excess) {
        self.metrics.redis.error(RedisError::TooLarge).increment(1);
        self.health.request_too_large(excess);
        let Excess { bytes, max_bytes, .. } = excess;
        caller.answer(Err(EnqueueError::PayloadTooLarge { bytes, max_bytes }));
    }

    fn acknowledge(&self, requests: &[Jobs], callers: Callers, fates: &[Fate]) {
        self.health.jobs_taken();
        for ((caller, jobs), fate) in callers.zip(requests).zip(fates) {
            self.answer(caller, jobs, *fate);
        }
    }

    fn answer(&self, caller: Caller, jobs: &Jobs, fate: Fate) {
        caller.answer(match fate {
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

    fn refuse(&self, callers: impl Iterator<Item = Caller>, error: Unacknowledged) {
        let Unacknowledged { kind, enqueued, refusal } = error;
        self.metrics.redis.error(kind).increment(1);
        let requests = self.leave(callers, enqueued);
        self.log(kind, requests, enqueued, refusal.as_deref());
        // What concerns one request says nothing of Redis.
        if let Some(text) = refusal.filter(|_| kind != RedisError::TooLarge) {
            self.health.jobs_refused(&text);
        }
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

    /// Answers them all alike, and comes back with how many they are.
    fn leave(&self, callers: impl Iterator<Item = Caller>, enqueued: Enqueued) -> usize {
        let count = match enqueued {
            Enqueued::Nothing => &self.metrics.redis.unacknowledged_none,
            Enqueued::Unknown => &self.metrics.redis.unacknowledged_unknown,
        };
        let mut answered = 0;
        for caller in callers {
            count.increment(1);
            caller.answer(Err(EnqueueError::Unavailable(enqueued)));
            answered += 1;
        }
        answered
    }
}

/// Whether Redis may take in a moment what it refuses so.
pub(super) fn is_momentary(kind: RedisError, health: &Health) -> bool {
    match kind {
        // The call was garbled on its way, and the connection ends with it.
        RedisError::Protocol | RedisError::Cluster | RedisError::Loading | RedisError::Busy => true,
        RedisError::ReadOnly => health.refuses_for_moments(),
        _ => false,
    }
}

pub(super) fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
