//! Jobs into Redis, in BullMQ's format: many requests in one script call, all jobs of a request or
//! none.

mod batcher;
mod health;
mod job;
mod keys;
mod options;
mod redis;

pub use health::{Health, watch};
pub use job::{Match, Request, TraceContext};

use crate::admission::Permit;
use crate::metrics::Metrics;
use crate::settings::{Secret, Section};
use batcher::{BatchSettings, Batcher};
use job::Jobs;
use keys::QueueName;
use options::JobOptions;
use redis::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The section `[queue]`.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    redis: Secret,
    queue: QueueName,
    job_name: String,
    job: JobOptions,
    enqueue_timeout: Duration,
    paused_layout: PausedLayout,
    /// 0: one per worker.
    pub connections: usize,
    max_matches: usize,
    max_fanout_bytes: usize,
    events: bool,
    memory_watermark: f64,
    batch: BatchSettings,
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
    pub fn read(section: &mut Section<'_>) -> Self {
        let redis = section.secret("redis", Some("redis://127.0.0.1:6379/0"));
        let redis = redis.unwrap_or_else(|| Secret::new(String::new()));
        if let Err(message) = redis::check_address(&redis) {
            section.fault("redis", message);
        }
        let in_cluster = redis.reveal().contains("-cluster://");
        let memory_watermark = section.value("memory_watermark", 0.9);
        if !(0.0..=1.0).contains(&memory_watermark) {
            section.fault("memory_watermark", "not within 0 and 1");
        }
        Self {
            queue: QueueName::read(section, in_cluster),
            redis,
            job_name: section.name("job_name", "workflow"),
            enqueue_timeout: section.duration(
                "enqueue_timeout",
                "2s",
                Duration::from_millis(10)..=Duration::from_secs(60),
            ),
            paused_layout: section.value("paused_layout", PausedLayout::Auto),
            connections: section.count("connections", 0, 0..=1024),
            max_matches: section.count("max_matches", 4096, 1..=100_000),
            max_fanout_bytes: section.size("max_fanout_bytes", "32MiB", 1024..=(512 << 20)),
            events: section.value("events", true),
            memory_watermark,
            job: JobOptions::read(&mut section.section("job")),
            batch: BatchSettings::read(&mut section.section("batch")),
        }
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

/// Why the jobs of a request were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    #[error("too much is waiting for the queue")]
    Full,
    #[error("{matches} jobs of {bytes} bytes in all are too large for one request")]
    TooLarge { matches: usize, max_matches: usize, bytes: usize, max_bytes: usize },
    #[error("the queue did not acknowledge")]
    Unavailable(Enqueued),
}

/// A way into the queue.
#[derive(Debug, Clone)]
pub struct Queue {
    settings: Arc<QueueSettings>,
    health: Arc<Health>,
    batcher: Batcher,
}

impl Queue {
    /// Opens a connection and starts its batcher on the runtime of the caller. `capacity` is how
    /// many requests may wait. The batcher ends when every `Queue` is dropped and what waited is
    /// done.
    pub fn start(
        settings: &Arc<QueueSettings>,
        health: &Arc<Health>,
        capacity: usize,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let connection = Connection::open(settings)?;
        let batcher = Batcher::start(settings, connection, capacity, metrics, tasks);
        Ok(Self { settings: Arc::clone(settings), health: Arc::clone(health), batcher })
    }

    /// Adds one job for each match, all in one step. Comes back when Redis has acknowledged them;
    /// what has been handed over is carried out even if nobody waits for the answer any more.
    pub async fn enqueue<'a>(
        &self,
        request: Request<'_>,
        matches: impl ExactSizeIterator<Item = Match<'a>>,
        mut permit: Permit,
    ) -> Result<(), EnqueueError> {
        self.check_size(matches.len(), request.payload_bytes())?;
        if self.health.is_shedding() {
            return Err(EnqueueError::Unavailable(Enqueued::Nothing));
        }
        let deadline = Instant::now() + self.settings.enqueue_timeout;
        let jobs = Jobs::encode(&request, matches, &self.settings.job);
        drop(request);
        permit.hold_instead(jobs.bytes).map_err(|_| EnqueueError::Full)?;
        self.batcher.add(jobs, deadline, permit).await
    }

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
