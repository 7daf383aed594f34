//! What Redis says of itself, and what that means for whoever adds jobs.

use super::QueueSettings;
use super::health::no_answer;
use super::session::{CallError, Session};
use crate::lifecycle::Condition;
use crate::metrics::Metrics;
use fred::types::Value;
use std::collections::HashMap;
use std::time::Duration;

/// The oldest Redis that BullMQ recommends.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// What `INFO` says, and the configuration that it does not tell.
#[derive(Debug, Default)]
pub(super) struct State {
    info: HashMap<String, String>,
    /// What is missing may not be asked.
    config: HashMap<String, String>,
}

/// The keys of Redis' configuration that are asked for.
const CONFIG: [&str; 3] = ["save", "stop-writes-on-bgsave-error", "min-replicas-to-write"];

impl State {
    /// What Redis says over this session, or what it means that it does not.
    pub(super) async fn ask(session: &Session, patience: Duration) -> Result<Self, Condition> {
        match tokio::time::timeout(patience, Self::read(session)).await {
            Ok(Ok(state)) => {
                session.set_useful();
                Ok(state)
            }
            Ok(Err(CallError::Refused(error))) if error.details().starts_with("NOPERM") => {
                let note = "may not be asked for INFO: memory, role and persistence are not known";
                Err(Condition::Degraded(vec![note.to_owned()]))
            }
            Ok(Err(CallError::Refused(error))) => Err(no_answer(error.details())),
            Ok(Err(CallError::NotSent | CallError::Lost)) | Err(_) => {
                session.give_up();
                Err(no_answer("connection lost"))
            }
        }
    }

    async fn read(session: &Session) -> Result<Self, CallError> {
        let info: String = session.call("INFO", Vec::new()).await?;
        let info = info.lines().filter_map(|line| line.trim().split_once(':'));
        let info = info.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mut config = HashMap::new();
        for key in CONFIG {
            let words = ["GET", key].map(Value::from_static_str).to_vec();
            let values = session.call::<HashMap<String, String>>("CONFIG", words).await;
            config.extend(values.unwrap_or_default());
        }
        Ok(Self { info, config })
    }

    pub(super) fn show(&self, metrics: &Metrics) {
        metrics.redis.memory_ratio.set(self.memory_ratio());
        metrics.redis.may_evict.set(f64::from(u8::from(self.may_evict())));
        metrics.redis.is_volatile.set(f64::from(u8::from(self.is_volatile())));
    }

    fn may_evict(&self) -> bool {
        self.text("maxmemory_policy") != "noeviction"
    }

    /// Whether a restart loses everything.
    fn is_volatile(&self) -> bool {
        self.text("aof_enabled") == "0" && self.config("save") == Some("")
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.info.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> f64 {
        self.text(key).parse().unwrap_or(0.0)
    }

    /// Memory in use as a share of `maxmemory`; 0 without one.
    pub(super) fn memory_ratio(&self) -> f64 {
        let limit = self.number("maxmemory");
        if limit > 0.0 { self.number("used_memory") / limit } else { 0.0 }
    }

    pub(super) fn config(&self, key: &str) -> Option<&str> {
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

    /// What it comes to for whoever adds jobs.
    pub(super) fn condition(&self, settings: &QueueSettings, is_shedding: bool) -> Condition {
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
            return Condition::NotReady(format!(
                "is full: over queue.memory_watermark ({}) of its maxmemory",
                settings.memory_watermark
            ));
        }
        let replicas = self.number("connected_slaves");
        if replicas < settings.wait_replicas as f64 {
            return Condition::NotReady(format!(
                "has {replicas} of the {} replicas that queue.wait_replicas asks for: jobs are added, but answered 503",
                settings.wait_replicas
            ));
        }
        let mut notes = Vec::new();
        if self.may_evict() {
            let policy = self.text("maxmemory_policy");
            notes.push(format!(
                "maxmemory-policy is {policy}, which may evict jobs; BullMQ needs noeviction"
            ));
        }
        if self.is_volatile() {
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
        let mut file = crate::settings::Settings::default();
        let idempotency = super::super::IdempotencySettings::read(&mut file.section("idempotency"));
        let settings = QueueSettings::read(&mut file.section("queue"), idempotency);
        let good = state(
            &[
                ("role", "master"),
                ("maxmemory_policy", "noeviction"),
                ("aof_enabled", "1"),
                ("redis_version", "7.0.15"),
            ],
            &[("save", "")],
        );
        assert_eq!(good.condition(&settings, false), Condition::Ready);
        assert!(matches!(good.condition(&settings, true), Condition::NotReady(_)));
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
            assert!(matches!(
                state(&[info], &[config]).condition(&settings, false),
                Condition::NotReady(_)
            ));
        }
        let Condition::Degraded(notes) = bad.condition(&settings, false) else {
            panic!("not degraded")
        };
        assert_eq!(notes.len(), 3);
        assert!(matches!(
            state(&[("role", "slave")], &[]).condition(&settings, false),
            Condition::NotReady(_)
        ));
    }
}
