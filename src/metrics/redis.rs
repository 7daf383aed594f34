//! The metrics of one queue: its jobs, the calls to its Redis, and that Redis itself.

use crate::metrics::labels::{JobState, RedisError, ReplicaState};
use crate::metrics::register::handle;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Handles to the metrics of one queue. Each has the name of the queue as its label `queue`.
#[derive(Debug)]
pub struct RedisMetrics {
    pub jobs_enqueued: Counter,
    pub near_watermark: Counter,
    pub batch_jobs: Histogram,
    pub call_duration: Histogram,
    errors: Vec<Counter>,
    pub resent_batches: Counter,
    /// Unacknowledged requests of which nothing is enqueued.
    pub unacknowledged_none: Counter,
    /// Unacknowledged requests that may be enqueued.
    pub unacknowledged_unknown: Counter,
    pub memory_ratio: Gauge,
    pub may_evict: Gauge,
    pub is_volatile: Gauge,
    replicas: Vec<Gauge>,
    jobs: Vec<Gauge>,
}

impl RedisMetrics {
    pub(super) fn register(queue: &str) -> Self {
        let queue = QueueLabel(queue);
        Self {
            jobs_enqueued: queue.counter(
                "hookgate_jobs_enqueued_total",
                "Jobs that Redis has acknowledged.",
            ),
            near_watermark: queue.counter(
                "hookgate_over_watermark_total",
                "Requests rejected just below queue.memory_watermark because their organization started more than twice as \
                 many jobs within a minute as the others on average.",
            ),
            batch_jobs: queue.histogram("hookgate_batch_jobs", "Jobs in one call to Redis."),
            call_duration: queue.histogram(
                "hookgate_redis_call_duration_seconds",
                "Time from sending a batch to the reply of Redis, or to the end of waiting for it.",
            ),
            errors: queue.errors(),
            resent_batches: queue.counter(
                "hookgate_redis_resent_batches_total",
                "Batches that were sent again because the reply was lost.",
            ),
            unacknowledged_none: queue.unacknowledged("none"),
            unacknowledged_unknown: queue.unacknowledged("unknown"),
            memory_ratio: queue.gauge(
                "hookgate_redis_memory_ratio",
                "Memory that Redis uses, as a share of its maxmemory; 0 without one.",
            ),
            may_evict: queue.gauge(
                "hookgate_redis_may_evict",
                "1 if the maxmemory-policy of Redis is not noeviction: Redis may evict jobs.",
            ),
            is_volatile: queue.gauge(
                "hookgate_redis_is_volatile",
                "1 if Redis has neither append-only file nor snapshots: a restart loses every job.",
            ),
            replicas: queue.replicas(),
            jobs: queue.jobs(),
        }
    }

    pub fn error(&self, kind: RedisError) -> &Counter {
        handle(&self.errors, kind as usize)
    }

    pub fn replicas(&self, state: ReplicaState) -> &Gauge {
        handle(&self.replicas, state as usize)
    }

    pub fn jobs(&self, state: JobState) -> &Gauge {
        handle(&self.jobs, state as usize)
    }
}

/// The label of all series of a queue.
struct QueueLabel<'a>(&'a str);

impl QueueLabel<'_> {
    fn value(&self) -> String {
        self.0.to_owned()
    }

    fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        describe_counter!(name, help);
        counter!(name, "queue" => self.value())
    }

    fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        describe_gauge!(name, help);
        gauge!(name, "queue" => self.value())
    }

    fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        describe_histogram!(name, help);
        histogram!(name, "queue" => self.value())
    }

    fn unacknowledged(&self, enqueued: &'static str) -> Counter {
        let name = "hookgate_unacknowledged_total";
        describe_counter!(
            name,
            "Requests that Redis did not acknowledge, by whether their jobs are enqueued."
        );
        counter!(name, "queue" => self.value(), "enqueued" => enqueued)
    }

    fn errors(&self) -> Vec<Counter> {
        let name = "hookgate_redis_errors_total";
        describe_counter!(name, "Failures of batches or requests sent to Redis, by kind.");
        let error =
            |kind: &RedisError| counter!(name, "queue" => self.value(), "kind" => kind.as_str());
        RedisError::ALL.iter().map(error).collect()
    }

    fn replicas(&self) -> Vec<Gauge> {
        let name = "hookgate_redis_replicas";
        describe_gauge!(
            name,
            "Replicas that are connected to the primary, by whether they have received its writes; a failover to one that \
             is out_of_sync loses jobs. 0 if INFO does not report them."
        );
        let replicas =
            |state: &ReplicaState| gauge!(name, "queue" => self.value(), "state" => state.as_str());
        ReplicaState::ALL.iter().map(replicas).collect()
    }

    fn jobs(&self) -> Vec<Gauge> {
        let name = "hookgate_queue_jobs";
        describe_gauge!(
            name,
            "Jobs in the queue by state, counted in Redis every telemetry.queue_interval; NaN if they cannot be counted. All \
             instances report the same jobs: use max, not sum. Jobs of a paused queue are waiting."
        );
        let jobs =
            |state: &JobState| gauge!(name, "queue" => self.value(), "state" => state.as_str());
        let jobs: Vec<Gauge> = JobState::ALL.iter().map(jobs).collect();
        for gauge in &jobs {
            gauge.set(f64::NAN);
        }
        jobs
    }
}
