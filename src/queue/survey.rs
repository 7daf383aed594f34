//! What a look at Redis finds, for `hookgate check --connect`. Nothing is written.

use super::health::{Health, State};
use super::link::readable;
use super::session::{CallError, Session};
use super::{PausedLayout, QueueSettings};
use crate::findings::Findings;
use fred::types::{FromValue, Value};
use std::time::Duration;
use tokio::time::Instant;

/// How long one call may take: a person waits for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Calls whose median is the round trip.
const ROUND_TRIPS: usize = 11;

const RIGHTS: &str = include_str!("rights.lua");

/// Rights that are missed by nobody at once, because the script goes on without them.
const SILENT: [(&str, &str); 4] = [
    ("ZADD", "waiting workers are not woken, and see jobs seconds later"),
    ("XADD", "nobody is told of jobs that were added"),
    ("PEXPIRE", "a server that is no longer the primary may be believed"),
    ("DEL", "jobs of a request that is answered 503 may stay"),
];

/// Asks Redis what it is, what is in the queue, and whether jobs could be added.
pub async fn survey(settings: &QueueSettings) -> Findings {
    let mut findings = Findings::default();
    match Session::open(settings).await {
        Ok((session, driver)) => {
            findings.fact("server", session.server());
            Survey { settings, session: &session, findings: &mut findings }.run().await;
            drop(driver);
        }
        Err(error) => {
            findings.fact("server", settings.servers());
            findings.fault(format!("does not answer: {}", readable(error.details())));
        }
    }
    findings
}

struct Survey<'a> {
    settings: &'a QueueSettings,
    session: &'a Session,
    findings: &'a mut Findings,
}

impl Survey<'_> {
    async fn run(&mut self) {
        self.server().await;
        self.queue().await;
        self.rights().await;
        self.round_trip().await;
    }

    /// What Redis says of itself, and what the service would say to that.
    async fn server(&mut self) {
        let state = match State::ask(self.session, LIMIT).await {
            Ok(state) => Some(state),
            Err(condition) => {
                self.findings.condition(condition);
                None
            }
        };
        let text = |key: &str| state.as_ref().map(|state| state.text(key));
        let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok());
        let save = state.as_ref().and_then(|state| state.config("save"));
        self.findings.fact("mode", text("redis_mode"));
        self.findings.fact("version", text("redis_version"));
        self.findings.fact("role", text("role"));
        self.findings.fact("replicas", number("connected_slaves"));
        self.findings.fact("maxmemory_bytes", number("maxmemory"));
        self.findings.fact("used_memory_bytes", number("used_memory"));
        self.findings.fact("maxmemory_policy", text("maxmemory_policy"));
        self.findings.fact("append_only_file", text("aof_enabled").map(|text| text == "1"));
        self.findings.fact("save", save);
        let Some(state) = &state else { return };
        if save.is_none() {
            let note = "may not be asked for CONFIG GET: snapshots, and why writes are refused, are not known";
            self.findings.warning(note);
        }
        let health = Health::default();
        health.update(state.memory_ratio(), self.settings.memory_watermark);
        self.findings.condition(state.condition(self.settings, health.is_shedding()));
    }

    /// What is in the queue, and where jobs would go if it were paused.
    async fn queue(&mut self) {
        let [wait, paused, meta, _, _, _, active] = self.settings.queue.script_keys();
        let fields = ["version", "paused"].map(Value::from_static_str);
        let words = std::iter::once(Value::from(meta)).chain(fields).collect();
        let found: Option<(Option<String>, Option<String>)> = self.ask("HMGET", words).await;
        let jobs_waiting = self.length(wait).await;
        let jobs_paused = self.length(paused).await;
        let jobs_active = self.length(active).await;
        let is_paused = found.as_ref().map(|(_, paused)| paused.is_some());
        let layout = found.as_ref().map(|(version, _)| {
            self.settings.paused_layout.of(version.as_deref(), jobs_paused != Some(0)).word()
        });
        self.findings.fact("bullmq_version", found.and_then(|(version, _)| version));
        self.findings.fact("queue_is_paused", is_paused);
        self.findings.fact("paused_layout", layout);
        self.findings.fact("jobs_waiting", jobs_waiting);
        self.findings.fact("jobs_on_paused_list", jobs_paused);
        self.findings.fact("jobs_active", jobs_active);
    }

    async fn length(&mut self, list: String) -> Option<u64> {
        self.ask("LLEN", vec![Value::from(list)]).await
    }

    async fn rights(&mut self) {
        let queue = &self.settings.queue;
        let records = [queue.producer_key("check"), queue.idempotency_prefix() + "check"];
        let job = queue.job_prefix() + "1";
        let waits_for_replicas = if self.settings.wait_replicas > 0 { "1" } else { "0" };
        let mut words = [RIGHTS, "0"].map(Value::from_static_str).to_vec();
        let keys = queue.script_keys().into_iter().chain(records).chain([job]);
        words.extend(keys.map(Value::from));
        words.push(Value::from_static_str(waits_for_replicas));
        let reply = self.ask::<Value>("EVAL", words).await;
        if reply.as_ref().is_some_and(Value::is_null) {
            self.findings.warning("cannot be asked for rights before version 7.0");
        }
        let reply = reply.filter(|reply| !reply.is_null());
        let missing: Option<Vec<String>> = reply.and_then(|reply| reply.convert().ok());
        for right in missing.iter().flatten() {
            let silent =
                SILENT.into_iter().find(|(command, _)| right.split(' ').next() == Some(command));
            let effect = silent.map_or("jobs are refused", |(_, effect)| effect);
            self.findings.fault(format!("this user may not {right}: {effect}"));
        }
        self.findings.fact("missing_rights", missing);
    }

    async fn round_trip(&mut self) {
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            if self.ask::<Value>("TIME", Vec::new()).await.is_some() {
                times.push(begun.elapsed());
            }
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).map(Duration::as_micros);
        self.findings.fact("round_trip_us", median.and_then(|median| u64::try_from(median).ok()));
    }

    /// The reply to a call. That there is none is a fault.
    async fn ask<T: FromValue>(&mut self, name: &'static str, words: Vec<Value>) -> Option<T> {
        // Once is enough to say that it is gone.
        if self.session.is_given_up() {
            return None;
        }
        match tokio::time::timeout(LIMIT, self.session.call(name, words)).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(CallError::Refused(error))) => {
                self.findings.fault(format!("{name} is refused: {}", error.details()));
            }
            Ok(Err(CallError::NotSent | CallError::Lost)) | Err(_) => {
                self.session.give_up();
                self.findings.fault(format!("no reply to {name}"));
            }
        }
        None
    }
}

impl PausedLayout {
    /// What `auto` comes to. As in `add_jobs.lua`, where it is told why.
    fn of(self, version: Option<&str>, has_paused_list: bool) -> Self {
        let Self::Auto = self else { return self };
        let major = version.and_then(|version| version.strip_prefix("bullmq:")?.split_once('.'));
        let major = major.and_then(|(major, _)| major.parse::<u32>().ok());
        if major.is_some_and(|major| major >= 6) && !has_paused_list { Self::V6 } else { Self::V5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_script_is_among_the_rights() {
        let script = include_str!("add_jobs.lua");
        let calls = script.match_indices("call('").chain(script.match_indices("try('"));
        let mut count = 0;
        for (at, start) in calls {
            let command = script[at + start.len()..].split('\'').next().unwrap();
            assert!(RIGHTS.contains(&format!("{{'{command}'")), "{command}");
            count += 1;
        }
        assert!(count > 15, "only {count} calls were found: is the script still read?");
    }

    #[test]
    fn auto_goes_by_the_version_and_by_the_list() {
        for (version, has_list, expected) in [
            (None, false, PausedLayout::V5),
            (Some("bullmq:5.81.5"), false, PausedLayout::V5),
            (Some("bullmq:6.7.0"), false, PausedLayout::V6),
            (Some("bullmq:6.7.0"), true, PausedLayout::V5),
            (Some("bullmq:10.0.0"), false, PausedLayout::V6),
            (Some("somebody's"), false, PausedLayout::V5),
        ] {
            assert_eq!(PausedLayout::Auto.of(version, has_list), expected, "{version:?}");
        }
        assert_eq!(PausedLayout::V6.of(None, true), PausedLayout::V6);
    }
}
