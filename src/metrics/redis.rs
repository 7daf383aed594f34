//! The metrics of calls to Redis, and of Redis itself.

use crate::metrics::labels::{RedisError, ReplicaState};
use crate::metrics::register::{handle, register_counter, register_gauge, register_histogram};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Handles to the metrics of calls to Redis, and of Redis itself.
#[derive(Debug)]
pub struct RedisMetrics {
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
}

impl RedisMetrics {
    pub(super) fn register() -> Self {
        Self {
            batch_jobs: {
                describe_histogram!("hookgate_batch_jobs", "Jobs in one call to Redis.");
                histogram!("hookgate_batch_jobs")
            },
            call_duration: register_histogram(
                "hookgate_redis_call_duration_seconds",
                "Time from sending a batch to the reply of Redis, or to the end of waiting for it.",
            ),
            errors: redis_errors(),
            resent_batches: register_counter(
                "hookgate_redis_resent_batches_total",
                "Batches that were sent again because the reply was lost.",
            ),
            unacknowledged_none: unacknowledged("none"),
            unacknowledged_unknown: unacknowledged("unknown"),
            memory_ratio: register_gauge(
                "hookgate_redis_memory_ratio",
                "Memory that Redis uses, as a share of its maxmemory; 0 without one.",
            ),
            may_evict: register_gauge(
                "hookgate_redis_may_evict",
                "1 if the maxmemory-policy of Redis is not noeviction: Redis may evict jobs.",
            ),
            is_volatile: register_gauge(
                "hookgate_redis_is_volatile",
                "1 if Redis has neither append-only file nor snapshots: a restart loses every job.",
            ),
            replicas: redis_replicas(),
        }
    }

    pub fn error(&self, kind: RedisError) -> &Counter {
        handle(&self.errors, kind as usize)
    }

    pub fn replicas(&self, state: ReplicaState) -> &Gauge {
        handle(&self.replicas, state as usize)
    }
}

fn unacknowledged(enqueued: &'static str) -> Counter {
    let name = "hookgate_unacknowledged_total";
    describe_counter!(
        name,
        "Requests that Redis did not acknowledge, by whether their jobs are enqueued."
    );
    counter!(name, "enqueued" => enqueued)
}

fn redis_errors() -> Vec<Counter> {
    let name = "hookgate_redis_errors_total";
    describe_counter!(name, "Failures of batches or requests sent to Redis, by kind.");
    RedisError::ALL.iter().map(|kind| counter!(name, "kind" => kind.as_str())).collect()
}

fn redis_replicas() -> Vec<Gauge> {
    let name = "hookgate_redis_replicas";
    describe_gauge!(
        name,
        "Replicas that are connected to the primary, by whether they have received its writes; a failover to one that \
         is out_of_sync loses jobs. 0 if INFO does not report them."
    );
    ReplicaState::ALL.iter().map(|state| gauge!(name, "state" => state.as_str())).collect()
}
