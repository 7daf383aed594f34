//! Writing snapshots: when, by which process, and what is reported about them.

use crate::files::file_access;
use crate::mirror::freshness::Freshness;
use crate::mirror::snapshot::{Contents, replaced_file};
use crate::process::lifecycle::{Condition, Reporter};
use metrics::Gauge;
use parking_lot::{Mutex, MutexGuard};
use std::io::{self, BufWriter};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The time between two snapshots. The first is written as soon as every mirror is current.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often the keeper checks whether every mirror is current, whether another process has
/// released the lock, and how old the last snapshot is.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A snapshot older than this is reported.
const LONGEST_AGE: Duration = Duration::from_secs(300);

/// Writes snapshots while the process runs.
#[derive(Debug)]
pub struct Keeper {
    contents: Contents,
    /// The freshness of the mirrors. A snapshot is written only while all of them are current.
    freshness: Vec<Arc<Freshness>>,
    reporter: Reporter,
    /// The age of the last snapshot in seconds.
    age_gauge: Gauge,
    state: Mutex<KeeperState>,
}

#[derive(Debug)]
struct KeeperState {
    /// When the last snapshot was taken. The start of this process if there is none.
    taken_at: Instant,
    /// Why the last attempt failed.
    problem: Option<String>,
}

impl Keeper {
    /// `taken_at` is the time of the snapshot that was found at the start.
    pub fn new(
        contents: Contents,
        freshness: Vec<Arc<Freshness>>,
        reporter: Reporter,
        age_gauge: Gauge,
        taken_at: Option<SystemTime>,
    ) -> Self {
        reporter.set(Condition::Ready);
        let age = taken_at.and_then(|taken_at| taken_at.elapsed().ok()).unwrap_or_default();
        let now = Instant::now();
        let taken_at = now.checked_sub(age).unwrap_or(now);
        let state = Mutex::new(KeeperState { taken_at, problem: None });
        Self { contents, freshness, reporter, age_gauge, state }
    }

    /// Writes a snapshot every minute. Never returns.
    ///
    /// A write that hangs, as it may on a network file system, is reported like one that fails.
    pub async fn keep(self) {
        tokio::join!(self.write_repeatedly(), self.report_repeatedly());
    }

    async fn write_repeatedly(&self) {
        // Never dropped. Closing the file may hang too, and the thread that ends the process would
        // do it. The end of the process releases the lock.
        let _lock = ManuallyDrop::new(self.lock().await);
        loop {
            while !self.freshness.iter().all(|each| each.can_confirm_miss()) {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
            let taken_at = Instant::now();
            let contents = self.contents.clone();
            let written = on_file(self.file(), move || write(&contents)).await;
            self.record(written.map_err(anyhow::Error::from).flatten().map(|()| taken_at));
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until no other process writes to the same file. A file that cannot be locked is
    /// written without a lock: not every file system has locks, and a file is replaced as a whole.
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
                        tracing::warn!(file = %self.file().display(), "{problem}; this process writes none");
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
                *state = KeeperState { taken_at, problem: None };
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(file = %file.display(), error, "snapshot not written");
                state.problem = Some(error);
            }
        }
    }

    async fn report_repeatedly(&self) {
        loop {
            self.report();
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn report(&self) {
        let KeeperState { taken_at, problem } = &*self.state();
        let age = taken_at.elapsed();
        self.age_gauge.set(age.as_secs_f64());
        let old = (age > LONGEST_AGE).then(|| {
            let longest = humantime::format_duration(LONGEST_AGE);
            format!("no snapshot has been written for more than {longest}")
        });
        let notes = old.into_iter().chain(problem.clone()).collect();
        self.reporter.set(Condition::from_notes(notes));
    }

    fn file(&self) -> &Path {
        &self.contents.file
    }

    fn state(&self) -> MutexGuard<'_, KeeperState> {
        self.state.lock()
    }
}

fn write(contents: &Contents) -> anyhow::Result<()> {
    replaced_file::replace(&contents.file, |file| {
        contents.write(BufWriter::new(file), SystemTime::now())
    })
}

/// Runs file work within a limit. A write to a slow disk may take minutes; after the limit, the
/// last snapshot is old anyway.
async fn on_file<R: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    file_access::run_within(LONGEST_AGE, path, work).await
}
