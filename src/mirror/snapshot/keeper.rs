//! When a snapshot is written, by which process, and what is reported of it.

use super::{Contents, replaced_file};
use crate::file_access;
use crate::lifecycle::{Condition, Reporter};
use crate::mirror::Freshness;
use metrics::Gauge;
use std::io::{self, BufWriter};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Between two files; the first one is written as soon as everything is loaded.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often is checked whether everything is loaded, and whether the other process has let go of the lock.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Beyond this age a snapshot is reported as old.
const OLD: Duration = Duration::from_secs(300);

/// Writes snapshots for as long as the process lives.
#[derive(Debug)]
pub struct Keeper {
    contents: Contents,
    /// A snapshot is written while all of these are current.
    freshness: Vec<Arc<Freshness>>,
    reporter: Reporter,
    /// Seconds since the last snapshot was taken.
    age: Gauge,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the last snapshot was taken, or this process began where there is none.
    taken_at: Instant,
    /// Why the last attempt failed.
    problem: Option<String>,
}

impl Keeper {
    /// `taken_at`: of the snapshot that was found at the start.
    pub fn new(
        contents: Contents,
        freshness: Vec<Arc<Freshness>>,
        reporter: Reporter,
        age: Gauge,
        taken_at: Option<SystemTime>,
    ) -> Self {
        reporter.set(Condition::Ready);
        let found = taken_at.and_then(|taken_at| taken_at.elapsed().ok()).unwrap_or_default();
        let now = Instant::now();
        let taken_at = now.checked_sub(found).unwrap_or(now);
        let state = Mutex::new(State { taken_at, problem: None });
        Self { contents, freshness, reporter, age, state }
    }

    /// Writes a snapshot every minute. Never ends.
    ///
    /// A write that hangs, as on a network file system, is reported like one that fails.
    pub async fn keep(self) {
        tokio::join!(self.write_often(), self.report_often());
    }

    async fn write_often(&self) {
        // Never dropped: to close a file may hang as well, and this would be done by the thread that ends the process, which gives
        // the lock back by its end.
        let _lock = ManuallyDrop::new(self.lock().await);
        loop {
            while !self.freshness.iter().all(|each| each.can_deny()) {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
            let taken_at = Instant::now();
            let contents = self.contents.clone();
            let written = on_file(self.file(), move || write(&contents)).await;
            self.record(written.map_err(anyhow::Error::from).flatten().map(|()| taken_at));
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until no other process writes to the same file. One that cannot be locked is written to nevertheless:
    /// not every file system has locks, and a file is replaced as a whole.
    async fn lock(&self) -> Option<replaced_file::Lock> {
        let mut is_logged = false;
        loop {
            let path = self.contents.file.clone();
            match on_file(self.file(), move || replaced_file::lock(&path)).await {
                Err(hangs) => self.state().problem = Some(hangs.to_string()),
                Ok(Ok(Some(lock))) => return Some(lock),
                Ok(Ok(None)) => {
                    let problem = "another process keeps its snapshots in the same file";
                    if !is_logged {
                        tracing::warn!(file = %self.file().display(), "{problem}; none is written here");
                    }
                    is_logged = true;
                    self.state().problem = Some(problem.to_owned());
                }
                Ok(Err(error)) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "snapshots are written without a lock");
                    return None;
                }
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn record(&self, written: anyhow::Result<Instant>) {
        let (file, mut state) = (self.file(), self.state());
        match written {
            Ok(taken_at) => {
                tracing::debug!(file = %file.display(), "snapshot written");
                *state = State { taken_at, problem: None };
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(file = %file.display(), error, "snapshot not written");
                state.problem = Some(error);
            }
        }
    }

    async fn report_often(&self) {
        loop {
            self.report();
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn report(&self) {
        let State { taken_at, problem } = &*self.state();
        let age = taken_at.elapsed();
        self.age.set(age.as_secs_f64());
        let old = (age > OLD).then(|| {
            let old = humantime::format_duration(OLD);
            format!("no snapshot has been written for more than {old}")
        });
        let notes: Vec<String> = old.into_iter().chain(problem.clone()).collect();
        self.reporter.set(if notes.is_empty() {
            Condition::Ready
        } else {
            Condition::Degraded(notes)
        });
    }

    fn file(&self) -> &Path {
        &self.contents.file
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(contents: &Contents) -> anyhow::Result<()> {
    replaced_file::replace(&contents.file, |file| {
        contents.write(BufWriter::new(file), SystemTime::now())
    })
}

/// A write to a slow disk may take minutes; when it takes longer, the last snapshot is old.
async fn on_file<R: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    file_access::run_within(OLD, path, work).await
}
