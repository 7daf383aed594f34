//! The health check: queries Redis every second over its own connection.

use crate::metrics::RedisMetrics;
use crate::process::lifecycle::{Condition, Reporter};
use crate::process::supervisor::Supervisor;
use crate::queue::dry_run;
use crate::queue::parts::QueueParts;
use crate::queue::redis::acl::MissingPermissions;
use crate::queue::redis::connection::{CallError, RedisConnection, no_answer};
use crate::queue::redis::health::RedisHealth;
use crate::queue::redis::job_counts::JobCounts;
use crate::queue::redis::limits::Limits;
use crate::queue::redis::reconnect::{CurrentConnection, RECONNECT_TIME};
use crate::queue::redis::server_info::ServerInfo;
use crate::queue::settings::QueueSettings;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the first report waits for connections at most. The process is not ready before it.
const FIRST_REPORT: Duration = Duration::from_secs(2);

/// Logs the rights of this user that adding jobs does not need. Returns whether Redis has replied.
async fn log_excess(connection: &RedisConnection, settings: &QueueSettings) -> bool {
    let query = MissingPermissions::query_excess(connection, settings);
    let Ok(Ok(excess)) = tokio::time::timeout(settings.reply_timeout(), query).await else {
        return false;
    };
    if let Some(rights) = excess.filter(|excess| !excess.is_empty()) {
        let (server, queue) = (connection.server(), settings.shard_name());
        let rights = rights.join(", ");
        tracing::warn!(
            server,
            queue,
            rights,
            "this user of Redis has more rights than adding jobs needs"
        );
    }
    true
}

/// Keeps the health and the condition of the Redis of a queue current. Never ends.
///
/// Counts the jobs of the queue every `count_interval`, unless it is zero.
pub async fn run_health_check(
    parts: QueueParts,
    count_interval: Duration,
    reporter: Reporter,
    supervisor: Supervisor,
) {
    let QueueParts { settings, health, metrics, .. } = &parts;
    let (settings, health, metrics) = (settings, &**health, &**metrics);
    let reconnect = CurrentConnection::start(settings, &supervisor);
    // The first report waits until the connections are open or have had time to open.
    let first_report = Instant::now() + settings.reply_timeout().min(FIRST_REPORT);
    wait_for_connections(health, first_report).await;
    let mut first_report = Some(first_report);
    let mut ticks = tokio::time::interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_logged_excess = false;
    let mut counts = JobCounts::new(count_interval);
    loop {
        ticks.tick().await;
        let latest = first_report.take();
        let latest = latest.unwrap_or_else(|| Instant::now() + settings.reply_timeout());
        let condition = if let Some(connection) = reconnect.connection(latest).await {
            has_logged_excess = has_logged_excess || log_excess(&connection, settings).await;
            let condition = check(health, &connection, settings, metrics).await;
            if settings.is_behind_sentinel() && matches!(condition, Condition::NotReady(_)) {
                leave_server(health, &reconnect);
            }
            condition.merge(counts.refresh(&connection, settings, metrics).await)
        } else {
            counts.forget(metrics);
            *health.server.lock() = None;
            no_answer(&reconnect.cause())
        };
        wait_for_connections(health, Instant::now() + RECONNECT_TIME).await;
        let condition = condition.merge(health.lost_connections()).merge(health.last_refusal());
        report(&reporter, condition, &reconnect.server(), parts.shard_name());
    }
}

/// Replaces all connections, so that Sentinel is asked for the primary again. A server that refuses
/// jobs may have a successor and not know it: one that the Sentinels do not reach keeps its role,
/// and lacks the replicas that have followed the successor.
fn leave_server(health: &RedisHealth, reconnect: &CurrentConnection) {
    reconnect.request_replacement();
    for each in health.connections().iter() {
        each.request_replacement();
    }
}

/// Waits until all connections for jobs are open, until `latest` at most.
async fn wait_for_connections(health: &RedisHealth, latest: Instant) {
    let reconnects = health.connections().clone();
    for each in reconnects {
        let _ = each.connection(latest).await;
    }
}

fn report(reporter: &Reporter, condition: Condition, server: &str, queue: Option<&str>) {
    if !reporter.set(condition.clone()) {
        return;
    }
    match condition {
        Condition::Ready => tracing::info!(server, queue, "Redis is ready"),
        Condition::Degraded(notes) => {
            let notes = notes.join("; ");
            tracing::warn!(server, queue, notes, "Redis is ready, with warnings");
        }
        Condition::NotReady(reason) => tracing::warn!(server, queue, reason, "Redis is not ready"),
    }
}

/// The condition of Redis, by its server info, the permissions of this user, and a dry run. Updates
/// the known limits, the health and the metrics.
async fn check(
    health: &RedisHealth,
    connection: &RedisConnection,
    settings: &QueueSettings,
    metrics: &RedisMetrics,
) -> Condition {
    if let Ok(Some(limits)) =
        tokio::time::timeout(settings.reply_timeout(), Limits::query(connection)).await
    {
        health.limits.set(limits);
    }
    let info = ServerInfo::query(connection, settings.reply_timeout()).await;
    *health.server.lock() = info.as_ref().ok().map(ServerInfo::summary);
    let condition = match info {
        Ok(mut info) => {
            info.compare_replicas(&mut health.written.lock());
            health.update_memory(info.memory_ratio(), settings.memory_watermark);
            info.update_metrics(metrics);
            info.condition(settings, health.is_shedding())
        }
        Err(condition) => condition,
    };
    condition.merge(check_jobs(connection, settings).await)
}

/// Whether jobs would be refused, by the permissions of this user and by a dry run.
async fn check_jobs(connection: &RedisConnection, settings: &QueueSettings) -> Condition {
    let checks = async {
        match MissingPermissions::query(connection, settings).await?.condition() {
            // Missing permissions explain more than the refusal of the dry run would.
            refused @ Condition::NotReady(_) => Ok(refused),
            other => Ok(other.merge(dry_run::run(connection, settings).await?)),
        }
    };
    match tokio::time::timeout(settings.reply_timeout(), checks).await {
        Ok(Ok(condition)) => condition,
        Ok(Err(CallError::Refused(error))) => {
            Condition::NotReady(format!("refuses EVAL: {}", error.details()))
        }
        Ok(Err(CallError::Lost)) => no_answer("connection lost"),
        // The query before this one has reported that Redis does not answer, or the next one will.
        Ok(Err(CallError::NotSent)) | Err(_) => Condition::Ready,
    }
}
