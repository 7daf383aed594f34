//! Work on files, any call of which may hang: a network file system whose server is away answers none, and no signal ends it.
//!
//! While the process serves, all of it runs here, on threads of its own and with a time limit. For each path that is asked for,
//! one piece of work is under way at a time, so that one thread at the most hangs for it, also where the work reads other
//! files. Until that thread returns, the path counts as unreadable. A file that several paths lead to may hang a thread for each.

use crate::failpoint;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
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

/// Like [`run`], with another limit. The limit holds for the work alone; as long again the work may wait for earlier work on the
/// same path, which says nothing of the file.
pub async fn run_within<R: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let access = Access::to(path);
    let turn = access.turn(limit).await?;
    let working = Working { access: Arc::clone(&access), _turn: turn };
    let working = tokio::task::spawn_blocking(move || working.run(work));
    match tokio::time::timeout(limit, working).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(io::Error::other("the runtime has ended")),
        },
        Err(_) => Err(access.hang()),
    }
}

/// The file that does not answer, if that is what an error is about.
pub fn unanswered(error: &io::Error) -> Option<&Path> {
    let NoAnswer(file) = error.get_ref()?.downcast_ref()?;
    Some(file)
}

/// A file that does not answer.
#[derive(Debug)]
struct NoAnswer(PathBuf);

impl std::error::Error for NoAnswer {}

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} does not answer", self.0.display())
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

    /// Waits until no other call is under way, unless that one takes too long.
    async fn turn(&self, limit: Duration) -> io::Result<Turn> {
        let turn = Arc::clone(&self.turn);
        if self.hangs.load(Ordering::Acquire) {
            return turn.try_lock_owned().map_err(|_| self.no_answer());
        }
        let waiting = tokio::time::timeout(limit, turn.lock_owned()).await;
        waiting.map_err(|_| self.no_answer())
    }

    /// Notes that the call takes too long.
    fn hang(&self) -> io::Error {
        if !self.hangs.swap(true, Ordering::AcqRel) {
            let file = self.entered().display().to_string();
            tracing::warn!(file, "file does not answer; it counts as unreadable until it does");
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
        io::Error::new(io::ErrorKind::TimedOut, NoAnswer(self.entered().clone()))
    }

    fn entered(&self) -> MutexGuard<'_, PathBuf> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make a call.
type Turn = tokio::sync::OwnedMutexGuard<()>;

/// A call under way. It keeps the turn until the call returns or panics, also when nobody waits for it any more.
struct Working {
    access: Arc<Access>,
    _turn: Turn,
}

impl Working {
    fn run<R>(self, work: impl FnOnce() -> R) -> R {
        CURRENT.set(Some(Arc::clone(&self.access)));
        work()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.access.answer();
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
    async fn a_file_that_is_slow_for_another_does_not_hang() {
        let path = Path::new("/a/slow/file/of/two");
        let (release, held) = mpsc::channel::<()>();
        let slow = tokio::spawn(run(path, move || held.recv()));
        tokio::task::yield_now().await;
        let waiting = run_within(SHORT, path, || panic!("a second call is made")).await;
        waiting.unwrap_err();
        // The next one waits for its turn, since the first call has not taken too long.
        let next = tokio::spawn(run(path, || 2));
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        slow.await.unwrap().unwrap().unwrap();
        assert_eq!(next.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_is_passed_on_and_leaves_nothing_behind() {
        let path = Path::new("/a/file/with/a/panic");
        let working = tokio::spawn(run(path, || panic!("of the work")));
        let panic = working.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"of the work"));
        assert_eq!(run(path, || 2).await.unwrap(), 2);
        // Also when it takes too long: the call has returned all the same.
        let (release, held) = mpsc::channel::<()>();
        let late = move || held.recv().map(|()| panic!("late"));
        let late: io::Result<Result<(), _>> = run_within(SHORT, path, late).await;
        assert_eq!(unanswered(&late.unwrap_err()), Some(path));
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
