//! Readiness, the stages of stopping, and signals.

use parking_lot::Mutex;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;

/// How often a part that waits for the others checks their conditions.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The condition that one part of the program reports of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// The part serves, but has problems. Each note describes one.
    Degraded(Vec<String>),
    NotReady(String),
}

impl Condition {
    /// Ready without notes, degraded with some.
    pub fn from_notes(notes: Vec<String>) -> Self {
        if notes.is_empty() { Self::Ready } else { Self::Degraded(notes) }
    }

    /// Merges two conditions of one part: the worse one, with the notes of both if both are
    /// degraded.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::NotReady(reason), _) | (_, Self::NotReady(reason)) => Self::NotReady(reason),
            (Self::Degraded(mut notes), Self::Degraded(more)) => {
                notes.extend(more);
                Self::Degraded(notes)
            }
            (Self::Ready, other) | (other, Self::Ready) => other,
        }
    }
}

/// Whether the process is ready for requests: the conditions of all its parts.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
    /// What [`Self::is_ready`] returns. It is set with each condition, so that reading it costs the
    /// workers no lock.
    is_ready: Arc<AtomicBool>,
}

/// A part and what it reports.
#[derive(Debug)]
struct Part {
    condition: Condition,
    /// The group of parts of which one that works is enough.
    group: Option<&'static str>,
    has_reported: bool,
}

impl Part {
    /// Whether it keeps the process from being ready. A part of a group does not if another one of
    /// the group works, except before its first report: it may be about to work.
    fn is_blocking(&self, parts: &BTreeMap<String, Self>) -> bool {
        if !matches!(self.condition, Condition::NotReady(_)) {
            return false;
        }
        let Some(group) = self.group.filter(|_| self.has_reported) else { return true };
        let mut others = parts.values().filter(|part| part.group == Some(group));
        others.all(|part| matches!(part.condition, Condition::NotReady(_)))
    }
}

/// A problem that a part reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub part: String,
    pub text: String,
    /// Whether it keeps the process from being ready.
    pub is_blocking: bool,
}

/// The answer of `/readyz`.
#[derive(Debug, serde::Serialize)]
pub struct ReadinessReport {
    pub ready: bool,
    pub reasons: Vec<String>,
    pub degraded: Vec<String>,
}

impl Readiness {
    /// Adds a part, which counts as not ready until it reports another condition.
    pub fn part(&self, name: &str) -> Reporter {
        self.add(name.to_owned(), None)
    }

    /// Adds a part that is one of a group. Of those that have reported, one that is ready is enough
    /// for the process to be ready; it is then degraded by those that are not.
    pub fn part_of_group(&self, group: &'static str, name: String) -> Reporter {
        self.add(name, Some(group))
    }

    fn add(&self, name: String, group: Option<&'static str>) -> Reporter {
        let condition = Condition::NotReady("not started".to_owned());
        let part = Part { condition, group, has_reported: false };
        let mut parts = self.parts.lock();
        parts.insert(name.clone(), part);
        self.summarize(&parts);
        drop(parts);
        Reporter { readiness: self.clone(), name: name.into() }
    }

    /// Each part, and whether it is degraded.
    pub fn degraded(&self) -> Vec<(String, bool)> {
        let parts = self.parts.lock();
        let is_degraded = |part: &Part| match part.condition {
            Condition::Ready => false,
            Condition::Degraded(_) => true,
            Condition::NotReady(_) => !part.is_blocking(&parts),
        };
        parts.iter().map(|(name, part)| (name.clone(), is_degraded(part))).collect()
    }

    /// Whether [`Self::report`] says that the process is ready.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    fn summarize(&self, parts: &BTreeMap<String, Part>) {
        let is_ready = !parts.values().any(|part| part.is_blocking(parts));
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }

    /// All problems, by part.
    pub fn problems(&self) -> Vec<Problem> {
        let parts = self.parts.lock();
        let mut problems = Vec::new();
        for (name, part) in parts.iter() {
            let is_blocking = part.is_blocking(&parts);
            let texts = match &part.condition {
                Condition::Ready => Vec::new(),
                Condition::Degraded(notes) => notes.clone(),
                Condition::NotReady(reason) if is_blocking => vec![reason.clone()],
                Condition::NotReady(reason) => vec![format!("not ready: {reason}")],
            };
            let problem = |text| Problem { part: name.clone(), text, is_blocking };
            problems.extend(texts.into_iter().map(problem));
        }
        problems
    }

    pub fn report(&self) -> ReadinessReport {
        let (reasons, degraded): (Vec<Problem>, Vec<Problem>) =
            self.problems().into_iter().partition(|problem| problem.is_blocking);
        let lines = |problems: Vec<Problem>| {
            problems
                .into_iter()
                .map(|Problem { part, text, .. }| format!("{part}: {text}"))
                .collect()
        };
        ReadinessReport {
            ready: reasons.is_empty(),
            reasons: lines(reasons),
            degraded: lines(degraded),
        }
    }
}

/// Reports the condition of one part.
#[derive(Debug, Clone)]
pub struct Reporter {
    readiness: Readiness,
    name: Arc<str>,
}

impl Reporter {
    /// Sets the condition of the part. Returns whether it has changed.
    pub fn set(&self, condition: Condition) -> bool {
        let mut parts = self.readiness.parts.lock();
        let Some(part) = parts.get_mut(&*self.name) else { return false };
        part.has_reported = true;
        let is_new = part.condition != condition;
        part.condition = condition;
        self.readiness.summarize(&parts);
        is_new
    }

    /// Waits until every other part is ready.
    pub async fn others_ready(&self) {
        while !self.are_others_ready() {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn are_others_ready(&self) -> bool {
        let parts = self.readiness.parts.lock();
        let mut others = parts.iter().filter(|(name, _)| **name != *self.name);
        others.all(|(_, part)| !part.is_blocking(&parts))
    }
}

/// The stage of stopping that the process has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    /// All callers are served, and are asked to connect elsewhere.
    LameDuck,
    /// New connections are not accepted. Open ones finish the requests that they have begun.
    Draining,
    /// Connections that are still open are dropped.
    Aborting,
}

/// Announces the stages of stopping to the parts that watch them.
#[derive(Debug)]
pub struct Shutdown {
    stage: watch::Sender<Stage>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Serving) }
    }
}

impl Shutdown {
    pub fn enter(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub fn watch(&self) -> Stopping {
        Stopping { stage: self.stage.subscribe() }
    }
}

/// Observes the stage of stopping.
#[derive(Debug, Clone)]
pub struct Stopping {
    stage: watch::Receiver<Stage>,
}

impl Stopping {
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits for a stage after this one, and returns it.
    pub async fn beyond(&mut self, stage: Stage) -> Stage {
        let next = self.stage.wait_for(|now| *now > stage).await;
        // An error means that the sender is gone, because the process is ending.
        next.map_or(Stage::Aborting, |next| *next)
    }

    /// Waits until this stage has begun.
    pub async fn reached(&mut self, stage: Stage) {
        // An error means that the sender is gone, because the process is ending.
        let _ = self.stage.wait_for(|now| *now >= stage).await;
    }
}

/// Signals that are ignored. Their default action ends the process, and none of them is a request
/// to stop.
const IGNORED: [Signal; 7] = [
    Signal::ALARM,
    Signal::IO,
    Signal::PROF,
    Signal::USR1,
    Signal::USR2,
    Signal::VTALARM,
    // If it is ignored, a write beyond the limit of file sizes fails instead of ending the process.
    Signal::XFSZ,
];

/// All signals that the process handles, from the moment at which the handlers are installed.
#[derive(Debug)]
pub struct Signals {
    pub stop: StopSignals,
    /// SIGHUP: a request to reload the configuration.
    pub hangups: unix::Signal,
}

impl Signals {
    /// Installs the handlers. Must be called within a runtime. A signal that arrives before it is
    /// awaited is not lost.
    pub fn new() -> std::io::Result<Self> {
        for ignored in IGNORED {
            // The handler stays installed after its stream is dropped.
            drop(signal(SignalKind::from_raw(ignored.as_raw()))?);
        }
        Ok(Self { stop: StopSignals::new()?, hangups: signal(SignalKind::hangup())? })
    }
}

/// SIGTERM, SIGINT and SIGQUIT.
#[derive(Debug)]
pub struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_ready_once_every_part_is() {
        let readiness = Readiness::default();
        let redis = readiness.part("redis");
        let index = readiness.part("index");
        assert!(!readiness.report().ready);
        redis.set(Condition::Ready);
        index.set(Condition::Degraded(vec!["stale".to_owned()]));
        let report = readiness.report();
        assert!(report.ready && readiness.is_ready());
        assert_eq!(report.degraded, ["index: stale"]);
        let degraded = [("index".to_owned(), true), ("redis".to_owned(), false)];
        assert_eq!(readiness.degraded(), degraded);
        assert!(!redis.set(Condition::Ready));
        assert!(redis.set(Condition::NotReady("gone".to_owned())));
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report().reasons, ["redis: gone"]);
        assert!(redis.are_others_ready() && !index.are_others_ready());
    }

    #[test]
    fn one_part_of_a_group_is_enough() {
        let readiness = Readiness::default();
        let own = readiness.part("process");
        let [a, b] =
            ["queue (a)", "queue (b)"].map(|name| readiness.part_of_group("q", name.to_owned()));
        let gone = || Condition::NotReady("gone".to_owned());
        a.set(Condition::Ready);
        assert!(!own.are_others_ready(), "the other one has not reported yet");
        b.set(gone());
        own.set(Condition::Ready);
        let report = readiness.report();
        assert!(report.ready && own.are_others_ready());
        assert!(readiness.is_ready());
        assert_eq!(report.degraded, ["queue (b): not ready: gone"]);
        let is_degraded: Vec<bool> = readiness.degraded().into_iter().map(|(_, is)| is).collect();
        assert_eq!(is_degraded, [false, false, true]);
        a.set(Condition::Degraded(vec!["slow".to_owned()]));
        assert_eq!(readiness.report().degraded, ["queue (a): slow", "queue (b): not ready: gone"]);
        a.set(gone());
        let report = readiness.report();
        assert!(!report.ready && !readiness.is_ready());
        assert_eq!(report.reasons, ["queue (a): gone", "queue (b): gone"]);
        assert_eq!(report.degraded, [""; 0]);
        assert!(readiness.degraded().iter().all(|(_, is_degraded)| !is_degraded));
    }

    #[test]
    fn a_merge_keeps_the_worse_condition() {
        let degraded = |note: &str| Condition::Degraded(vec![note.to_owned()]);
        let not_ready = || Condition::NotReady("gone".to_owned());
        assert_eq!(Condition::Ready.merge(Condition::Ready), Condition::Ready);
        assert_eq!(Condition::Ready.merge(degraded("a")), degraded("a"));
        assert_eq!(degraded("a").merge(not_ready()), not_ready());
        let both = Condition::Degraded(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(degraded("a").merge(degraded("b")), both);
    }
}
