//! Readiness, the tasks of the process, and how it is asked to stop.

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;

/// How often a part that waits for the others looks at them.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What one part of the program says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// Serves, but something is worth a look.
    Degraded(Vec<String>),
    NotReady(String),
}

impl Condition {
    /// The worse of two conditions of one part, or the notes of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
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

/// Whether the process may be sent traffic: the conditions of all its parts.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Condition>>>,
}

/// What `/readyz` answers.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    pub ready: bool,
    pub reasons: Vec<String>,
    pub degraded: Vec<String>,
}

impl Readiness {
    /// Adds a part, which is not ready until it says so.
    pub fn part(&self, name: &'static str) -> Reporter {
        let reporter = Reporter { readiness: self.clone(), name };
        reporter.set(Condition::NotReady("not started".to_owned()));
        reporter
    }

    /// Each part, and whether it is degraded.
    pub fn degraded(&self) -> Vec<(&'static str, bool)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_degraded = |condition: &Condition| matches!(condition, Condition::Degraded(_));
        parts.iter().map(|(name, condition)| (*name, is_degraded(condition))).collect()
    }

    pub fn report(&self) -> Report {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = Report { ready: true, reasons: Vec::new(), degraded: Vec::new() };
        for (name, condition) in parts.iter() {
            match condition {
                Condition::Ready => {}
                Condition::Degraded(notes) => {
                    report.degraded.extend(notes.iter().map(|note| format!("{name}: {note}")));
                }
                Condition::NotReady(reason) => {
                    report.ready = false;
                    report.reasons.push(format!("{name}: {reason}"));
                }
            }
        }
        report
    }
}

/// The voice of one part.
#[derive(Debug, Clone)]
pub struct Reporter {
    readiness: Readiness,
    name: &'static str,
}

impl Reporter {
    /// Says how it is now, and answers whether that is new.
    pub fn set(&self, condition: Condition) -> bool {
        let mut parts = self.readiness.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = parts.get(self.name) != Some(&condition);
        parts.insert(self.name, condition);
        is_new
    }

    /// Waits until every other part is ready.
    pub async fn others_ready(&self) {
        while !self.are_others_ready() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn are_others_ready(&self) -> bool {
        let parts = self.readiness.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = parts.iter().filter(|(name, _)| **name != self.name);
        others.all(|(_, condition)| !matches!(condition, Condition::NotReady(_)))
    }
}

/// How far the process has got with stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    /// Everybody is served, and told to go elsewhere.
    Leaving,
    /// No new connections; those there are finish what they have begun.
    Draining,
    /// What is still there is dropped.
    Cut,
}

/// Takes those who watch it from stage to stage.
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

/// Tells how far the process has got with stopping.
#[derive(Debug, Clone)]
pub struct Stopping {
    stage: watch::Receiver<Stage>,
}

impl Stopping {
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits for a stage behind this one, and answers which it is.
    pub async fn beyond(&mut self, stage: Stage) -> Stage {
        let next = self.stage.wait_for(|now| *now > stage).await;
        // Whoever could tell is gone: so is the process.
        next.map_or(Stage::Cut, |next| *next)
    }

    /// Waits until this stage has begun.
    pub async fn reached(&mut self, stage: Stage) {
        // As above.
        let _ = self.stage.wait_for(|now| *now >= stage).await;
    }
}

/// Signals that end a process by default though nobody means that: they are ignored.
const MEANINGLESS: [Signal; 7] = [
    Signal::ALARM,
    Signal::IO,
    Signal::PROF,
    Signal::USR1,
    Signal::USR2,
    Signal::VTALARM,
    // With it gone, a file that may not grow further is an error of the one write.
    Signal::XFSZ,
];

/// All signals that the process knows, from the moment at which they are taken over.
#[derive(Debug)]
pub struct Signals {
    pub stop: StopSignals,
    /// SIGHUP: the configuration is to be read again.
    pub hangups: unix::Signal,
}

impl Signals {
    /// Takes the signals over; must be called within a runtime. What comes before anybody waits is not lost.
    pub fn new() -> std::io::Result<Self> {
        for meaningless in MEANINGLESS {
            // The handler stays when nobody listens.
            drop(signal(SignalKind::from_raw(meaningless.as_raw()))?);
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

    /// Waits for the next one and answers its name.
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
    fn every_part_must_be_ready() {
        let readiness = Readiness::default();
        let redis = readiness.part("redis");
        let index = readiness.part("index");
        assert!(!readiness.report().ready);
        redis.set(Condition::Ready);
        index.set(Condition::Degraded(vec!["stale".to_owned()]));
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(report.degraded, ["index: stale"]);
        assert_eq!(readiness.degraded(), [("index", true), ("redis", false)]);
        assert!(!redis.set(Condition::Ready));
        assert!(redis.set(Condition::NotReady("gone".to_owned())));
        assert_eq!(readiness.report().reasons, ["redis: gone"]);
        assert!(redis.are_others_ready() && !index.are_others_ready());
    }

    #[test]
    fn the_worse_condition_counts() {
        let degraded = |note: &str| Condition::Degraded(vec![note.to_owned()]);
        let not_ready = || Condition::NotReady("gone".to_owned());
        assert_eq!(Condition::Ready.and(Condition::Ready), Condition::Ready);
        assert_eq!(Condition::Ready.and(degraded("a")), degraded("a"));
        assert_eq!(degraded("a").and(not_ready()), not_ready());
        let both = Condition::Degraded(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(degraded("a").and(degraded("b")), both);
    }
}
