//! Batches that may be what breaks connections: each goes over a connection of its own, so that it breaks no other's.
//!
//! A batch that breaks that one too, while Redis answers on another, is the cause. It is taken back by the same producer
//! under the same number, so that what its callers are told stays true. If it has many requests, its halves are sent in
//! the same way, until one request is left that is refused alone.

use super::Enqueued;
use super::QueueSettings;
use super::delivery::{
    FIRST_PAUSE, LONGEST_PAUSE, Unacknowledged, is_momentary, milliseconds_since_1970,
};
use super::health::Health;
use super::job::Jobs;
use super::limits::{Excess, Limits};
use super::link::Link;
use super::script::{Copy, Failure, Fate};
use super::sender::Sender;
use super::session::{Driver, Session};
use crate::metrics::RedisError;
use crate::pause::Pause;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Connections beside the shared one.
const LANES: usize = 2;

/// A request that is smaller than one that broke its connection by less than this part of it is sent alone as well.
const SUSPECT_MARGIN: usize = 8;

/// Sends batches alone.
#[derive(Debug)]
pub(super) struct Isolation {
    settings: Arc<QueueSettings>,
    /// Its batches wait long, and would keep the record of the other producer from getting shorter.
    sender: Sender,
    /// The way to the shared session.
    link: Link,
    health: Arc<Health>,
    lanes: Semaphore,
    /// Requests of so many bytes and more go alone at once, because one of about that size has broken a connection.
    suspect_bytes: AtomicUsize,
}

/// Why a request was not acknowledged.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// Redis does not take a request of this size.
    TooLarge(Excess),
    Unavailable(Unacknowledged),
}

/// Why a batch, or a part of one, has no fates.
enum NotSettled {
    /// It breaks connections, or would: for its size, if it is known.
    Culprit(Option<Excess>),
    Unavailable(Unacknowledged),
}

/// What came of a batch that was sent alone once.
enum Course {
    Settled(Vec<Fate>),
    /// It was refused, or is the cause. Nothing of it is carried out; `Some`: for its size.
    Culprit(Option<Excess>),
    /// Nothing of it is carried out, for a reason that may be gone in a moment.
    AskAgain(Unacknowledged),
    GivenUp(Unacknowledged),
}

/// What is known of a batch that may have been carried out.
enum Answer {
    Settled(Vec<Fate>),
    /// By the session that was there before, if `is_by_witness`.
    Withdrawn {
        is_by_witness: bool,
    },
    Unknown,
}

impl Isolation {
    pub(super) fn new(settings: &Arc<QueueSettings>, link: Link, health: &Arc<Health>) -> Self {
        Self {
            settings: Arc::clone(settings),
            sender: Sender::new(settings),
            link,
            health: Arc::clone(health),
            lanes: Semaphore::new(LANES),
            suspect_bytes: AtomicUsize::new(usize::MAX),
        }
    }

    /// Whether the batch is better not sent together with others.
    pub(super) fn suspects(&self, requests: &[Jobs]) -> bool {
        let suspect_bytes = self.suspect_bytes.load(Ordering::Relaxed);
        requests.iter().any(|jobs| jobs.bytes >= suspect_bytes)
    }

    /// Sends a batch of which no copy may be carried out any more, and comes back with what became of each request.
    pub(super) async fn settle(
        &self,
        requests: &[Jobs],
        deadline: Instant,
    ) -> Vec<Result<Fate, Refusal>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut parts = vec![requests];
        while let Some(part) = parts.pop() {
            match self.settle_part(part, deadline).await {
                Ok(fates) => results.extend(fates.into_iter().map(Ok)),
                Err(NotSettled::Culprit(_)) if part.len() > 1 => {
                    let (before, after) = part.split_at(part.len() / 2);
                    parts.extend([after, before]);
                }
                Err(NotSettled::Culprit(excess)) => {
                    for jobs in part {
                        results.push(Err(self.judge(jobs, excess, deadline).await));
                    }
                }
                Err(NotSettled::Unavailable(error)) => {
                    results.extend(part.iter().map(|_| Err(Refusal::Unavailable(error.clone()))));
                }
            }
        }
        results
    }

    async fn settle_part(&self, part: &[Jobs], deadline: Instant) -> Result<Vec<Fate>, NotSettled> {
        let latest = self.sender.latest(deadline);
        let mut link = self.link.clone();
        let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut state = Unacknowledged::new(RedisError::Timeout, Enqueued::Nothing);
        let lane = timeout_at(latest, self.lanes.acquire()).await;
        while lane.is_ok() && Instant::now() < latest {
            let Some(witness) = link.session(latest).await else {
                state = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
                break;
            };
            match Box::pin(self.attempt(part, &witness, deadline)).await {
                Course::Settled(fates) => {
                    self.clear(part);
                    return Ok(fates);
                }
                Course::Culprit(excess) => {
                    self.suspect(part);
                    return Err(NotSettled::Culprit(excess));
                }
                Course::GivenUp(unacknowledged) => {
                    return Err(NotSettled::Unavailable(unacknowledged));
                }
                Course::AskAgain(unacknowledged) => state = unacknowledged,
            }
            let _ = timeout_at(latest, pause.wait()).await;
        }
        Err(NotSettled::Unavailable(state))
    }

    /// Opens a connection, and sends the batch over it unless Redis says that it would not take it.
    async fn attempt(&self, part: &[Jobs], witness: &Session, deadline: Instant) -> Course {
        let latest = self.sender.latest(deadline);
        let unreached = Unacknowledged::new(RedisError::Connection, Enqueued::Nothing);
        let Ok(Ok((session, mut driver))) = timeout_at(latest, Session::open(&self.settings)).await
        else {
            return Course::AskAgain(unreached);
        };
        let Ok(Some(limits)) = timeout_at(latest, Limits::ask(&session)).await else {
            return Course::AskAgain(unreached);
        };
        if let Some(excess) = part.iter().find_map(|jobs| limits.exceeded_by(jobs)) {
            return Course::Culprit(Some(excess));
        }
        let number = self.sender.open_batch();
        let copy = Copy {
            number: &number,
            deadline: session.clock().at(latest),
            timestamp: milliseconds_since_1970(),
            requests: part,
            is_withdrawal: false,
        };
        match self.send(&session, &mut driver, copy, deadline).await {
            Ok(fates) => Course::Settled(fates),
            Err(Failure::Lost(kind)) => self.look_into_loss(kind, copy, witness, deadline).await,
            Err(failure) => self.next(failure, part),
        }
    }

    /// Sends a copy over a session that nobody else uses, and attends to its end.
    async fn send(
        &self,
        session: &Session,
        driver: &mut Driver,
        copy: Copy<'_>,
        deadline: Instant,
    ) -> Result<Vec<Fate>, Failure> {
        let latest = self.sender.latest(deadline);
        tokio::select! {
            biased;
            sent = self.sender.send(session, copy, latest) => sent,
            end = session.ended(driver, self.settings.patience()) => {
                let server = session.server();
                tracing::debug!(server, cause = end, "connection of a batch alone lost");
                Err(Failure::Lost(RedisError::Connection))
            }
            () = tokio::time::sleep_until(deadline) => Err(Failure::Lost(RedisError::Timeout)),
        }
    }

    /// What a failure means that leaves no doubt.
    fn next(&self, failure: Failure, part: &[Jobs]) -> Course {
        let nothing = |kind| Unacknowledged::new(kind, Enqueued::Nothing);
        match failure {
            Failure::TooFewReplicas => {
                Course::GivenUp(Unacknowledged::new(RedisError::TooFewReplicas, Enqueued::Unknown))
            }
            Failure::Refused(RedisError::TooLarge, _) => {
                Course::Culprit(part.first().map(Excess::of_unknown_limit))
            }
            Failure::Refused(kind, text) => {
                let refused = Unacknowledged { refusal: Some(text), ..nothing(kind) };
                if is_momentary(kind, &self.health) {
                    Course::AskAgain(refused)
                } else {
                    Course::GivenUp(refused)
                }
            }
            Failure::Late => Course::AskAgain(nothing(RedisError::Timeout)),
            _ => Course::AskAgain(nothing(RedisError::Connection)),
        }
    }

    /// The connection has broken: asks Redis over others what became of the batch, and takes it back.
    async fn look_into_loss(
        &self,
        kind: RedisError,
        copy: Copy<'_>,
        witness: &Session,
        deadline: Instant,
    ) -> Course {
        let unknown = Unacknowledged::new(kind, Enqueued::Unknown);
        match timeout_at(deadline, self.withdraw(copy, witness, deadline)).await {
            Ok(Answer::Settled(fates)) => Course::Settled(fates),
            Ok(Answer::Withdrawn { is_by_witness: true }) if kind == RedisError::Connection => {
                Course::Culprit(None)
            }
            Ok(Answer::Withdrawn { .. }) => {
                Course::AskAgain(Unacknowledged::new(kind, Enqueued::Nothing))
            }
            Ok(Answer::Unknown) | Err(_) => Course::GivenUp(unknown),
        }
    }

    /// The shared session that was there before the loss is asked first: if it answers, Redis was not away.
    async fn withdraw(&self, copy: Copy<'_>, witness: &Session, deadline: Instant) -> Answer {
        let latest = self.sender.latest(deadline);
        let copy = Copy { is_withdrawal: true, ..copy };
        let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut link = self.link.clone();
        let mut answer = self.sender.send(witness, copy, latest).await;
        let mut is_by_witness = true;
        loop {
            match answer {
                Ok(fates) => return Answer::Settled(fates),
                // Whatever else is on its way comes after its deadline as well.
                Err(Failure::Withdrawn | Failure::Late) => {
                    return Answer::Withdrawn { is_by_witness };
                }
                Err(Failure::TooFewReplicas) => return Answer::Unknown,
                // From here on it may be another session that answers, and another server.
                Err(Failure::NotSent | Failure::Lost(_) | Failure::Refused(..)) => {
                    is_by_witness = false;
                }
            }
            pause.wait().await;
            let Some(session) = link.session(latest).await else { return Answer::Unknown };
            answer = self.sender.send(&session, copy, latest).await;
        }
    }

    /// A request that broke its connection is remembered by its size, so that no caller breaks the shared connection again
    /// with one that is a little smaller. Every request that is a batch of its own for its size is then sent alone.
    fn suspect(&self, part: &[Jobs]) {
        if let [jobs] = part {
            let max_bytes = self.settings.batch.max_bytes();
            let margin = jobs.bytes / SUSPECT_MARGIN;
            let bytes = (max_bytes + 1).min(jobs.bytes - margin);
            self.suspect_bytes.fetch_min(bytes, Ordering::Relaxed);
        }
    }

    /// Redis has taken what was suspect.
    fn clear(&self, part: &[Jobs]) {
        if self.suspects(part) {
            let largest = part.iter().map(|jobs| jobs.bytes).max().unwrap_or(0);
            self.suspect_bytes.store(largest + 1, Ordering::Relaxed);
        }
    }

    /// Says why a request that breaks connections alone is refused, so far as Redis can be asked.
    async fn judge(&self, jobs: &Jobs, excess: Option<Excess>, deadline: Instant) -> Refusal {
        match excess {
            Some(excess) if excess.max_bytes.is_some() => Refusal::TooLarge(excess),
            excess => {
                let probed = timeout_at(self.sender.latest(deadline), self.probe(jobs)).await;
                let excess = probed.ok().flatten().or(excess);
                excess.map_or_else(|| self.broken(), Refusal::TooLarge)
            }
        }
    }

    async fn probe(&self, jobs: &Jobs) -> Option<Excess> {
        let soon = Instant::now() + self.settings.patience();
        let session = self.link.clone().session(soon).await?;
        Excess::probe(&session, &self.settings.queue.producer_key("none"), jobs).await
    }

    /// The request has broken its connection, and Redis tells no limit that it exceeds.
    fn broken(&self) -> Refusal {
        let limits = self.health.limits.get();
        Refusal::Unavailable(Unacknowledged {
            refusal: Some(format!(
                "a request breaks its connection while Redis answers on others; {limits}"
            )),
            ..Unacknowledged::new(RedisError::TooLarge, Enqueued::Nothing)
        })
    }
}
