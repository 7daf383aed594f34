//! What a look at Redis finds, for `hookgate check --connect`. Nothing is written.

use super::health::Health;
use super::limits::Limits;
use super::probe;
use super::reason::reason;
use super::replicas::Replicas;
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
pub async fn survey(settings: &QueueSettings, max_body: usize) -> Findings {
    let mut findings = Findings::default();
    match Session::open(settings).await {
        Ok((session, driver)) => {
            findings.fact("server", session.server());
            let mut survey = Survey { settings, session: &session, findings: &mut findings };
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
        let asked = Rights::excess(self.session, self.settings);
        let excess = self.reply("EVAL", asked).await.flatten().unwrap_or_default();
        self.excess_rights(&excess);
        // A right that is missed says more than the refusal that follows from it.
        if self.findings.are_good() {
            self.jobs().await;
        }
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
        let known = state.as_ref();
        let text = |key: &str| known.and_then(|state| state.text(key));
        let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok());
        let save = known.and_then(|state| state.config("save"));
        self.findings.fact("software", known.and_then(State::software));
        self.findings.fact("version", known.and_then(State::version));
        self.findings.fact("mode", known.and_then(State::mode));
        self.findings.fact("role", text("role"));
        let replicas = known.map(State::replicas);
        self.findings.fact("replicas", replicas.and_then(Replicas::connected));
        self.findings.fact(
            "replicas_in_sync",
            replicas.and_then(|replicas| replicas.connected().map(|_| replicas.in_sync())),
        );
        self.findings.fact("maxmemory_bytes", number("maxmemory"));
        self.findings.fact("used_memory_bytes", number("used_memory"));
        self.findings.fact("maxmemory_policy", text("maxmemory_policy"));
        self.findings.fact("append_only_file", text("aof_enabled").map(|text| text == "1"));
        self.findings.fact("save", save);
        let Some(state) = &state else { return };
        if save.is_none() {
            self.findings.note(
                "may not be asked for CONFIG GET: whether Redis makes snapshots, and how large a job may be, are not known; that writes are refused shows all the same",
            );
        }
        let health = Health::default();
        health.update(state.memory_ratio(), self.settings.memory_watermark);
        self.findings.condition(state.condition(self.settings, health.is_shedding()));
    }

    /// Whether Redis takes what the service does.
    async fn limits(&mut self, max_body: usize) {
        let limits = tokio::time::timeout(LIMIT, Limits::ask(self.session)).await;
        let Ok(Some(limits)) = limits else { return };
        let QueueSettings { max_matches, max_fanout_bytes, .. } = *self.settings;
        for warning in limits.warnings(max_body, max_matches, max_fanout_bytes) {
            self.findings.warning(warning);
        }
    }

    /// What is in the queue, and where jobs would go if it were paused.
    async fn queue(&mut self) {
        let [wait, paused, meta, _, _, _, active] = self.settings.queue.script_keys();
        let fields = ["version", "paused"].map(Value::from_static_str);
        let words = std::iter::once(Value::from(meta)).chain(fields).collect();
        let found: Option<(Option<String>, Option<String>)> = self.ask("HMGET", words).await;
        let lists = Lists { waiting: self.length(wait).await, paused: self.length(paused).await };
        let jobs_active = self.length(active).await;
        let is_paused = found.as_ref().map(|(_, paused)| paused.is_some());
        let version = found.and_then(|(version, _)| version);
        let setting = self.settings.paused_layout;
        let layout = is_paused.map(|is_paused| setting.of(is_paused, version.as_deref(), lists));
        if let Some(doubt) = is_paused.and_then(|is| lists.doubt(setting, is, version.as_deref())) {
            self.findings.warning(doubt);
        }
        self.findings.fact("bullmq_version", version);
        self.findings.fact("queue_is_paused", is_paused);
        self.findings.fact("paused_layout", layout.map(PausedLayout::word));
        self.findings.fact("jobs_waiting", lists.waiting);
        self.findings.fact("jobs_on_paused_list", lists.paused);
        self.findings.fact("jobs_active", jobs_active);
    }

    /// Whether jobs would be refused, for whatever reason there is.
    async fn jobs(&mut self) {
        let asked = probe::ask(self.session, self.settings);
        if let Some(condition) = self.reply("EVAL", asked).await {
            self.findings.condition(condition);
        }
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

    fn excess_rights(&mut self, excess: &[String]) {
        if !excess.is_empty() {
            let excess = excess.join(", ");
            self.findings.warning(format!(
                "this user has more rights than adding jobs takes, such as {excess}: who gets its password reads and changes more than this queue; docs/operating/redis.md lists the rights that are enough"
            ));
        }
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
                let details = error.details();
                let advice = probe::advice(details);
                self.findings.fault(format!("{name} is refused: {details}{advice}"));
            }
            Ok(Err(CallError::NotSent | CallError::Lost)) | Err(_) => {
                self.session.give_up();
                self.findings.fault(format!("no reply to {name}"));
            }
        }
        None
    }
}

/// How many jobs are on the lists of a queue, as far as is known.
#[derive(Debug, Clone, Copy)]
struct Lists {
    waiting: Option<u64>,
    paused: Option<u64>,
}

impl Lists {
    /// A warning if Hookgate cannot tell which BullMQ release will resume the queue.
    fn doubt(
        self,
        setting: PausedLayout,
        is_paused: bool,
        version: Option<&str>,
    ) -> Option<&'static str> {
        match (is_paused, self.waiting? > 0, self.paused? > 0) {
            (false, _, true) => Some(
                "jobs were left on the list of a pause that is over: resume the queue again, until jobs_on_paused_list is 0",
            ),
            _ if setting != PausedLayout::Auto => None,
            (true, true, true) => Some(
                "both lists of the paused queue have jobs, so that release 5 of BullMQ and others seem to share it: set queue.paused_layout to \"v5\" if 5 resumes it, else to \"v6\"",
            ),
            (true, false, false) if major(version).is_none() => Some(
                "the paused queue is empty, and its meta.version does not tell the release: jobs go where 5 looks for them; set queue.paused_layout to \"v6\" if it is Python or Node 6",
            ),
            _ => None,
        }
    }
}

impl PausedLayout {
    /// What `auto` comes to. As in `add_jobs.lua`, where it is told why.
    fn of(self, is_paused: bool, version: Option<&str>, lists: Lists) -> Self {
        let Self::Auto = self else { return self };
        // Before there is a pause the lists do not tell who will make it.
        let [waits, is_put_by] =
            [lists.waiting, lists.paused].map(|jobs| is_paused && jobs > Some(0));
        let is_v6 = match major(version) {
            Some(major) if waits == is_put_by => major >= 6,
            _ => waits,
        };
        if is_v6 { Self::V6 } else { Self::V5 }
    }
}

/// Of a release of BullMQ for Node, as `meta.version` has it. Others write none, or something else.
fn major(version: Option<&str>) -> Option<u32> {
    version?.strip_prefix("bullmq:")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_goes_by_the_lists_and_by_the_version_where_they_do_not_tell() {
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
                let layout = PausedLayout::Auto.of(true, version, lists);
                assert_eq!(layout, expected, "{version:?}, {lists:?}");
                assert_eq!(PausedLayout::Auto.of(false, version, lists), neither, "{version:?}");
                assert_eq!(v6.of(true, version, lists), v6);
            }
        }
    }
}
