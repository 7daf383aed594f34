//! What Redis says of itself, asked every second over a connection of its own.

use super::QueueSettings;
use super::link::Link;
use super::session::{CallError, Session};
use crate::lifecycle::{Condition, Reporter};
use crate::log_rate::LogRate;
use crate::metrics::{Metrics, RedisError};
use fred::types::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The oldest Redis that BullMQ recommends.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// Shedding that began over the watermark ends so far below it.
const HYSTERESIS: f64 = 0.05;

/// How long a refusal speaks for Redis where no jobs come after it.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);

/// Batches that fail for the same reason are told of once in so long.
const FAILURES_LOGGED: Duration = Duration::from_secs(10);

/// What the parts of the queue tell each other of Redis.
#[derive(Debug, Default)]
pub struct Health {
    is_shedding: AtomicBool,
    /// Those that jobs are sent over.
    links: Mutex<Vec<Link>>,
    /// Whether there is one, so that this is asked without a lock.
    has_refusal: AtomicBool,
    refusal: Mutex<Option<(Instant, Condition)>>,
    /// By kind, how often a batch that was not acknowledged is logged.
    failures: Mutex<HashMap<&'static str, LogRate>>,
}

impl Health {
    /// Whether Redis is so full that it is spared more jobs.
    pub(super) fn is_shedding(&self) -> bool {
        self.is_shedding.load(Ordering::Relaxed)
    }

    /// One more link that jobs are sent over.
    pub(super) fn add(&self, link: Link) {
        self.links().push(link);
    }

    pub(super) fn update(&self, ratio: f64, watermark: f64) {
        let was_shedding = self.is_shedding();
        let bound = if was_shedding { watermark - HYSTERESIS } else { watermark };
        let is_shedding = watermark > 0.0 && ratio > bound;
        self.is_shedding.store(is_shedding, Ordering::Relaxed);
        if is_shedding != was_shedding {
            tracing::warn!(ratio, is_shedding, "memory of Redis has crossed the watermark");
        }
    }

    /// What is to be said when jobs cannot be sent although Redis answers us here.
    fn lost_links(&self) -> Condition {
        let links = self.links();
        let lost: Vec<&Link> = links.iter().filter(|link| !link.is_up()).collect();
        let Some(first) = lost.first() else { return Condition::Ready };
        let note = format!(
            "{} of {} connections for jobs are lost: {}",
            lost.len(),
            links.len(),
            first.cause()
        );
        let are_all = lost.len() == links.len();
        if are_all { Condition::NotReady(note) } else { Condition::Degraded(vec![note]) }
    }

    /// Says that Redis has refused a batch, in these words.
    pub(super) fn jobs_refused(&self, text: &str) {
        self.set_refusal(Condition::NotReady(format!("refuses jobs: {text}")));
    }

    /// Says that a key of a job's name is held by something else, which concerns that job alone.
    pub(super) fn job_in_the_way(&self) {
        let note = "a key that a job needed is held by something else; look at the id of the queue";
        self.set_refusal(Condition::Degraded(vec![note.to_owned()]));
    }

    /// Whether one more batch that was not acknowledged for this reason is worth a line of the log.
    pub(super) fn may_log(&self, kind: RedisError) -> bool {
        let mut failures = lock(&self.failures);
        let rate = failures.entry(kind.word());
        rate.or_insert_with(|| LogRate::new(1, FAILURES_LOGGED)).allows()
    }

    /// Says that Redis has taken a batch.
    pub(super) fn jobs_taken(&self) {
        if self.has_refusal.swap(false, Ordering::Relaxed) {
            *lock(&self.refusal) = None;
        }
    }

    fn set_refusal(&self, condition: Condition) {
        *lock(&self.refusal) = Some((Instant::now(), condition));
        self.has_refusal.store(true, Ordering::Relaxed);
    }

    /// What the last batches say.
    fn last_refusal(&self) -> Condition {
        match &*lock(&self.refusal) {
            Some((at, condition)) if at.elapsed() < REFUSAL_HOLDS => condition.clone(),
            _ => Condition::Ready,
        }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        lock(&self.links)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the health and the condition of Redis current. Never ends.
pub async fn watch(
    settings: Arc<QueueSettings>,
    health: Arc<Health>,
    reporter: Reporter,
    metrics: Arc<Metrics>,
) {
    let mut link = Link::start(&settings);
    // The first verdict is not spoken while connections are being made.
    let soon = Instant::now() + settings.patience();
    let links = health.links().clone();
    for mut each in links {
        let _ = each.session(soon).await;
    }
    let mut ticks = tokio::time::interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let condition = match ask(&mut link, settings.patience()).await {
            Ok(state) => {
                health.update(state.memory_ratio(), settings.memory_watermark);
                state.show(&metrics);
                state.condition(&settings, health.is_shedding())
            }
            Err(condition) => condition,
        };
        let condition = condition.and(health.lost_links()).and(health.last_refusal());
        report(&reporter, condition, &link.server());
    }
}

fn report(reporter: &Reporter, condition: Condition, server: &str) {
    if !reporter.set(condition.clone()) {
        return;
    }
    match condition {
        Condition::Ready => tracing::info!(server, "Redis is ready"),
        Condition::Degraded(notes) => {
            let notes = notes.join("; ");
            tracing::warn!(server, notes, "Redis is ready, but something is worth a look");
        }
        Condition::NotReady(reason) => tracing::warn!(server, reason, "Redis is not ready"),
    }
}

/// What `INFO` says, and the configuration that it does not tell.
#[derive(Debug, Default)]
pub(super) struct State {
    info: HashMap<String, String>,
    /// What is missing may not be asked.
    config: HashMap<String, String>,
}

/// The keys of Redis' configuration that are asked for.
const CONFIG: [&str; 3] = ["save", "stop-writes-on-bgsave-error", "min-replicas-to-write"];

/// What Redis says, or what it means that it does not.
async fn ask(link: &mut Link, patience: Duration) -> Result<State, Condition> {
    match link.session(Instant::now() + patience).await {
        Some(session) => State::ask(&session, patience).await,
        None => Err(no_answer(&link.cause())),
    }
}

fn no_answer(cause: &str) -> Condition {
    Condition::NotReady(format!("does not answer: {cause}"))
}

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

    fn show(&self, metrics: &Metrics) {
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
