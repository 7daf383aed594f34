//! What Redis says of itself, asked every second over a connection of its own.

use super::QueueSettings;
use super::limits::{Excess, KnownLimits, Limits};
use super::link::Link;
use super::probe;
use super::replicas::Written;
use super::rights::Rights;
use super::session::{CallError, Session};
use super::state::State;
use crate::lifecycle::{Condition, Reporter};
use crate::log_rate::LogRate;
use crate::metrics::{Metrics, RedisError};
use crate::supervisor::Supervisor;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Shedding that began over the watermark ends so far below it, and organizations that start most are refused from there on.
const HYSTERESIS: f64 = 0.05;

/// How long a refusal speaks for Redis where no jobs come after it.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);

/// A server that was the primary is asked again for so long: by then another one is, or it will not be so soon.
const FIRST_MOMENTS: Duration = Duration::from_secs(10);

/// Batches that fail for the same reason are told of once in so long.
const FAILURES_LOGGED: Duration = Duration::from_secs(10);

/// What the parts of the queue tell each other of Redis.
#[derive(Debug, Default)]
pub struct Health {
    is_shedding: AtomicBool,
    is_near_watermark: AtomicBool,
    /// Those that jobs are sent over.
    links: Mutex<Vec<Link>>,
    /// Whether there is one, so that this is asked without a lock.
    has_refusal: AtomicBool,
    refusal: Mutex<Option<(Instant, Condition)>>,
    /// Since when the server takes no writes, and no batch was taken.
    read_only_since: Mutex<Option<Instant>>,
    pub(super) limits: KnownLimits,
    written: Mutex<Written>,
    /// By kind, how often a batch that was not acknowledged is logged.
    failures: Mutex<HashMap<&'static str, LogRate>>,
}

impl Health {
    /// Whether Redis is so full that it is spared more jobs.
    pub(super) fn is_shedding(&self) -> bool {
        self.is_shedding.load(Ordering::Relaxed)
    }

    /// Whether Redis is nearly as full as that.
    pub(super) fn is_near_watermark(&self) -> bool {
        self.is_near_watermark.load(Ordering::Relaxed)
    }

    /// One more link that jobs are sent over.
    pub(super) fn add(&self, link: Link) {
        self.links().push(link);
    }

    pub(super) fn update(&self, ratio: f64, watermark: f64) {
        let was_shedding = self.is_shedding();
        let is_near = watermark > 0.0 && ratio > watermark - HYSTERESIS;
        self.is_near_watermark.store(is_near, Ordering::Relaxed);
        let is_shedding = is_near && (was_shedding || ratio > watermark);
        self.is_shedding.store(is_shedding, Ordering::Relaxed);
        if is_shedding != was_shedding {
            tracing::warn!(ratio, is_shedding, "memory of Redis has crossed the watermark");
        }
    }

    /// What Redis comes to by what it says, and by what we may do there.
    async fn ask(
        &self,
        session: &Session,
        settings: &QueueSettings,
        metrics: &Metrics,
    ) -> Condition {
        if let Ok(Some(limits)) =
            tokio::time::timeout(settings.patience(), Limits::ask(session)).await
        {
            self.limits.set(limits);
        }
        let condition = match State::ask(session, settings.patience()).await {
            Ok(mut state) => {
                state.compare_replicas(&mut lock(&self.written));
                self.update(state.memory_ratio(), settings.memory_watermark);
                state.show(metrics);
                state.condition(settings, self.is_shedding())
            }
            Err(condition) => condition,
        };
        condition.and(Self::ask_about_jobs(session, settings).await)
    }

    /// Whether jobs would be refused: by what this user may do, and by what becomes of a call that has none.
    async fn ask_about_jobs(session: &Session, settings: &QueueSettings) -> Condition {
        let asking = async {
            match Rights::ask(session, settings).await?.condition() {
                // It says more than the refusal that follows from it would.
                refused @ Condition::NotReady(_) => Ok(refused),
                other => Ok(other.and(probe::ask(session, settings).await?)),
            }
        };
        match tokio::time::timeout(settings.patience(), asking).await {
            Ok(Ok(condition)) => condition,
            Ok(Err(CallError::Refused(error))) => {
                Condition::NotReady(format!("refuses EVAL: {}", error.details()))
            }
            // The reason is that of the link.
            Ok(Err(CallError::Lost)) => no_answer("connection lost"),
            // That it does not answer is told by what was asked before or will be asked next.
            Ok(Err(CallError::NotSent)) | Err(_) => Condition::Ready,
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

    /// Says that a request is larger than Redis takes, which concerns that request alone.
    pub(super) fn request_too_large(&self, excess: Excess) {
        let Excess { setting, bytes, max_bytes } = excess;
        if self.may_log(RedisError::TooLarge) {
            tracing::warn!(
                setting,
                bytes,
                max_bytes,
                "request exceeds a limit of Redis; raise this setting of Redis or lower server.max_body"
            );
        } else {
            tracing::debug!(setting, bytes, max_bytes, "request refused: larger than Redis takes");
        }
    }

    /// Says that the server takes no writes; answers whether it may be so only until there is another primary.
    pub(super) fn refuses_for_moments(&self) -> bool {
        self.has_refusal.store(true, Ordering::Relaxed);
        let mut since = lock(&self.read_only_since);
        since.get_or_insert_with(Instant::now).elapsed() < FIRST_MOMENTS
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
            *lock(&self.read_only_since) = None;
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

/// Logs which rights this user has that adding jobs does not take; answers whether Redis has told.
async fn log_excess(session: &Session, settings: &QueueSettings) -> bool {
    let asking = Rights::excess(session, settings);
    let Ok(Ok(excess)) = tokio::time::timeout(settings.patience(), asking).await else {
        return false;
    };
    if let Some(rights) = excess.filter(|excess| !excess.is_empty()) {
        let (server, rights) = (session.server(), rights.join(", "));
        tracing::warn!(server, rights, "this user of Redis has more rights than adding jobs takes");
    }
    true
}

/// Keeps the health and the condition of Redis current. Never ends.
pub async fn watch(
    settings: Arc<QueueSettings>,
    health: Arc<Health>,
    reporter: Reporter,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
) {
    let mut link = Link::start(&settings, &supervisor);
    // The first verdict is not spoken while connections are being made.
    let soon = Instant::now() + settings.patience();
    let links = health.links().clone();
    for mut each in links {
        let _ = each.session(soon).await;
    }
    let mut ticks = tokio::time::interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_logged_excess = false;
    loop {
        ticks.tick().await;
        let condition = match link.session(Instant::now() + settings.patience()).await {
            Some(session) => {
                has_logged_excess = has_logged_excess || log_excess(&session, &settings).await;
                health.ask(&session, &settings, &metrics).await
            }
            None => no_answer(&link.cause()),
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

pub(super) fn no_answer(cause: &str) -> Condition {
    Condition::NotReady(format!("does not answer: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shedding_ends_well_below_the_watermark() {
        let health = Health::default();
        for (ratio, is_shedding) in
            [(0.89, false), (0.91, true), (0.86, true), (0.84, false), (0.86, false)]
        {
            health.update(ratio, 0.9);
            assert_eq!(health.is_shedding(), is_shedding, "{ratio}");
            assert_eq!(health.is_near_watermark(), ratio > 0.85, "{ratio}");
        }
        health.update(2.0, 0.0);
        assert!(!health.is_shedding() && !health.is_near_watermark());
    }
}
