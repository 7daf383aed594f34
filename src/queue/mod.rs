//! Jobs into Redis, in BullMQ's format: many requests in one script call, all jobs of a request or
//! none.

mod address;
mod batcher;
mod delivery;
mod greeting;
mod health;
mod idempotency;
mod isolation;
mod job;
mod keys;
mod limits;
mod link;
mod options;
mod probe;
mod producer;
mod reason;
mod replicas;
mod rights;
mod script;
mod sender;
mod server_config;
mod session;
mod state;
mod survey;
mod trace;

pub use health::{Health, watch};
pub use idempotency::{Idempotency, IdempotencySettings, InvalidIdempotencyKey};
pub use job::{Jobs, Match, Request};
pub use survey::survey;
pub use trace::TraceContext;

use crate::admission::{NoRoom, Permit};
use crate::ids::OrganizationId;
use crate::metrics::{Metrics, RedisError};
use crate::settings::{Secret, Section};
use crate::supervisor::Supervisor;
use arc_swap::ArcSwap;
use batcher::{BatchSettings, Batcher};
use delivery::Delivery;
use keys::QueueName;
use limits::Excess;
use link::Link;
use options::JobOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// WAIT ends up to 100 ms late, and what remains must be enough for a second one.
const LEAST_TIMEOUT_WITH_REPLICAS: Duration = Duration::from_millis(500);

/// The sections `[queue]` and `[idempotency]`.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    redis: Secret,
    queue: QueueName,
    job_name: String,
    /// Of all who have these settings together, so that they can be changed while it runs.
    job: Arc<ArcSwap<JobOptions>>,
    enqueue_timeout: Duration,
    paused_layout: PausedLayout,
    /// 0: one per worker.
    pub connections: usize,
    /// Of the primary, that must have the jobs before they count as added.
    wait_replicas: usize,
    max_matches: usize,
    max_fanout_bytes: usize,
    events: bool,
    memory_watermark: f64,
    batch: BatchSettings,
    idempotency: IdempotencySettings,
}

/// On which list jobs wait while the queue is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum PausedLayout {
    Auto,
    V5,
    V6,
}

impl PausedLayout {
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::V5 => "v5",
            Self::V6 => "v6",
        }
    }
}

impl QueueSettings {
    pub fn read(section: &mut Section<'_>, idempotency: IdempotencySettings) -> Self {
        let redis = section.secret("redis", Some("redis://127.0.0.1:6379/0"));
        if let Some(Err(message)) = redis.as_ref().map(address::check) {
            section.fault("redis", message);
        }
        let redis = redis.unwrap_or_else(|| Secret::new(String::new()));
        let in_cluster = redis.reveal().contains("-cluster://");
        let memory_watermark = section.value("memory_watermark", 0.9);
        if !(0.0..=1.0).contains(&memory_watermark) {
            section.fault("memory_watermark", "not within 0 and 1");
        }
        let enqueue_timeout = section.duration(
            "enqueue_timeout",
            "2s",
            Duration::from_millis(10)..=Duration::from_secs(60),
        );
        let wait_replicas = section.count("wait_replicas", 0, 0..=100);
        if wait_replicas > 0 && enqueue_timeout < LEAST_TIMEOUT_WITH_REPLICAS {
            let message = "is too short for wait_replicas: Redis ends a WAIT in steps of 100ms; give it 500ms";
            section.fault("enqueue_timeout", message);
        }
        Self {
            queue: QueueName::read(section, in_cluster),
            redis,
            job_name: section.name("job_name", "workflow"),
            enqueue_timeout,
            paused_layout: section.value("paused_layout", PausedLayout::Auto),
            connections: section.count("connections", 1, 0..=1024),
            wait_replicas,
            max_matches: section.count("max_matches", 4096, 1..=100_000),
            max_fanout_bytes: section.size("max_fanout_bytes", "32MiB", 1024..=(512 << 20)),
            events: section.value("events", true),
            memory_watermark,
            job: Arc::new(ArcSwap::from_pointee(JobOptions::read(&mut section.section("job")))),
            batch: BatchSettings::read(&mut section.section("batch")),
            idempotency,
        }
    }
}

impl QueueSettings {
    /// Jobs are given the options of other settings from now on, wherever these here are in use.
    pub fn reload_job_options(&self, other: &Self) {
        self.job.store(other.job.load_full());
    }

    /// Where Redis, or the Sentinels or nodes that lead to it, are by the configuration.
    fn servers(&self) -> String {
        address::servers(&self.redis)
    }

    /// What is left of `enqueue_timeout` for a reply when a batch may last be carried out.
    fn margin(&self) -> Duration {
        (self.enqueue_timeout / 10).min(Duration::from_millis(50))
    }

    /// How long Redis may be silent on a connection before it is given up for a new one, which must leave
    /// time to ask again.
    fn patience(&self) -> Duration {
        self.enqueue_timeout / 2
    }

    /// How long Redis remembers the batches of a producer that sends no more: well beyond every deadline,
    /// since a copy that comes after its deadline is refused by it.
    fn record_life(&self) -> Duration {
        self.enqueue_timeout + Duration::from_secs(10 * 60)
    }
}

/// How much of a request is in the queue when it was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    Nothing,
    /// All of its jobs or none: a batch had gone out and no reply came.
    Unknown,
}

impl Enqueued {
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// What Redis has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Jobs of the request.
    pub matched: usize,
    /// Whether it was an earlier request with the same idempotency key that added them.
    pub is_repeated: bool,
}

/// Why the jobs of a request were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("the idempotency key was used for another body")]
    IdempotencyKeyReused,
    #[error("{matches} jobs of {bytes} bytes in all are too large for one request")]
    TooLarge { matches: usize, max_matches: usize, bytes: usize, max_bytes: usize },
    /// `None`: Redis does not tell its limit.
    #[error("{bytes} bytes are more than Redis takes in one piece")]
    PayloadTooLarge { bytes: usize, max_bytes: Option<usize> },
    #[error("the queue did not acknowledge")]
    Unavailable(Enqueued),
}

/// A way into the queue.
#[derive(Debug, Clone)]
pub struct Queue {
    settings: Arc<QueueSettings>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    batchers: Vec<Batcher>,
    /// Whose turn it is.
    turn: Arc<AtomicUsize>,
}

impl Queue {
    /// Opens a connection and starts its batcher on the runtime of the caller. The batcher ends when every
    /// `Queue` is dropped and what waited is done.
    pub fn start(
        settings: &Arc<QueueSettings>,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        supervisor: &Supervisor,
    ) -> Self {
        let link = Link::start(settings, supervisor);
        health.add(link.clone());
        let delivery = Delivery::new(settings, link, health, metrics);
        let batcher = Batcher::start(settings, delivery, tasks, supervisor);
        Self {
            settings: Arc::clone(settings),
            health: Arc::clone(health),
            metrics: Arc::clone(metrics),
            batchers: vec![batcher],
            turn: Arc::default(),
        }
    }

    /// This way into the queue and another, used by turns.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.batchers.extend(other.batchers);
        self
    }

    /// Writes down one job for each match. Nothing is waited for.
    pub fn prepare<'a>(
        &self,
        request: &Request<'_>,
        matches: impl ExactSizeIterator<Item = Match<'a, impl AsRef<str>>>,
    ) -> Result<Jobs, EnqueueError> {
        self.check_size(matches.len(), request.payload_bytes())?;
        Ok(Jobs::encode(request, matches, &self.settings.job.load()))
    }

    /// Adds jobs, all in one step, unless their idempotency key says that this was done before. Comes back
    /// when Redis has acknowledged them; what has been handed over is carried out even if nobody waits for the
    /// answer any more.
    pub async fn enqueue(&self, jobs: Jobs, mut permit: Permit) -> Result<Added, EnqueueError> {
        // Without a job there is nothing to add, but a key may have been used before.
        if jobs.is_nothing() {
            return Ok(Added { matched: 0, is_repeated: false });
        }
        self.check_room(&jobs, &permit)?;
        self.check_watermark(&permit)?;
        if let Some(excess) = self.health.limits.exceeded_by(&jobs) {
            return Err(self.too_large(excess));
        }
        let deadline = Instant::now() + self.settings.enqueue_timeout;
        permit.hold_instead(jobs.bytes)?;
        // Last, because a request refused for another reason starts no jobs.
        permit.start_jobs(jobs.heads.len())?;
        self.next_batcher().add(jobs, deadline, permit).await
    }

    /// Refuses jobs that would never fit into what may be held, however often they are sent.
    pub fn check_room(&self, jobs: &Jobs, permit: &Permit) -> Result<(), EnqueueError> {
        let max_bytes = permit.most_bytes();
        if jobs.bytes <= max_bytes {
            return Ok(());
        }
        let (matches, max_matches) = (jobs.heads.len(), self.settings.max_matches);
        Err(EnqueueError::TooLarge { matches, max_matches, bytes: jobs.bytes, max_bytes })
    }

    /// Refuses everybody while Redis is over the watermark, and those who start most a little below it.
    fn check_watermark(&self, permit: &Permit) -> Result<(), EnqueueError> {
        if self.health.is_shedding() {
            return Err(EnqueueError::Unavailable(Enqueued::Nothing));
        }
        if self.health.is_near_watermark() && permit.is_of_heavy_organization() {
            self.metrics.over_watermark.increment(1);
            return Err(EnqueueError::Unavailable(Enqueued::Nothing));
        }
        Ok(())
    }

    /// Redis would end the connection on which such a request comes, and others lose their replies.
    fn too_large(&self, excess: Excess) -> EnqueueError {
        self.metrics.redis.error(RedisError::TooLarge).increment(1);
        self.health.request_too_large(excess);
        EnqueueError::PayloadTooLarge { bytes: excess.bytes, max_bytes: excess.max_bytes }
    }

    /// The idempotency of a request with this key and body; `None` where keys are ignored.
    pub fn idempotency(
        &self,
        organization: &OrganizationId,
        key: &[u8],
        body: &[u8],
    ) -> Result<Option<Idempotency>, InvalidIdempotencyKey> {
        if self.settings.idempotency.ttl.is_zero() {
            return Ok(None);
        }
        Idempotency::new(organization, key, body).map(Some)
    }

    fn next_batcher(&self) -> &Batcher {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let batcher = self.batchers.get(turn % self.batchers.len());
        batcher.expect("there is at least one batcher")
    }

    /// Refuses what one request may not start: so many matches, of a payload of so many bytes.
    fn check_size(&self, matches: usize, payload: usize) -> Result<(), EnqueueError> {
        let QueueSettings { max_matches, max_fanout_bytes, .. } = *self.settings;
        let bytes = matches.saturating_mul(payload);
        if matches > max_matches || bytes > max_fanout_bytes {
            return Err(EnqueueError::TooLarge {
                matches,
                max_matches,
                bytes,
                max_bytes: max_fanout_bytes,
            });
        }
        Ok(())
    }
}
