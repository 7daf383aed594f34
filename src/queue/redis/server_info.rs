//! What Redis reports of itself, and the condition that follows from it.

use crate::metrics::{RedisMetrics, ReplicaState};
use crate::process::lifecycle::Condition;
use crate::queue::redis::connection::no_answer;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::redis::replicas::{Replicas, WriteOffset};
use crate::queue::redis::server_config;
use crate::queue::redis::server_config::is_switched_off;
use crate::queue::settings::QueueSettings;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The oldest version of Redis that BullMQ recommends.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// The reply to `INFO`, and the configuration that it does not contain. A missing value is unknown,
/// which is not a fault.
#[derive(Debug, Default)]
pub(in crate::queue) struct ServerInfo {
    info: HashMap<String, String>,
    config: HashMap<String, String>,
    /// The error message of Redis if `INFO` is refused.
    refusal: Option<String>,
    replicas: Replicas,
}

/// What kind of server it is. A value that the server does not report is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServerSummary {
    pub software: Option<String>,
    pub version: Option<String>,
    pub mode: Option<String>,
    pub role: Option<String>,
}

/// The keys of Redis' configuration that are read.
const CONFIG: [&str; 3] = ["save", "stop-writes-on-bgsave-error", "min-replicas-to-write"];

/// The fields of `INFO` that determine the condition. Servers other than Redis may lack some.
const INFO: [&str; 5] = ["role", "maxmemory", "used_memory", "maxmemory_policy", "aof_enabled"];

impl ServerInfo {
    /// Queries Redis over this connection. The error is the condition that follows if there is no
    /// reply.
    pub(in crate::queue) async fn query(
        connection: &RedisConnection,
        timeout: Duration,
    ) -> Result<Self, Condition> {
        match tokio::time::timeout(timeout, Self::read(connection)).await {
            Ok(Ok(info)) => {
                connection.set_useful();
                Ok(info)
            }
            Ok(Err(CallError::Refused(error))) => Err(no_answer(error.details())),
            Ok(Err(CallError::NotSent | CallError::Lost)) | Err(_) => {
                connection.give_up();
                Err(no_answer("connection lost"))
            }
        }
    }

    async fn read(connection: &RedisConnection) -> Result<Self, CallError> {
        let mut server_info = Self::default();
        match connection.call::<String>("INFO", Vec::new()).await {
            Ok(info) => {
                let fields = info.lines().filter_map(|line| line.trim().split_once(':'));
                let fields = fields.map(|(key, value)| (key.to_owned(), value.to_owned()));
                server_info.info.extend(fields);
            }
            Err(CallError::Refused(error)) if is_switched_off(error.details()) => {
                server_info.refusal = Some(error.details().to_owned());
            }
            Err(error) => return Err(error),
        }
        server_info.replicas = Replicas::read(&server_info.info);
        if let Ok(Some(values)) = server_config::get(connection, &CONFIG).await {
            server_info.config = values;
        }
        Ok(server_info)
    }

    /// Compares the replicas with an earlier offset of the primary, and records the current one.
    pub(in crate::queue) fn compare_replicas(&mut self, written: &mut WriteOffset) {
        self.replicas.compare(written.record(&self.info, Instant::now()));
    }

    pub(in crate::queue) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    pub(in crate::queue) fn update_metrics(&self, metrics: &RedisMetrics) {
        metrics.memory_ratio.set(self.memory_ratio());
        metrics.may_evict.set(f64::from(u8::from(self.may_evict())));
        metrics.is_volatile.set(f64::from(u8::from(self.is_volatile())));
        metrics.replicas(ReplicaState::InSync).set(self.replicas.in_sync() as f64);
        metrics.replicas(ReplicaState::OutOfSync).set(self.replicas.out_of_sync() as f64);
    }

    fn may_evict(&self) -> bool {
        self.string("maxmemory_policy").is_some_and(|policy| policy != "noeviction")
    }

    /// Whether a restart loses all jobs.
    fn is_volatile(&self) -> bool {
        self.has("aof_enabled", "0") && self.config("save") == Some("")
    }

    /// The name of the server. Valkey reports its name, and the version of Redis that it is
    /// compatible with.
    pub(in crate::queue) fn software(&self) -> Option<&str> {
        self.string("server_name").or_else(|| self.string("redis_version").map(|_| "redis"))
    }

    pub(in crate::queue) fn version(&self) -> Option<&str> {
        self.string("valkey_version").or_else(|| self.string("redis_version"))
    }

    /// The mode of the server, which is in another field on Valkey.
    pub(in crate::queue) fn mode(&self) -> Option<&str> {
        self.string("redis_mode").or_else(|| self.string("server_mode"))
    }

    /// What the status page shows.
    pub(in crate::queue) fn summary(&self) -> ServerSummary {
        let owned = |value: Option<&str>| value.map(str::to_owned);
        ServerSummary {
            software: owned(self.software()),
            version: owned(self.version()),
            mode: owned(self.mode()),
            role: owned(self.string("role")),
        }
    }

    pub(in crate::queue) fn string(&self, key: &str) -> Option<&str> {
        self.info.get(key).map(String::as_str)
    }

    fn has(&self, key: &str, value: &str) -> bool {
        self.string(key) == Some(value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.string(key)?.parse().ok()
    }

    /// Used memory as a share of `maxmemory`; 0 if there is no `maxmemory` or a value is unknown.
    pub(in crate::queue) fn memory_ratio(&self) -> f64 {
        let limit = self.number("maxmemory").filter(|&limit| limit > 0.0);
        limit.and_then(|limit| Some(self.number("used_memory")? / limit)).unwrap_or(0.0)
    }

    pub(in crate::queue) fn config(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    /// Why a running Redis refuses writes.
    fn refuses_writes(&self) -> Option<&'static str> {
        let stops_on_failed_save = self.config("stop-writes-on-bgsave-error") == Some("yes");
        if stops_on_failed_save && self.has("rdb_last_bgsave_status", "err") {
            return Some("refuses writes because its last snapshot failed");
        }
        if self.has("aof_last_write_status", "err") {
            return Some("refuses writes because its append-only file cannot be written");
        }
        let wanted = self.config("min-replicas-to-write").and_then(|count| count.parse().ok());
        let good = self.number("min_slaves_good_slaves");
        if wanted.zip(good).is_some_and(|(wanted, good): (f64, f64)| good < wanted) {
            return Some("refuses writes because it has too few replicas");
        }
        None
    }

    /// The condition of Redis by what it reports.
    pub(in crate::queue) fn condition(
        &self,
        settings: &QueueSettings,
        is_shedding: bool,
    ) -> Condition {
        if let Some(reason) = self.refuses_jobs(settings, is_shedding) {
            return Condition::NotReady(reason);
        }
        Condition::from_notes(self.notes())
    }

    /// Why jobs are refused or not acknowledged.
    fn refuses_jobs(&self, settings: &QueueSettings, is_shedding: bool) -> Option<String> {
        if self.has("loading", "1") {
            return Some("is loading its data".to_owned());
        }
        if self.has("role", "slave") {
            return Some("is a replica and refuses writes".to_owned());
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
            let faults = self.replicas.faults().map(|fault| format!("; {fault}"));
            let faults = faults.collect::<Vec<_>>().concat();
            format!(
                "has {replicas} of the {wanted} replicas that queue.wait_replicas requires: jobs are added, but their requests get 503{faults}"
            )
        })
    }

    /// The reasons why Redis is degraded.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.unknown_fields());
        if let Some(policy) = self.string("maxmemory_policy").filter(|_| self.may_evict()) {
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
        let version = self.string("redis_version").and_then(version);
        if version.is_some_and(|version| version < OLDEST_VERSION) {
            notes.push("version is older than 6.2, the minimum that BullMQ recommends".to_owned());
        }
        notes
    }

    fn unknown_fields(&self) -> Option<String> {
        if let Some(refusal) = &self.refusal {
            return Some(format!(
                "INFO is not permitted: memory, role and persistence are unknown ({refusal})"
            ));
        }
        let missing: Vec<&str> =
            INFO.into_iter().filter(|key| self.string(key).is_none()).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "INFO does not report {}: the conditions that depend on it are unknown",
                missing.join(", ")
            )
        })
    }
}

fn version(string: &str) -> Option<(u32, u32)> {
    let mut parts = string.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_info(info: &[(&str, &str)], config: &[(&str, &str)]) -> ServerInfo {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let info = owned(info);
        ServerInfo { replicas: Replicas::read(&info), info, config: owned(config), refusal: None }
    }

    #[test]
    fn a_condition_that_refuses_or_loses_jobs_is_reported() {
        let mut file = crate::settings::SettingsReader::default();
        let idempotency = crate::queue::IdempotencySettings::read(&mut file.section("idempotency"));
        let settings = QueueSettings::read(&mut file.section("queue"), idempotency);
        let good = server_info(
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
        let bad = server_info(
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
                server_info(&[info], &[config]).condition(&settings, false),
                Condition::NotReady(_)
            ));
        }
        let Condition::Degraded(notes) = bad.condition(&settings, false) else {
            panic!("not degraded")
        };
        assert_eq!(notes.len(), 3);
        assert!(matches!(
            server_info(&[("role", "slave")], &[]).condition(&settings, false),
            Condition::NotReady(_)
        ));
    }

    #[test]
    fn missing_fields_are_reported_and_are_not_faults() {
        let mut file = crate::settings::SettingsReader::default();
        let idempotency = crate::queue::IdempotencySettings::read(&mut file.section("idempotency"));
        let mut settings = QueueSettings::read(&mut file.section("queue"), idempotency);
        settings.wait_replicas = 1;
        let empty = server_info(&[], &[("min-replicas-to-write", "1"), ("save", "")]);
        let note = "INFO does not report role, maxmemory, used_memory, maxmemory_policy, aof_enabled: the conditions that depend on it are unknown";
        assert_eq!(empty.condition(&settings, false), Condition::Degraded(vec![note.to_owned()]));
        let refused = ServerInfo { refusal: Some("ERR unknown command".to_owned()), ..empty };
        let Condition::Degraded(notes) = refused.condition(&settings, false) else {
            panic!("not degraded")
        };
        assert!(notes.len() == 1 && notes.concat().contains("INFO is not permitted"), "{notes:?}");
        assert!(!refused.may_evict() && !refused.is_volatile());
        assert!(matches!(
            server_info(&[("connected_slaves", "0")], &[]).condition(&settings, false),
            Condition::NotReady(_)
        ));
    }

    #[test]
    fn valkey_is_distinguished_from_redis() {
        let redis = server_info(&[("redis_version", "7.0.15"), ("redis_mode", "standalone")], &[]);
        let reported = |info: &ServerInfo| {
            [info.software(), info.version(), info.mode()].map(|value| value.map(str::to_owned))
        };
        let expected = |values: [&str; 3]| values.map(|value| Some(value.to_owned()));
        assert_eq!(reported(&redis), expected(["redis", "7.0.15", "standalone"]));
        let valkey = server_info(
            &[
                ("redis_version", "7.2.4"),
                ("server_name", "valkey"),
                ("valkey_version", "8.1.3"),
                ("server_mode", "cluster"),
            ],
            &[],
        );
        assert_eq!(reported(&valkey), expected(["valkey", "8.1.3", "cluster"]));
        assert_eq!(reported(&server_info(&[], &[])), [None, None, None]);
    }
}
