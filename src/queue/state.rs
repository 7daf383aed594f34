//! What Redis says of itself, and what that means for whoever adds jobs.

use super::QueueSettings;
use super::health::no_answer;
use super::replicas::{Replicas, Written};
use super::server_config::{self, is_switched_off};
use super::session::{CallError, Session};
use crate::lifecycle::Condition;
use crate::metrics::{Metrics, ReplicaState};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The oldest Redis that BullMQ recommends.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// What `INFO` says, and the configuration that it does not tell. What is missing is not known, which is no fault.
#[derive(Debug, Default)]
pub(super) struct State {
    info: HashMap<String, String>,
    config: HashMap<String, String>,
    /// Why there is no `INFO`, in the words of Redis.
    refusal: Option<String>,
    replicas: Replicas,
}

/// The keys of Redis' configuration that are asked for.
const CONFIG: [&str; 3] = ["save", "stop-writes-on-bgsave-error", "min-replicas-to-write"];

/// What `INFO` is read for. It may lack some where something else than Redis answers.
const INFO: [&str; 5] = ["role", "maxmemory", "used_memory", "maxmemory_policy", "aof_enabled"];

impl State {
    /// What Redis says over this session, or what it means that it does not.
    pub(super) async fn ask(session: &Session, patience: Duration) -> Result<Self, Condition> {
        match tokio::time::timeout(patience, Self::read(session)).await {
            Ok(Ok(state)) => {
                session.set_useful();
                Ok(state)
            }
            Ok(Err(CallError::Refused(error))) => Err(no_answer(error.details())),
            Ok(Err(CallError::NotSent | CallError::Lost)) | Err(_) => {
                session.give_up();
                Err(no_answer("connection lost"))
            }
        }
    }

    async fn read(session: &Session) -> Result<Self, CallError> {
        let mut state = Self::default();
        match session.call::<String>("INFO", Vec::new()).await {
            Ok(info) => {
                let fields = info.lines().filter_map(|line| line.trim().split_once(':'));
                state.info.extend(fields.map(|(key, value)| (key.to_owned(), value.to_owned())));
            }
            Err(CallError::Refused(error)) if is_switched_off(error.details()) => {
                state.refusal = Some(error.details().to_owned());
            }
            Err(error) => return Err(error),
        }
        state.replicas = Replicas::read(&state.info);
        if let Ok(Some(values)) = server_config::get(session, &CONFIG).await {
            state.config = values;
        }
        Ok(state)
    }

    /// Takes into account what was written before, as to which replicas have it.
    pub(super) fn compare_replicas(&mut self, written: &mut Written) {
        self.replicas.compare(written.note(&self.info, Instant::now()));
    }

    pub(super) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    pub(super) fn show(&self, metrics: &Metrics) {
        metrics.redis.memory_ratio.set(self.memory_ratio());
        metrics.redis.may_evict.set(f64::from(u8::from(self.may_evict())));
        metrics.redis.is_volatile.set(f64::from(u8::from(self.is_volatile())));
        metrics.redis.replicas(ReplicaState::InSync).set(self.replicas.in_sync() as f64);
        metrics.redis.replicas(ReplicaState::OutOfSync).set(self.replicas.out_of_sync() as f64);
    }

    fn may_evict(&self) -> bool {
        self.text("maxmemory_policy").is_some_and(|policy| policy != "noeviction")
    }

    /// Whether a restart loses everything.
    fn is_volatile(&self) -> bool {
        self.says("aof_enabled", "0") && self.config("save") == Some("")
    }

    /// Whether it is Redis, or Valkey, which says so and gives a version of Redis that it is compatible with.
    pub(super) fn software(&self) -> Option<&str> {
        self.text("server_name").or_else(|| self.text("redis_version").map(|_| "redis"))
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.text("valkey_version").or_else(|| self.text("redis_version"))
    }

    /// Valkey has another name for it.
    pub(super) fn mode(&self) -> Option<&str> {
        self.text("redis_mode").or_else(|| self.text("server_mode"))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.info.get(key).map(String::as_str)
    }

    fn says(&self, key: &str, value: &str) -> bool {
        self.text(key) == Some(value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.text(key)?.parse().ok()
    }

    /// Memory in use as a share of `maxmemory`; 0 without one, or where it is not known.
    pub(super) fn memory_ratio(&self) -> f64 {
        let limit = self.number("maxmemory").filter(|&limit| limit > 0.0);
        limit.and_then(|limit| Some(self.number("used_memory")? / limit)).unwrap_or(0.0)
    }

    pub(super) fn config(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    /// Why a Redis that is up takes no writes.
    fn refuses_writes(&self) -> Option<&'static str> {
        let stops_on_failed_save = self.config("stop-writes-on-bgsave-error") == Some("yes");
        if stops_on_failed_save && self.says("rdb_last_bgsave_status", "err") {
            return Some("takes no writes, since its last snapshot has failed");
        }
        if self.says("aof_last_write_status", "err") {
            return Some("takes no writes, since its append-only file cannot be written");
        }
        let wanted = self.config("min-replicas-to-write").and_then(|text| text.parse().ok());
        let good = self.number("min_slaves_good_slaves");
        if wanted.zip(good).is_some_and(|(wanted, good): (f64, f64)| good < wanted) {
            return Some("takes no writes, since it has too few replicas");
        }
        None
    }

    /// What it comes to for whoever adds jobs.
    pub(super) fn condition(&self, settings: &QueueSettings, is_shedding: bool) -> Condition {
        if let Some(reason) = self.takes_no_jobs(settings, is_shedding) {
            return Condition::NotReady(reason);
        }
        let notes = self.notes();
        if notes.is_empty() { Condition::Ready } else { Condition::Degraded(notes) }
    }

    fn takes_no_jobs(&self, settings: &QueueSettings, is_shedding: bool) -> Option<String> {
        if self.says("loading", "1") {
            return Some("is loading its data".to_owned());
        }
        if self.says("role", "slave") {
            return Some("is a replica and takes no writes".to_owned());
        }
        if let Some(reason) = self.refuses_writes() {
            return Some(reason.to_owned());
        }
        if is_shedding || self.memory_ratio() > 1.0 {
            return Some(format!(
                "is full: over queue.memory_watermark ({}) of its maxmemory",
                settings.memory_watermark
            ));
        }
        let wanted = settings.wait_replicas;
        let replicas = self.replicas.acknowledging()?;
        (replicas < wanted).then(|| {
            let others: Vec<String> = self.replicas.faults().map(|fault| format!("; {fault}")).collect();
            format!(
                "has {replicas} of the {wanted} replicas that queue.wait_replicas asks for: jobs are added, but answered 503{}",
                others.concat()
            )
        })
    }

    /// What is worth a look.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.not_known());
        if let Some(policy) = self.text("maxmemory_policy").filter(|_| self.may_evict()) {
            notes.push(format!(
                "maxmemory-policy is {policy}, which may evict jobs; BullMQ needs noeviction"
            ));
        }
        if self.is_volatile() {
            notes.push(
                "neither append-only file nor snapshots: a restart loses every job".to_owned(),
            );
        }
        notes.extend(self.replicas.faults());
        let version = self.text("redis_version").and_then(version);
        if version.is_some_and(|version| version < OLDEST_VERSION) {
            notes.push("version is older than 6.2, which BullMQ recommends".to_owned());
        }
        notes
    }

    fn not_known(&self) -> Option<String> {
        if let Some(refusal) = &self.refusal {
            return Some(format!(
                "may not be asked for INFO: memory, role and persistence are not known ({refusal})"
            ));
        }
        let missing: Vec<&str> = INFO.into_iter().filter(|key| self.text(key).is_none()).collect();
        (!missing.is_empty()).then(|| {
            format!("INFO does not say {}: what follows from it is not known", missing.join(", "))
        })
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
        let info = owned(info);
        State { replicas: Replicas::read(&info), info, config: owned(config), refusal: None }
    }

    #[test]
    fn what_may_lose_jobs_is_said() {
        let mut file = crate::settings::Settings::default();
        let idempotency = super::super::IdempotencySettings::read(&mut file.section("idempotency"));
        let settings = QueueSettings::read(&mut file.section("queue"), idempotency);
        let good = state(
            &[
                ("role", "master"),
                ("maxmemory", "0"),
                ("used_memory", "1000"),
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
                ("maxmemory", "0"),
                ("used_memory", "1000"),
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
    #[test]
    fn what_is_not_known_is_said_and_is_no_fault() {
        let mut file = crate::settings::Settings::default();
        let idempotency = super::super::IdempotencySettings::read(&mut file.section("idempotency"));
        let mut settings = QueueSettings::read(&mut file.section("queue"), idempotency);
        settings.wait_replicas = 1;
        let empty = state(&[], &[("min-replicas-to-write", "1"), ("save", "")]);
        let note = "INFO does not say role, maxmemory, used_memory, maxmemory_policy, aof_enabled: what follows from it is not known";
        assert_eq!(empty.condition(&settings, false), Condition::Degraded(vec![note.to_owned()]));
        let refused = State { refusal: Some("ERR unknown command".to_owned()), ..empty };
        let Condition::Degraded(notes) = refused.condition(&settings, false) else {
            panic!("not degraded")
        };
        assert!(
            notes.len() == 1 && notes.concat().contains("may not be asked for INFO"),
            "{notes:?}"
        );
        assert!(!refused.may_evict() && !refused.is_volatile());
        assert!(matches!(
            state(&[("connected_slaves", "0")], &[]).condition(&settings, false),
            Condition::NotReady(_)
        ));
    }

    #[test]
    fn valkey_is_told_from_the_redis_that_it_is_compatible_with() {
        let redis = state(&[("redis_version", "7.0.15"), ("redis_mode", "standalone")], &[]);
        let told = |state: &State| {
            [state.software(), state.version(), state.mode()].map(|text| text.map(str::to_owned))
        };
        let texts = |texts: [&str; 3]| texts.map(|text| Some(text.to_owned()));
        assert_eq!(told(&redis), texts(["redis", "7.0.15", "standalone"]));
        let valkey = state(
            &[
                ("redis_version", "7.2.4"),
                ("server_name", "valkey"),
                ("valkey_version", "8.1.3"),
                ("server_mode", "cluster"),
            ],
            &[],
        );
        assert_eq!(told(&valkey), texts(["valkey", "8.1.3", "cluster"]));
        assert_eq!(told(&state(&[], &[])), [None, None, None]);
    }
}
