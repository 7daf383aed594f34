//! What Redis says of itself, asked every second over a connection of its own.

use super::{QueueSettings, redis};
use crate::lifecycle::{Condition, Reporter};
use crate::metrics::Metrics;
use fred::error::Error;
use fred::interfaces::{ClientLike, ConfigInterface, EventInterface};
use fred::prelude::Client;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The oldest Redis that BullMQ recommends.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// Shedding that began over the watermark ends so far below it.
const HYSTERESIS: f64 = 0.05;

/// What the rest of the queue needs to know.
#[derive(Debug, Default)]
pub struct Health {
    is_shedding: AtomicBool,
}

impl Health {
    /// Whether Redis is so full that it is spared more jobs.
    pub(super) fn is_shedding(&self) -> bool {
        self.is_shedding.load(Ordering::Relaxed)
    }

    fn update(&self, ratio: f64, watermark: f64) {
        let was_shedding = self.is_shedding();
        let bound = if was_shedding { watermark - HYSTERESIS } else { watermark };
        let is_shedding = watermark > 0.0 && ratio > bound;
        self.is_shedding.store(is_shedding, Ordering::Relaxed);
        if is_shedding != was_shedding {
            tracing::warn!(ratio, is_shedding, "memory of Redis has crossed the watermark");
        }
    }
}

/// Keeps the health and the condition of Redis current. Never ends.
pub async fn watch(
    settings: Arc<QueueSettings>,
    health: Arc<Health>,
    reporter: Reporter,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let client = redis::client(&settings)?;
    let mut errors = client.error_rx();
    // An error comes when the connection does: the first question finds out.
    let _ = tokio::time::timeout(settings.enqueue_timeout, client.wait_for_connect()).await;
    let mut last_cause = None;
    let mut ticks = tokio::time::interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let condition = match ask(&client, settings.enqueue_timeout).await {
            Ok(state) => {
                health.update(state.memory_ratio(), settings.memory_watermark);
                metrics.redis_memory_ratio.set(state.memory_ratio());
                state.condition(health.is_shedding())
            }
            Err(error) => {
                // What the connection has died of says more than that there is none.
                let cause = std::iter::from_fn(|| errors.try_recv().ok()).last();
                last_cause = cause.map(|(cause, _)| cause.details().to_owned()).or(last_cause);
                let cause = last_cause.as_deref().unwrap_or_else(|| error.details());
                Condition::NotReady(format!("does not answer: {cause}"))
            }
        };
        report(&reporter, condition);
    }
}

fn report(reporter: &Reporter, condition: Condition) {
    if !reporter.set(condition.clone()) {
        return;
    }
    match condition {
        Condition::Ready => tracing::info!("Redis is ready"),
        Condition::Degraded(notes) => {
            tracing::warn!(?notes, "Redis is ready, but not set up as a queue needs it");
        }
        Condition::NotReady(reason) => tracing::warn!(reason, "Redis is not ready"),
    }
}

/// What `INFO` says, and the configuration that it does not tell.
#[derive(Debug, Default)]
struct State {
    info: HashMap<String, String>,
    /// What is missing may not be asked.
    config: HashMap<String, String>,
}

/// The keys of Redis' configuration that are asked for.
const CONFIG: [&str; 3] = ["save", "stop-writes-on-bgsave-error", "min-replicas-to-write"];

async fn ask(client: &Client, timeout: Duration) -> Result<State, Error> {
    let client = client.with_options(&redis::one_attempt(timeout));
    let info: String = client.info(None).await?;
    let info = info.lines().filter_map(|line| line.trim().split_once(':'));
    let info = info.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut config = HashMap::new();
    for key in CONFIG {
        config
            .extend(client.config_get::<HashMap<String, String>, _>(key).await.unwrap_or_default());
    }
    Ok(State { info, config })
}

impl State {
    fn text(&self, key: &str) -> &str {
        self.info.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> f64 {
        self.text(key).parse().unwrap_or(0.0)
    }

    /// Memory in use as a share of `maxmemory`; 0 without one.
    fn memory_ratio(&self) -> f64 {
        let limit = self.number("maxmemory");
        if limit > 0.0 { self.number("used_memory") / limit } else { 0.0 }
    }

    fn config(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    /// Why a Redis that is up takes no writes.
    fn refuses_writes(&self) -> Option<&'static str> {
        let stops_on_failed_save = self.config("stop-writes-on-bgsave-error") == Some("yes");
        if stops_on_failed_save && self.text("rdb_last_bgsave_status") == "err" {
            return Some("takes no writes, since its last snapshot has failed");
        }
        if self.text("aof_last_write_status") == "err" {
            return Some("takes no writes, since its append-only file cannot be written");
        }
        let wanted = self.config("min-replicas-to-write").and_then(|text| text.parse().ok());
        if wanted.is_some_and(|wanted: f64| self.number("min_slaves_good_slaves") < wanted) {
            return Some("takes no writes, since it has too few replicas");
        }
        None
    }

    fn condition(&self, is_shedding: bool) -> Condition {
        if self.text("loading") == "1" {
            return Condition::NotReady("is loading its data".to_owned());
        }
        if self.text("role") == "slave" {
            return Condition::NotReady("is a replica and takes no writes".to_owned());
        }
        if let Some(reason) = self.refuses_writes() {
            return Condition::NotReady(reason.to_owned());
        }
        if is_shedding || self.memory_ratio() > 1.0 {
            return Condition::NotReady("is full".to_owned());
        }
        let mut notes = Vec::new();
        let policy = self.text("maxmemory_policy");
        if policy != "noeviction" {
            notes.push(format!(
                "maxmemory-policy is {policy}, which may evict jobs; BullMQ needs noeviction"
            ));
        }
        if self.text("aof_enabled") == "0" && self.config("save") == Some("") {
            notes.push(
                "neither append-only file nor snapshots: a restart loses every job".to_owned(),
            );
        }
        if version(self.text("redis_version")).is_some_and(|version| version < OLDEST_VERSION) {
            notes.push("version is older than 6.2, which BullMQ recommends".to_owned());
        }
        if notes.is_empty() { Condition::Ready } else { Condition::Degraded(notes) }
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(info: &[(&str, &str)], config: &[(&str, &str)]) -> State {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        State { info: owned(info), config: owned(config) }
    }

    #[test]
    fn what_may_lose_jobs_is_said() {
        let good = state(
            &[
                ("role", "master"),
                ("maxmemory_policy", "noeviction"),
                ("aof_enabled", "1"),
                ("redis_version", "7.0.15"),
            ],
            &[("save", "")],
        );
        assert_eq!(good.condition(false), Condition::Ready);
        assert!(matches!(good.condition(true), Condition::NotReady(_)));
        let bad = state(
            &[
                ("role", "master"),
                ("maxmemory_policy", "allkeys-lru"),
                ("aof_enabled", "0"),
                ("redis_version", "6.0.9"),
            ],
            &[("save", "")],
        );
        for (info, config) in [
            (("rdb_last_bgsave_status", "err"), ("stop-writes-on-bgsave-error", "yes")),
            (("aof_last_write_status", "err"), ("save", "")),
            (("min_slaves_good_slaves", "0"), ("min-replicas-to-write", "1")),
        ] {
            assert!(matches!(state(&[info], &[config]).condition(false), Condition::NotReady(_)));
        }
        let Condition::Degraded(notes) = bad.condition(false) else { panic!("not degraded") };
        assert_eq!(notes.len(), 3);
        assert!(matches!(
            state(&[("role", "slave")], &[]).condition(false),
            Condition::NotReady(_)
        ));
    }

    #[test]
    fn shedding_ends_well_below_the_watermark() {
        let health = Health::default();
        for (ratio, is_shedding) in
            [(0.89, false), (0.91, true), (0.86, true), (0.84, false), (0.86, false)]
        {
            health.update(ratio, 0.9);
            assert_eq!(health.is_shedding(), is_shedding, "{ratio}");
        }
        health.update(2.0, 0.0);
        assert!(!health.is_shedding());
    }
}
