//! The survey of Redis for `hookgate check --connect`. It writes nothing.

use crate::metrics::JobState;
use crate::process::findings::Findings;
use crate::queue::dry_run;
use crate::queue::redis::acl::MissingPermissions;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::redis::health::RedisHealth;
use crate::queue::redis::job_counts;
use crate::queue::redis::limits::Limits;
use crate::queue::redis::reason::reason;
use crate::queue::redis::replicas::Replicas;
use crate::queue::redis::server_info::ServerInfo;
use crate::queue::settings::{PausedLayout, QueueSettings};
use fred::types::{FromValue, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Timeout of one call. A person waits for the result.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of calls. Their median is reported as the round trip.
const ROUND_TRIPS: usize = 11;

/// Reports what server Redis is, what the queue contains, and whether jobs could be added.
pub async fn survey(settings: &QueueSettings, max_body: usize) -> Findings {
    let mut findings = Findings::default();
    // Half of it is the time for a connection. An operator waits longer than a webhook.
    let settings = &QueueSettings { enqueue_timeout: 2 * CALL_TIMEOUT, ..settings.clone() };
    match RedisConnection::open(settings).await {
        Ok((connection, driver)) => {
            findings.fact("server", connection.server());
            let mut survey =
                RedisSurvey { settings, connection: &connection, findings: &mut findings };
            survey.run().await;
            survey.limits(max_body).await;
            drop(driver);
        }
        Err(error) => {
            findings.fact("server", settings.servers());
            findings.fault(format!("does not answer: {}", reason(&error)));
        }
    }
    findings
}

struct RedisSurvey<'a> {
    settings: &'a QueueSettings,
    connection: &'a RedisConnection,
    findings: &'a mut Findings,
}

impl RedisSurvey<'_> {
    async fn run(&mut self) {
        self.server().await;
        self.queue().await;
        let query = MissingPermissions::query(self.connection, self.settings);
        let permissions = self.reply("EVAL", query).await;
        self.missing_permissions(permissions.as_ref());
        let query = MissingPermissions::query_excess(self.connection, self.settings);
        let excess = self.reply("EVAL", query).await.flatten().unwrap_or_default();
        self.excess_permissions(&excess);
        // A missing permission explains more than the refusal of the dry run would.
        if self.findings.are_good() {
            self.dry_run().await;
        }
        self.round_trip().await;
    }

    /// Reports the server info, and the condition that the health check would derive from it.
    async fn server(&mut self) {
        let info = match ServerInfo::query(self.connection, CALL_TIMEOUT).await {
            Ok(info) => Some(info),
            Err(condition) => {
                self.findings.condition(condition);
                None
            }
        };
        let known = info.as_ref();
        let string = |key: &str| known.and_then(|info| info.string(key));
        let number = |key: &str| string(key).and_then(|string| string.parse::<u64>().ok());
        let save = known.and_then(|info| info.config("save"));
        self.findings.fact("software", known.and_then(ServerInfo::software));
        self.findings.fact("version", known.and_then(ServerInfo::version));
        self.findings.fact("mode", known.and_then(ServerInfo::mode));
        self.findings.fact("role", string("role"));
        let replicas = known.map(ServerInfo::replicas);
        self.findings.fact("replicas", replicas.and_then(Replicas::connected));
        self.findings.fact(
            "replicas_in_sync",
            replicas.and_then(|replicas| replicas.connected().map(|_| replicas.in_sync())),
        );
        self.findings.fact("maxmemory_bytes", number("maxmemory"));
        self.findings.fact("used_memory_bytes", number("used_memory"));
        self.findings.fact("maxmemory_policy", string("maxmemory_policy"));
        self.findings.fact("append_only_file", string("aof_enabled").map(|value| value == "1"));
        self.findings.fact("save", save);
        let Some(info) = &info else { return };
        if save.is_none() {
            self.findings.note(
                "CONFIG GET is not permitted: whether Redis makes snapshots and how large a job may be are unknown; refused writes are detected nevertheless",
            );
        }
        let health = RedisHealth::default();
        health.update_memory(info.memory_ratio(), self.settings.memory_watermark);
        self.findings.condition(info.condition(self.settings, health.is_shedding()));
    }

    /// Warns of limits of Redis that are smaller than those of Hookgate.
    async fn limits(&mut self, max_body: usize) {
        let limits = tokio::time::timeout(CALL_TIMEOUT, Limits::query(self.connection)).await;
        let Ok(Some(limits)) = limits else { return };
        let QueueSettings { max_matches, max_fanout_bytes, .. } = *self.settings;
        for warning in limits.warnings(max_body, max_matches, max_fanout_bytes) {
            self.findings.warning(warning);
        }
    }

    /// Reports what the queue contains, and the layout that applies while it is paused.
    async fn queue(&mut self) {
        let [wait, paused, meta, _, _, _, active] = self.settings.queue.script_keys();
        let fields = ["version", "paused"].map(Value::from_static_str);
        let arguments = std::iter::once(Value::from(meta)).chain(fields).collect();
        let found: Option<(Option<String>, Option<String>)> = self.call("HMGET", arguments).await;
        let lists = Lists { waiting: self.length(wait).await, paused: self.length(paused).await };
        let jobs_active = self.length(active).await;
        let is_paused = found.as_ref().map(|(_, paused)| paused.is_some());
        let version = found.and_then(|(version, _)| version);
        let setting = self.settings.paused_layout;
        let layout =
            is_paused.map(|is_paused| setting.resolve(is_paused, version.as_deref(), lists));
        let warning =
            is_paused.and_then(|is_paused| lists.warning(setting, is_paused, version.as_deref()));
        if let Some(warning) = warning {
            self.findings.warning(warning);
        }
        self.findings.fact("bullmq_version", version);
        self.findings.fact("queue_is_paused", is_paused);
        self.findings.fact("paused_layout", layout.map(PausedLayout::as_str));
        self.findings.fact("jobs_waiting", lists.waiting);
        self.findings.fact("jobs_on_paused_list", lists.paused);
        self.findings.fact("jobs_active", jobs_active);
        self.other_jobs().await;
    }

    /// Reports whether jobs would be refused, for any reason.
    async fn dry_run(&mut self) {
        let dry_run = dry_run::run(self.connection, self.settings);
        if let Some(condition) = self.reply("EVAL", dry_run).await {
            self.findings.condition(condition);
        }
    }

    /// Reports the jobs that are neither waiting nor active. Adding jobs does not need their number.
    async fn other_jobs(&mut self) {
        let mut refusal = None;
        for (fact, state) in [
            ("jobs_delayed", JobState::Delayed),
            ("jobs_prioritized", JobState::Prioritized),
            ("jobs_failed", JobState::Failed),
        ] {
            let counting = job_counts::count(self.connection, self.settings, state);
            let jobs = match tokio::time::timeout(CALL_TIMEOUT, counting).await {
                Ok(Err(CallError::Refused(error))) => {
                    refusal = Some(job_counts::note(&error));
                    None
                }
                counted => counted.ok().and_then(Result::ok),
            };
            self.findings.fact(fact, jobs);
        }
        if let Some(refusal) = refusal {
            self.findings.warning(refusal);
        }
    }

    async fn length(&mut self, list: String) -> Option<u64> {
        self.call("LLEN", vec![Value::from(list)]).await
    }

    /// Reports missing permissions. Each is a fault, because each breaks a promise, even if no job
    /// is refused for it.
    fn missing_permissions(&mut self, permissions: Option<&MissingPermissions>) {
        let missing = permissions.and_then(|permissions| permissions.missing.clone());
        if permissions.is_some() && missing.is_none() {
            self.findings
                .warning("does not report the rights of this user; Redis 7.0 and later does");
        }
        for (sentence, _) in permissions.into_iter().flat_map(MissingPermissions::sentences) {
            self.findings.fault(sentence);
        }
        self.findings.fact("missing_rights", missing);
    }

    fn excess_permissions(&mut self, excess: &[String]) {
        if !excess.is_empty() {
            let excess = excess.join(", ");
            self.findings.warning(format!(
                "this user has more rights than adding jobs needs, such as {excess}: anyone with its password can read and change more than this queue; docs/operating/redis.md lists the rights that suffice"
            ));
        }
    }

    async fn round_trip(&mut self) {
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let started_at = Instant::now();
            if self.call::<Value>("TIME", Vec::new()).await.is_some() {
                times.push(started_at.elapsed());
            }
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).map(Duration::as_micros);
        self.findings.fact("round_trip_us", median.and_then(|median| u64::try_from(median).ok()));
    }

    async fn call<T: FromValue>(&mut self, name: &'static str, arguments: Vec<Value>) -> Option<T> {
        let call = self.connection.call(name, arguments);
        self.reply(name, call).await
    }

    /// Waits for the reply to a call. A refusal and a missing reply are faults.
    async fn reply<T>(
        &mut self,
        name: &str,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Option<T> {
        // The loss of the connection was reported before.
        if self.connection.is_closing() {
            return None;
        }
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(CallError::Refused(error))) => {
                let details = error.details();
                let advice = dry_run::advice(details);
                self.findings.fault(format!("{name} is refused: {details}{advice}"));
            }
            Ok(Err(CallError::NotSent | CallError::Lost)) | Err(_) => {
                self.connection.give_up();
                self.findings.fault(format!("no reply to {name}"));
            }
        }
        None
    }
}

/// Number of jobs on the lists of a queue; `None` if it is not known.
#[derive(Debug, Clone, Copy)]
struct Lists {
    waiting: Option<u64>,
    paused: Option<u64>,
}

impl Lists {
    /// A warning if a pause has left jobs behind, or if the lists and the version do not show which
    /// BullMQ release will resume the queue.
    fn warning(
        self,
        setting: PausedLayout,
        is_paused: bool,
        version: Option<&str>,
    ) -> Option<&'static str> {
        match (is_paused, self.waiting? > 0, self.paused? > 0) {
            (false, _, true) => Some(
                "the queue is not paused, but jobs remain on its paused list: resume the queue again until jobs_on_paused_list is 0",
            ),
            _ if setting != PausedLayout::Auto => None,
            (true, true, true) => Some(
                "both lists of the paused queue have jobs, so BullMQ 5 and another release seem to share it: set queue.paused_layout to \"v5\" if BullMQ 5 resumes it, otherwise to \"v6\"",
            ),
            (true, false, false) if major_version(version).is_none() => Some(
                "the paused queue is empty, and its meta.version does not identify the release: jobs go to the list that BullMQ 5 uses; set queue.paused_layout to \"v6\" for BullMQ 6 or BullMQ for Python",
            ),
            _ => None,
        }
    }
}

impl PausedLayout {
    /// Resolves `auto` to a layout, as `add_jobs.lua` does. The comments there explain the rule.
    fn resolve(self, is_paused: bool, version: Option<&str>, lists: Lists) -> Self {
        let Self::Auto = self else { return self };
        // Before a pause the lists do not show which release will make it.
        let [has_waiting, has_paused] =
            [lists.waiting, lists.paused].map(|jobs| is_paused && jobs > Some(0));
        let is_v6 = match major_version(version) {
            Some(major) if has_waiting == has_paused => major >= 6,
            _ => has_waiting,
        };
        if is_v6 { Self::V6 } else { Self::V5 }
    }
}

/// The major version in `meta.version`, as BullMQ for Node writes it. Other variants of BullMQ
/// write no version or another format.
fn major_version(version: Option<&str>) -> Option<u32> {
    version?.strip_prefix("bullmq:")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_uses_the_lists_and_falls_back_to_the_version() {
        let lists = |waiting, paused| Lists { waiting: Some(waiting), paused: Some(paused) };
        let (v5, v6) = (PausedLayout::V5, PausedLayout::V6);
        for (version, [neither, waiting, paused, both]) in [
            (None, [v5, v6, v5, v6]),
            (Some("bullmq:5.81.5"), [v5, v6, v5, v5]),
            (Some("bullmq:6.7.0"), [v6, v6, v5, v6]),
            (Some("bullmq:10.0.0"), [v6, v6, v5, v6]),
            (Some("bullmq-pro:8.1.0"), [v5, v6, v5, v6]),
        ] {
            for (lists, expected) in [
                (lists(0, 0), neither),
                (lists(1, 0), waiting),
                (lists(0, 1), paused),
                (lists(1, 1), both),
            ] {
                let layout = PausedLayout::Auto.resolve(true, version, lists);
                assert_eq!(layout, expected, "{version:?}, {lists:?}");
                assert_eq!(
                    PausedLayout::Auto.resolve(false, version, lists),
                    neither,
                    "{version:?}"
                );
                assert_eq!(v6.resolve(true, version, lists), v6);
            }
        }
    }
}
