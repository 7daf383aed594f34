//! What a look at Redis finds, for `hookgate check --connect`. Nothing is written.

use super::health::Health;
use super::link::readable;
use super::rights::Rights;
use super::session::{CallError, Session};
use super::state::State;
use super::{PausedLayout, QueueSettings};
use crate::findings::Findings;
use fred::types::{FromValue, Value};
use std::time::Duration;
use tokio::time::Instant;

/// How long one call may take: a person waits for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Calls whose median is the round trip.
const ROUND_TRIPS: usize = 11;

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
        let asked = Rights::ask(self.session, self.settings);
        let rights = self.reply("EVAL", asked).await;
        self.rights(rights.as_ref());
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

    /// Any that is missing keeps a promise from being kept, whether jobs are refused for it or not.
    fn rights(&mut self, rights: Option<&Rights>) {
        let missing = rights.and_then(|rights| rights.missing.clone());
        if rights.is_some() && missing.is_none() {
            self.findings
                .warning("does not tell this user's rights: Redis does from version 7.0 on");
        }
        for (sentence, _) in rights.into_iter().flat_map(Rights::sentences) {
            self.findings.fault(sentence);
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

    async fn ask<T: FromValue>(&mut self, name: &'static str, words: Vec<Value>) -> Option<T> {
        let call = self.session.call(name, words);
        self.reply(name, call).await
    }

    /// The reply to a call. That there is none is a fault.
    async fn reply<T>(
        &mut self,
        name: &str,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Option<T> {
        // Once is enough to say that it is gone.
        if self.session.is_given_up() {
            return None;
        }
        match tokio::time::timeout(LIMIT, call).await {
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
