//! Requests that wait at the same moment share one script call.
//!
//! There is no timer: a batch is what has queued up while the calls before it were away, so that an
//! idle service adds no latency and a busy one makes large batches.

use super::job::Jobs;
use super::redis::{CallError, Connection};
use super::{EnqueueError, Enqueued, QueueSettings};
use crate::admission::Permit;
use crate::metrics::{Metrics, RedisError};
use crate::settings::Section;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The section `[queue.batch]`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are the keys of the section")]
pub(super) struct BatchSettings {
    /// Jobs in one call; a request with more is a batch of its own.
    max_jobs: usize,
    /// Bytes in one call; likewise.
    max_bytes: usize,
    /// Calls on the wire.
    max_in_flight: usize,
}

impl BatchSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            max_jobs: section.count("max_jobs", 128, 1..=4096),
            max_bytes: section.size("max_bytes", "256KiB", 1024..=(16 << 20)),
            max_in_flight: section.count("max_in_flight", 2, 1..=64),
        }
    }
}

/// The way to a batcher.
#[derive(Debug, Clone)]
pub(super) struct Batcher {
    waiting: mpsc::Sender<Waiting>,
}

/// A request that waits for its turn, and then for the reply.
#[derive(Debug)]
struct Waiting {
    jobs: Jobs,
    deadline: Instant,
    answer: oneshot::Sender<Result<(), EnqueueError>>,
    /// Held until the request is answered.
    _permit: Permit,
}

impl Waiting {
    fn answer(self, result: Result<(), EnqueueError>) {
        // An error says that nobody waits for it any more; the jobs are added all the same.
        let _ = self.answer.send(result);
    }
}

impl Batcher {
    pub(super) fn start(
        settings: &Arc<QueueSettings>,
        connection: Connection,
        capacity: usize,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
    ) -> Self {
        let (waiting, receiver) = mpsc::channel(capacity);
        let metrics = Arc::clone(metrics);
        let worker = Worker {
            caller: Arc::new(Caller { settings: Arc::clone(settings), connection, metrics }),
            slots: Arc::new(Semaphore::new(settings.batch.max_in_flight)),
            receiver,
            carried: None,
            tasks: tasks.clone(),
        };
        tasks.spawn(worker.run());
        Self { waiting }
    }

    pub(super) async fn add(
        &self,
        jobs: Jobs,
        deadline: Instant,
        permit: Permit,
    ) -> Result<(), EnqueueError> {
        let (answer, reply) = oneshot::channel();
        let waiting = Waiting { jobs, deadline, answer, _permit: permit };
        self.waiting.try_send(waiting).map_err(|_| EnqueueError::Full)?;
        reply.await.unwrap_or(Err(EnqueueError::Unavailable(Enqueued::Unknown)))
    }
}

struct Worker {
    caller: Arc<Caller>,
    slots: Arc<Semaphore>,
    receiver: mpsc::Receiver<Waiting>,
    /// What did not fit into the batch before.
    carried: Option<Waiting>,
    tasks: TaskTracker,
}

impl Worker {
    /// Ends when nobody can add any more and all that waited has been sent.
    async fn run(mut self) {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            let Some(batch) = self.next_batch().await else { return };
            self.tasks.spawn(Arc::clone(&self.caller).send(batch, slot));
        }
    }

    /// Waits for a request, and takes along all that wait behind it and fit.
    async fn next_batch(&mut self) -> Option<Vec<Waiting>> {
        let first = match self.carried.take() {
            Some(carried) => carried,
            None => self.receiver.recv().await?,
        };
        // Lets the other tasks of this thread run first: those whose requests have just been read
        // come along.
        tokio::task::yield_now().await;
        let limits = &self.caller.settings.batch;
        let (mut jobs, mut bytes) = (first.jobs.heads.len(), first.jobs.bytes);
        let mut batch = vec![first];
        while let Ok(next) = self.receiver.try_recv() {
            jobs += next.jobs.heads.len();
            bytes += next.jobs.bytes;
            if jobs > limits.max_jobs || bytes > limits.max_bytes {
                self.carried = Some(next);
                break;
            }
            batch.push(next);
        }
        Some(batch)
    }
}

/// What a call needs.
struct Caller {
    settings: Arc<QueueSettings>,
    connection: Connection,
    metrics: Arc<Metrics>,
}

impl Caller {
    /// Sends a batch and answers those who wait for it together.
    async fn send(self: Arc<Self>, batch: Vec<Waiting>, slot: OwnedSemaphorePermit) {
        let begun = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| waiting.deadline > begun);
        for waiting in late {
            waiting.answer(Err(EnqueueError::Unavailable(Enqueued::Nothing)));
        }
        let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).min() else { return };
        let jobs: usize = batch.iter().map(|waiting| waiting.jobs.heads.len()).sum();
        self.metrics.batch_jobs.record(jobs as f64);
        let arguments = Self::arguments(&batch, jobs);
        let result = self.connection.add_jobs(arguments, deadline).await;
        drop(slot);
        self.metrics.redis_call_duration.record(begun.elapsed());
        match result.and_then(|reply| check(reply, batch.len())) {
            Ok(reply) => self.acknowledge(batch, &reply),
            Err(error) => self.refuse(batch, error),
        }
    }

    /// The ARGV of the script from the number of jobs on, in its order.
    fn arguments(batch: &[Waiting], jobs: usize) -> Vec<Bytes> {
        let mut arguments = Vec::with_capacity(1 + batch.len() * 4 + jobs);
        arguments.push(Bytes::from(jobs.to_string()));
        for Waiting { jobs, .. } in batch {
            arguments.push(Bytes::from(jobs.heads.len().to_string()));
            arguments.push(jobs.timestamp.clone());
            arguments.push(jobs.options.clone());
            arguments.push(jobs.tail.clone());
            arguments.extend_from_slice(&jobs.heads);
        }
        arguments
    }

    fn acknowledge(&self, batch: Vec<Waiting>, reply: &[u8]) {
        for (waiting, status) in batch.into_iter().zip(reply) {
            if *status == b'A' {
                self.metrics.jobs_enqueued.increment(waiting.jobs.heads.len() as u64);
                waiting.answer(Ok(()));
            } else {
                self.metrics.redis_error(RedisError::WrongType).increment(1);
                tracing::warn!("a key that a job needs is held by something else in Redis");
                waiting.answer(Err(EnqueueError::Unavailable(Enqueued::Nothing)));
            }
        }
    }

    fn refuse(&self, batch: Vec<Waiting>, error: CallError) {
        self.metrics.redis_error(error.kind).increment(1);
        tracing::debug!(
            kind = error.kind.word(),
            requests = batch.len(),
            enqueued = error.enqueued.word(),
            "batch not acknowledged"
        );
        for waiting in batch {
            waiting.answer(Err(EnqueueError::Unavailable(error.enqueued)));
        }
    }
}

/// A reply that the script cannot have given acknowledges nothing.
fn check(reply: Bytes, requests: usize) -> Result<Bytes, CallError> {
    if reply.len() == requests && reply.iter().all(|status| matches!(status, b'A' | b'E')) {
        return Ok(reply);
    }
    Err(CallError { kind: RedisError::Protocol, enqueued: Enqueued::Unknown })
}
