//! The queues: add BullMQ jobs to Redis. Many requests share one script call, and all jobs of a
//! request are added or none. All jobs of an organization go to one queue.

mod batch;
mod bullmq;
mod outcome;
mod parts;
mod redis;
mod settings;
mod sharding;
mod status;
mod health_check;
mod dry_run;
mod survey;
#[cfg(test)]
mod simulation;

pub use crate::queue::batch::script::{BatchOutcome, BatchReply, RequestOutcome};
pub use crate::queue::bullmq::example::{example_job, job_data};
pub use crate::queue::bullmq::head_filter::{HeadersWithout, query_without};
pub use crate::queue::bullmq::idempotency::{
    Idempotency, IdempotencySettings, InvalidIdempotencyKey,
};
pub use crate::queue::bullmq::job::Jobs;
pub use crate::queue::bullmq::request::{
    EnqueueRequest, HeaderFields, HttpHead, Origin, WorkflowMatch,
};
pub use crate::queue::bullmq::template_fields::{MissingField, TemplateField, TemplateFields};
pub use crate::queue::bullmq::trace::TraceContext;
pub use crate::queue::health_check::run_health_check;
pub use crate::queue::outcome::{Added, EnqueueError, Enqueued};
pub use crate::queue::parts::QueueParts;
pub use crate::queue::redis::server_info::ServerSummary;
pub use crate::queue::settings::QueueSettings;
pub use crate::queue::sharding::shard_command::print_shards;
pub use crate::queue::sharding::shard_map::ShardMap;
pub use crate::queue::status::QueueStatus;
pub use crate::queue::survey::survey;

use crate::admission::{AdmissionError, Permit};
use crate::ids::OrganizationId;
use crate::metrics::RedisError;
use crate::process::supervisor::Supervisor;
use crate::queue::batch::batcher::Batcher;
use crate::queue::batch::delivery::Delivery;
use crate::queue::bullmq::data::TooManyBytes;
use crate::queue::redis::limits::ExceededLimit;
use crate::queue::redis::reconnect::CurrentConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// A handle to all queues of the process.
#[derive(Debug)]
pub struct Queues {
    map: Arc<ShardMap>,
    /// In the order of the configuration.
    queues: Box<[Queue]>,
}

impl Queues {
    /// `queues` are those of the map.
    pub fn new(map: &Arc<ShardMap>, queues: impl IntoIterator<Item = Queue>) -> Self {
        Self { map: Arc::clone(map), queues: queues.into_iter().collect() }
    }

    /// The queue of an organization, which gets all of its jobs. The request of the permit counts
    /// for this organization.
    #[inline]
    #[expect(clippy::missing_panics_doc, reason = "the map has the positions of these queues")]
    pub fn of(&self, organization: &OrganizationId, permit: &Permit) -> &Queue {
        if let [only] = &*self.queues {
            return only;
        }
        let index = permit.queue_of_organization(|| self.map.index_of(organization));
        let queue = self.queues.get(index);
        queue.expect("the map has the positions of these queues")
    }
}

/// A handle to a queue.
#[derive(Debug, Clone)]
pub struct Queue {
    parts: QueueParts,
    /// The connection of each batcher.
    connections: Vec<CurrentConnection>,
    batchers: Vec<Batcher>,
    /// Counts requests, which the batchers take in turn.
    next_batcher: Arc<AtomicUsize>,
}

impl Queue {
    /// Opens a connection and starts its batcher on the current runtime. The batcher ends when
    /// every `Queue` is dropped and every waiting request is done.
    pub fn start(parts: &QueueParts, tasks: &TaskTracker, supervisor: &Supervisor) -> Self {
        let reconnect = CurrentConnection::start(&parts.settings, supervisor);
        parts.health.add(reconnect.clone());
        let delivery = Delivery::new(parts, reconnect.clone());
        let batcher = Batcher::start(&parts.settings, delivery, tasks, supervisor);
        Self {
            parts: parts.clone(),
            connections: vec![reconnect],
            batchers: vec![batcher],
            next_batcher: Arc::default(),
        }
    }

    /// Combines two handles into one that uses the batchers of both in turn.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.batchers.extend(other.batchers);
        self.connections.extend(other.connections);
        self
    }

    /// Counts a request for this queue, if there are several: each may hold a part of the in-flight
    /// limits.
    #[inline]
    pub fn admit(&self, permit: &mut Permit) -> Result<(), AdmissionError> {
        self.parts.shard.map_or(Ok(()), |shard| permit.reserve_for_queue(shard))
    }

    /// Encodes one job for each match. Fails if the matches or their bytes exceed the fan-out
    /// limits. Does not block.
    pub fn prepare<'a>(
        &self,
        request: &EnqueueRequest<'_>,
        matches: impl ExactSizeIterator<
            Item = WorkflowMatch<'a, impl AsRef<str>, impl Fn(usize) -> &'a str>,
        >,
    ) -> Result<Jobs, EnqueueError> {
        let QueueSettings { max_matches, max_fanout_bytes: max_bytes, .. } = *self.parts.settings;
        let count = matches.len();
        let too_large =
            |bytes| EnqueueError::FanoutTooLarge { matches: count, max_matches, bytes, max_bytes };
        let (options, data) = (self.parts.settings.job.load(), self.parts.settings.data.load());
        if count > max_matches {
            return Err(too_large(data.usual_bytes(count, request)));
        }
        let jobs = Jobs::encode(request, matches, &options, &data, max_bytes);
        jobs.map_err(|TooManyBytes(bytes)| too_large(bytes))
    }

    /// Adds all jobs in one step, unless their idempotency key was used before. Returns when Redis
    /// has acknowledged them. Jobs that were handed to a batcher are added even if the future is
    /// dropped.
    pub async fn enqueue(&self, jobs: Jobs, mut permit: Permit) -> Result<Added, EnqueueError> {
        // A request without jobs adds nothing, but its idempotency key may have been used before.
        if jobs.is_noop() {
            return Ok(Added { matched: 0, is_repeated: false });
        }
        self.check_job_bytes(&jobs, &permit)?;
        self.check_connection()?;
        self.check_watermark(&permit)?;
        if let Some(excess) = self.parts.health.limits.exceeded_by(&jobs) {
            return Err(self.job_too_large(excess));
        }
        let deadline = Instant::now() + self.parts.settings.enqueue_timeout;
        permit.resize(jobs.bytes)?;
        // The job rate comes last, because a request rejected for another reason starts no jobs.
        permit.start_jobs(jobs.heads.len())?;
        self.next_batcher().add(jobs, deadline, permit).await
    }

    /// Rejects jobs that are larger than all bytes that the in-flight limits grant. Retries would
    /// not help.
    pub fn check_job_bytes(&self, jobs: &Jobs, permit: &Permit) -> Result<(), EnqueueError> {
        let max_bytes = permit.most_bytes();
        if jobs.bytes <= max_bytes {
            return Ok(());
        }
        let (matches, max_matches) = (jobs.heads.len(), self.parts.settings.max_matches);
        Err(EnqueueError::FanoutTooLarge { matches, max_matches, bytes: jobs.bytes, max_bytes })
    }

    /// Rejects every request while the connections of this queue are lost and it is one of several.
    /// Otherwise its requests would fill its part of the in-flight limits with waiting for it.
    fn check_connection(&self) -> Result<(), EnqueueError> {
        let are_lost = || self.connections.iter().all(CurrentConnection::is_lost);
        if self.parts.shard.is_none() || !are_lost() {
            return Ok(());
        }
        let metrics = &self.parts.metrics;
        metrics.error(RedisError::Connection).increment(1);
        metrics.unacknowledged_none.increment(1);
        Err(EnqueueError::Unavailable(Enqueued::Nothing))
    }

    /// Rejects every request while Redis is over the watermark. A little below it, rejects requests
    /// of the organizations that start the most jobs.
    fn check_watermark(&self, permit: &Permit) -> Result<(), EnqueueError> {
        if self.parts.health.is_shedding() {
            return Err(EnqueueError::Unavailable(Enqueued::Nothing));
        }
        if self.parts.health.is_near_watermark() && permit.organization_is_heavy() {
            self.parts.metrics.near_watermark.increment(1);
            return Err(EnqueueError::Unavailable(Enqueued::Nothing));
        }
        Ok(())
    }

    /// The error for jobs that exceed a limit of Redis. They are not sent, because Redis would
    /// close the connection and other requests would lose their replies.
    fn job_too_large(&self, excess: ExceededLimit) -> EnqueueError {
        self.parts.metrics.error(RedisError::TooLarge).increment(1);
        self.parts.health.request_too_large(excess);
        EnqueueError::JobTooLarge { bytes: excess.bytes, max_bytes: excess.max_bytes }
    }

    /// The idempotency of a request with this key and body; `None` if `idempotency.ttl` is zero.
    pub fn idempotency(
        &self,
        organization: &OrganizationId,
        key: &[u8],
        body: &[u8],
    ) -> Result<Option<Idempotency>, InvalidIdempotencyKey> {
        let lifetime = self.parts.settings.idempotency.ttl;
        if lifetime.is_zero() {
            return Ok(None);
        }
        Idempotency::of_key(organization, key, body, lifetime).map(Some)
    }

    fn next_batcher(&self) -> &Batcher {
        let turn = self.next_batcher.fetch_add(1, Ordering::Relaxed);
        let batcher = self.batchers.get(turn % self.batchers.len());
        batcher.expect("there is at least one batcher")
    }
}
