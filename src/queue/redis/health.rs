//! The health of Redis, as the parts of the queue share it.

use crate::metrics::RedisError;
use crate::process::lifecycle::Condition;
use crate::process::log_throttle::LogThrottle;
use crate::queue::redis::limits::{ExceededLimit, KnownLimits};
use crate::queue::redis::reconnect::CurrentConnection;
use crate::queue::redis::replicas::WriteOffset;
use crate::queue::redis::server_info::ServerSummary;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Shedding begins over the watermark and ends this far below it. Between these two thresholds,
/// requests of the organizations that start the most jobs are rejected.
const HYSTERESIS: f64 = 0.05;

/// How long a refusal determines the condition of Redis if no batch follows it.
const REFUSAL_TTL: Duration = Duration::from_secs(5);

/// How long batches are retried on a server that refuses writes. A failover normally finishes
/// within this time.
const READ_ONLY_GRACE: Duration = Duration::from_secs(10);

/// Batches that fail for the same reason are logged as a warning at most once in this time.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the parts of the queue share about the health of Redis.
#[derive(Debug, Default)]
pub(in crate::queue) struct RedisHealth {
    /// The name of the queue in the log, if there are several.
    queue: Option<String>,
    is_shedding: AtomicBool,
    is_near_watermark: AtomicBool,
    /// The connections for jobs.
    reconnects: Mutex<Vec<CurrentConnection>>,
    /// Whether `refusal` or `read_only_since` may be set, so that the usual case needs no lock.
    has_refusal: AtomicBool,
    refusal: Mutex<Option<(Instant, Condition)>>,
    /// The time of the first refused write after the last accepted batch.
    read_only_since: Mutex<Option<Instant>>,
    pub(in crate::queue) limits: KnownLimits,
    pub(in crate::queue) written: Mutex<WriteOffset>,
    /// The server that answered the last health check; `None` if it was not answered.
    pub(in crate::queue) server: Mutex<Option<ServerSummary>>,
    /// Log throttles of batches that were not acknowledged, by kind of error.
    failures: Mutex<HashMap<&'static str, LogThrottle>>,
}

impl RedisHealth {
    pub(in crate::queue) fn new(queue: Option<&str>) -> Self {
        Self { queue: queue.map(str::to_owned), ..Self::default() }
    }

    /// The name of the queue in the log; `None` if it is the only one.
    pub(in crate::queue) fn queue(&self) -> Option<&str> {
        self.queue.as_deref()
    }

    /// Whether Redis is over the watermark, so all requests are rejected.
    pub(in crate::queue) fn is_shedding(&self) -> bool {
        self.is_shedding.load(Ordering::Relaxed)
    }

    /// Whether Redis is near the watermark or over it.
    pub(in crate::queue) fn is_near_watermark(&self) -> bool {
        self.is_near_watermark.load(Ordering::Relaxed)
    }

    /// Adds a connection for jobs.
    pub(in crate::queue) fn add(&self, reconnect: CurrentConnection) {
        self.connections().push(reconnect);
    }

    /// Updates shedding by the ratio of used memory to `maxmemory`. A watermark of 0 disables it.
    pub(in crate::queue) fn update_memory(&self, ratio: f64, watermark: f64) {
        let was_shedding = self.is_shedding();
        let is_near = watermark > 0.0 && ratio > watermark - HYSTERESIS;
        self.is_near_watermark.store(is_near, Ordering::Relaxed);
        let is_shedding = is_near && (was_shedding || ratio > watermark);
        self.is_shedding.store(is_shedding, Ordering::Relaxed);
        if is_shedding != was_shedding {
            let queue = self.queue();
            tracing::warn!(
                queue,
                ratio,
                is_shedding,
                "memory of Redis crossed queue.memory_watermark"
            );
        }
    }

    /// The condition by the connections for jobs, which may be lost although Redis answers the
    /// health check.
    pub(in crate::queue) fn lost_connections(&self) -> Condition {
        let reconnects = self.connections();
        let lost: Vec<&CurrentConnection> =
            reconnects.iter().filter(|reconnect| !reconnect.is_up()).collect();
        let Some(first) = lost.first() else { return Condition::Ready };
        let note = format!(
            "{} of {} connections for jobs are lost: {}",
            lost.len(),
            reconnects.len(),
            first.cause()
        );
        let is_every_one_lost = lost.len() == reconnects.len();
        if is_every_one_lost { Condition::NotReady(note) } else { Condition::Degraded(vec![note]) }
    }

    /// Records that Redis has refused a batch with this message.
    pub(in crate::queue) fn batch_refused(&self, message: &str) {
        self.set_refusal(Condition::NotReady(format!("refuses jobs: {message}")));
    }

    /// Records that another value holds the key of a job. It affects only the request of that job.
    pub(in crate::queue) fn key_conflict(&self) {
        let note = "a job's key already holds another value; check the id counter of the queue";
        self.set_refusal(Condition::Degraded(vec![note.to_owned()]));
    }

    /// Logs that a request exceeds a limit of Redis. It affects only that request.
    pub(in crate::queue) fn request_too_large(&self, excess: ExceededLimit) {
        let ExceededLimit { setting, bytes, max_bytes } = excess;
        let queue = self.queue();
        if self.may_log(RedisError::TooLarge) {
            tracing::warn!(
                queue,
                setting,
                bytes,
                max_bytes,
                "request exceeds a limit of Redis; raise this setting of Redis or lower server.max_body"
            );
        } else {
            tracing::debug!(queue, setting, bytes, max_bytes, "request exceeds a limit of Redis");
        }
    }

    /// Records that the server refuses writes. Returns whether [`READ_ONLY_GRACE`] has not passed
    /// since the first refused write.
    pub(in crate::queue) fn record_read_only(&self) -> bool {
        self.has_refusal.store(true, Ordering::Relaxed);
        let mut since = self.read_only_since.lock();
        since.get_or_insert_with(Instant::now).elapsed() < READ_ONLY_GRACE
    }

    /// Whether a batch that was not acknowledged for this reason may be logged as a warning.
    pub(in crate::queue) fn may_log(&self, kind: RedisError) -> bool {
        let mut failures = self.failures.lock();
        let throttle = failures.entry(kind.as_str());
        throttle.or_insert_with(|| LogThrottle::new(1, FAILURE_LOG_INTERVAL)).allows()
    }

    /// Records that Redis has accepted a batch.
    pub(in crate::queue) fn batch_accepted(&self) {
        if self.has_refusal.swap(false, Ordering::Relaxed) {
            *self.refusal.lock() = None;
            *self.read_only_since.lock() = None;
        }
    }

    fn set_refusal(&self, condition: Condition) {
        *self.refusal.lock() = Some((Instant::now(), condition));
        self.has_refusal.store(true, Ordering::Relaxed);
    }

    /// The condition by the last batches.
    pub(in crate::queue) fn last_refusal(&self) -> Condition {
        match &*self.refusal.lock() {
            Some((at, condition)) if at.elapsed() < REFUSAL_TTL => condition.clone(),
            _ => Condition::Ready,
        }
    }

    pub(in crate::queue) fn connections(&self) -> MutexGuard<'_, Vec<CurrentConnection>> {
        self.reconnects.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shedding_ends_well_below_the_watermark() {
        let health = RedisHealth::default();
        for (ratio, is_shedding) in
            [(0.89, false), (0.91, true), (0.86, true), (0.84, false), (0.86, false)]
        {
            health.update_memory(ratio, 0.9);
            assert_eq!(health.is_shedding(), is_shedding, "{ratio}");
            assert_eq!(health.is_near_watermark(), ratio > 0.85, "{ratio}");
        }
        health.update_memory(2.0, 0.0);
        assert!(!health.is_shedding() && !health.is_near_watermark());
    }
}
