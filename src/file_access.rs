//! Work on files, any call of which may hang: a network file system whose server is away answers none, and no signal ends it.
//!
//! While the process serves, all of it runs here, on threads of its own and with a time limit. For each file one call is made
//! at a time, so that one thread at the most hangs for it. Until that one returns, the file counts as unreadable.

use crate::failpoint;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a call may take before its file counts as unreadable.
const LIMIT: Duration = Duration::from_secs(10);

/// Files that were worked on, by the path under which that was asked for.
static FILES: Mutex<BTreeMap<PathBuf, Arc<Access>>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// What this thread works for.
    static CURRENT: RefCell<Option<Arc<Access>>> = const { RefCell::new(None) };
}

/// Runs work on a file, and on others that belong to it. An error says that the file does not answer.
pub async fn run<R: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    run_within(LIMIT, path, work).await
}

/// Likewise, for work that may take longer or must not.
pub async fn run_within<R: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let access = Access::to(path);
    match tokio::time::timeout(limit, access.run(work)).await {
        Ok(done) => done,
        Err(_) => Err(access.hang()),
    }
}

/// Says which file is worked on next, before each call that may hang.
pub fn enter(path: &Path) {
    CURRENT.with_borrow(|current| {
        if let Some(access) = current {
            path.clone_into(&mut access.entered());
        }
    });
    failpoint::hold(path);
}

#[derive(Debug)]
struct Access {
    /// Held by the call that is under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The file that this call works on.
    entered: Mutex<PathBuf>,
    /// Whether this call has taken too long.
    hangs: AtomicBool,
}

impl Access {
    fn to(path: &Path) -> Arc<Self> {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let entered = Mutex::new(path.to_owned());
            Arc::new(Self { turn: Arc::default(), entered, hangs: AtomicBool::new(false) })
        };
        Arc::clone(files.entry(path.to_owned()).or_insert_with(new))
    }

    async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let turn = Arc::clone(&self.turn);
        let turn = if self.hangs.load(Ordering::Acquire) {
            turn.try_lock_owned().map_err(|_| self.no_answer())?
        } else {
            turn.lock_owned().await
        };
        let access = Arc::clone(self);
        // The turn goes with the work: it is given back when the call returns, whoever still waits for it.
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            CURRENT.set(Some(Arc::clone(&access)));
            let done = work();
            CURRENT.set(None);
            access.answer();
            done
        });
        working.await.map_err(|_| io::Error::other("panicked"))
    }

    /// Notes that the call takes too long.
    fn hang(&self) -> io::Error {
        if !self.hangs.swap(true, Ordering::AcqRel) {
            let file = self.entered().display().to_string();
            tracing::warn!(file, "file does not answer, it counts as unreadable");
        }
        self.no_answer()
    }

    /// Notes that the call has returned.
    fn answer(&self) {
        if self.hangs.swap(false, Ordering::AcqRel) {
            let file = self.entered().display().to_string();
            tracing::info!(file, "file answers again");
        }
    }

    fn no_answer(&self) -> io::Error {
        let message = format!("{} does not answer", self.entered().display());
        io::Error::new(io::ErrorKind::TimedOut, message)
    }

    fn entered(&self) -> MutexGuard<'_, PathBuf> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_file_that_hangs_has_one_thread_and_works_again() {
        let path = Path::new("/a/file/that/hangs");
        let (release, held) = mpsc::channel::<()>();
        let hanging = move || {
            enter(Path::new("/another/file"));
            held.recv()
        };
        let error = run_within(SHORT, path, hanging).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "/another/file does not answer");
        // Nothing is started for it, and nobody waits: the limit is one that would never be reached.
        let not_started = || panic!("a second call is made");
        let error = run_within(Duration::MAX, path, not_started).await.unwrap_err();
        assert_eq!(error.to_string(), "/another/file does not answer");
        assert_eq!(run(Path::new("/another/file"), || 1).await.unwrap(), 1);
        release.send(()).unwrap();
        while run(path, || 2).await.ok() != Some(2) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_starts_nothing() {
        let path = Path::new("/a/slow/file");
        let (release, held) = mpsc::channel::<()>();
        let slow = tokio::spawn(run(path, move || held.recv()));
        tokio::task::yield_now().await;
        let waiting = run_within(SHORT, path, || panic!("a second call is made")).await;
        assert_eq!(waiting.unwrap_err().kind(), io::ErrorKind::TimedOut);
        release.send(()).unwrap();
        slow.await.unwrap().unwrap().unwrap();
        assert_eq!(run(path, || 2).await.unwrap(), 2);
    }
}
