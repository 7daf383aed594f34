//! The sections `[queue]` and `[idempotency]`.

use crate::queue::batch::settings::BatchSettings;
use crate::queue::bullmq::idempotency::IdempotencySettings;
use crate::queue::bullmq::job_data::JobData;
use crate::queue::bullmq::keys::QueueKeys;
use crate::queue::bullmq::options::JobOptions;
use crate::queue::bullmq::template_fields::{MissingField, TemplateFields};
use crate::queue::redis::address;
use crate::queue::redis::address_setting::RedisServer;
use crate::queue::redis::client::FredConnector;
use crate::queue::redis::tls::RedisTls;
use crate::queue::redis::transport::Connector;
use crate::queue::sharding::settings::{ShardSettings, ShardingSettings};
use crate::queue::sharding::shard_map::ShardMap;
use crate::settings::{Secret, Section};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;

/// WAIT ends up to 100 ms late, and the time that remains must be enough for a second WAIT.
const MIN_TIMEOUT_WITH_REPLICAS: Duration = Duration::from_millis(500);

/// The sections `[queue]` and `[idempotency]`.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    pub(in crate::queue) redis: Secret,
    pub(in crate::queue) tls: RedisTls,
    /// Opens connections to it; not fred only in the simulation.
    pub(in crate::queue) connector: Arc<dyn Connector>,
    pub(in crate::queue) queue: QueueKeys,
    pub(in crate::queue) sharding: ShardingSettings,
    pub(in crate::queue) job_name: String,
    /// Shared by all clones of these settings, so that a reload changes it while the process runs.
    pub(in crate::queue) job: Arc<ArcSwap<JobOptions>>,
    /// Likewise.
    pub(in crate::queue) data: Arc<ArcSwap<JobData>>,
    /// The fields of documents that the template uses. A reload does not change them.
    pub template_fields: TemplateFields,
    pub(in crate::queue) enqueue_timeout: Duration,
    pub(in crate::queue) paused_layout: PausedLayout,
    /// Number of connections for jobs; 0: one per worker.
    pub(in crate::queue) connections: usize,
    /// Number of replicas that must have the jobs before they count as added.
    pub(in crate::queue) wait_replicas: usize,
    pub(in crate::queue) max_matches: usize,
    pub(in crate::queue) max_fanout_bytes: usize,
    pub(in crate::queue) events: bool,
    pub(in crate::queue) memory_watermark: f64,
    pub(in crate::queue) batch: BatchSettings,
    pub(in crate::queue) idempotency: IdempotencySettings,
}

/// The release of BullMQ that decides on which list jobs wait while the queue is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::queue) enum PausedLayout {
    Auto,
    V5,
    V6,
}

impl PausedLayout {
    pub(in crate::queue) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::V5 => "v5",
            Self::V6 => "v6",
        }
    }
}

impl QueueSettings {
    pub fn read(section: &mut Section<'_>, idempotency: IdempotencySettings) -> Self {
        let server = RedisServer::read(section);
        let queue = QueueKeys::read(section, &QueueKeys::default());
        let sharding = ShardingSettings::read(section, &server, &queue);
        if sharding.shards.is_empty() {
            server.check(section);
            queue.check_cluster(section, &server);
        }
        let memory_watermark = section.value("memory_watermark", 0.9);
        if !(0.0..=1.0).contains(&memory_watermark) {
            section.fault("memory_watermark", "not between 0 and 1");
        }
        let enqueue_timeout = section.duration(
            "enqueue_timeout",
            "2s",
            Duration::from_millis(10)..=Duration::from_secs(60),
        );
        let wait_replicas = section.count("wait_replicas", 0, 0..=100);
        if wait_replicas > 0 && enqueue_timeout < MIN_TIMEOUT_WITH_REPLICAS {
            let message = "is too short for wait_replicas: Redis ends WAIT in steps of 100ms; use at least 500ms";
            section.fault("enqueue_timeout", message);
        }
        let (data, template_fields) = JobData::read(section);
        let settings = Self {
            queue,
            redis: server.address,
            tls: server.tls,
            sharding,
            connector: Arc::new(FredConnector::default()),
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
            data: Arc::new(ArcSwap::from_pointee(data)),
            template_fields,
            batch: BatchSettings::read(&mut section.section("batch")),
            idempotency,
        };
        warn_of_misplaced_keys(section);
        settings
    }

    /// The settings of each queue, in the order of the configuration. They share what a reload
    /// changes.
    pub fn queues(&self) -> Vec<Arc<Self>> {
        let shard = |ShardSettings { server, queue, .. }: &ShardSettings| {
            let RedisServer { address: redis, tls } = server.clone();
            let is_own = self.are_several() && !tls.shares_files_with(&self.tls);
            let tls = if is_own { tls.of_queue(queue.name()) } else { tls };
            Arc::new(Self { redis, tls, queue: queue.clone(), ..self.clone() })
        };
        match &self.sharding.shards[..] {
            [] => vec![Arc::new(self.clone())],
            shards => shards.iter().map(shard).collect(),
        }
    }

    /// Which of these queues each organization has.
    pub fn shard_map(&self) -> ShardMap {
        self.sharding.map()
    }

    /// The number of queues.
    pub fn count(&self) -> usize {
        self.sharding.shards.len().max(1)
    }

    pub fn are_several(&self) -> bool {
        self.count() > 1
    }

    /// The name of this queue if it is one of several.
    pub(in crate::queue) fn shard_name(&self) -> Option<&str> {
        self.are_several().then(|| self.name())
    }

    /// The name of the queue.
    pub fn name(&self) -> &str {
        self.queue.name()
    }

    /// The number of connections for the jobs of one queue.
    pub fn connections(&self, workers: usize) -> usize {
        if self.connections == 0 { workers } else { self.connections }
    }

    /// The number of connections of all queues. Those for the health checks of further queues count
    /// as well.
    pub fn all_connections(&self, workers: usize) -> usize {
        let queues = self.count();
        queues * self.connections(workers) + queues - 1
    }

    /// Replaces what a reload can change with that of `other`, in all clones of these settings:
    /// the job options, the forwarded headers, and the template of the data unless it uses fields
    /// of documents that the running index does not keep. Returns those fields.
    pub fn reload(&self, other: &Self) -> Vec<MissingField> {
        self.job.store(other.job.load_full());
        let data = other.data.load();
        let (data, missing) = match data.with_fields(&self.template_fields) {
            Ok(data) => (data, Vec::new()),
            Err(missing) => (self.data.load().with_headers_of(&data), missing),
        };
        self.data.store(Arc::new(data));
        missing
    }

    /// The bytes that a worker may use to encode the jobs of a request before they count as in
    /// flight. Without long heads and fields of documents, all jobs of a request are about as long as
    /// its body.
    pub fn encoding_bytes(&self) -> usize {
        let data = self.data.load();
        let is_long = data.has_long_heads() || !self.template_fields.is_empty();
        if is_long { self.max_fanout_bytes } else { 0 }
    }

    /// The names of the headers that jobs contain and that are among `names`, in lower case.
    pub fn forwarded(&self, names: &[String]) -> Vec<String> {
        let is_among =
            |forwarded: &&String| names.iter().any(|name| name.eq_ignore_ascii_case(forwarded));
        self.data.load().forward_headers().iter().filter(is_among).cloned().collect()
    }

    /// The configured hosts and ports of Redis, or of its Sentinels or cluster nodes, or the path of
    /// its socket.
    pub(in crate::queue) fn servers(&self) -> String {
        address::servers(&self.redis)
    }

    /// Whether Sentinels name the primary.
    pub(in crate::queue) fn is_behind_sentinel(&self) -> bool {
        address::is_behind_sentinel(&self.redis)
    }

    /// The part of `enqueue_timeout` that is kept for the reply: Redis executes no batch within it.
    pub(in crate::queue) fn reply_margin(&self) -> Duration {
        (self.enqueue_timeout / 10).min(Duration::from_millis(50))
    }

    /// How long Redis may be silent on a connection before the connection is replaced. Half of
    /// `enqueue_timeout` leaves time for another attempt.
    pub(in crate::queue) fn reply_timeout(&self) -> Duration {
        self.enqueue_timeout / 2
    }

    /// How long Redis keeps the record of a producer after its last batch. It outlives every
    /// deadline by ten minutes; an attempt that arrives even later is refused by its deadline.
    pub(in crate::queue) fn record_ttl(&self) -> Duration {
        self.enqueue_timeout + Duration::from_secs(10 * 60)
    }
}

/// Warns of keys after the heading `[queue.data]` that are probably meant for `[queue]`.
fn warn_of_misplaced_keys(section: &mut Section<'_>) {
    for name in section.members_like_keys("data") {
        let message =
            "has the name of a key of [queue]; if that is meant, put it above [queue.data]";
        section.note(&format!("data.{name}"), message);
    }
}
