//! File access with a time limit, because any file call may hang: a network file system whose
//! server is unreachable never returns, and no signal interrupts the call.
//!
//! While the process serves, all file access runs here, on blocking threads and with a time limit.
//! Each path has at most one call in progress, so that a path hangs at most one thread, even if its
//! call also reads other files. Until that thread returns, the path counts as unreadable. A file
//! that is reached through several paths can hang one thread for each.

use crate::process::failpoint;
use parking_lot::{Mutex, MutexGuard};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time after which the file of a call counts as unreadable.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The files that were accessed, by the path that was requested.
static FILES: Mutex<BTreeMap<PathBuf, Arc<Access>>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The access that this thread works for.
    static CURRENT: RefCell<Option<Arc<Access>>> = const { RefCell::new(None) };
}

/// Runs `work`, which reads a file and possibly others that belong to it. An error means that the
/// file does not answer.
pub async fn run<R: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    run_within(TIME_LIMIT, path, work).await
}

/// Like [`run`], with another time limit. The limit applies to `work` alone. `work` may also wait
/// that long for an earlier call on the same path, because a slow earlier call does not mean that
/// the file hangs.
pub async fn run_within<R: Send + 'static>(
    limit: Duration,
    path: &Path,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let access = Access::of_path(path);
    let turn = access.turn(limit).await?;
    let call = FileCall { access: Arc::clone(&access), _turn: turn };
    let running = tokio::task::spawn_blocking(move || call.run(work));
    match tokio::time::timeout(limit, running).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(io::Error::other("the runtime has ended")),
        },
        Err(_) => Err(access.record_hang()),
    }
}

/// The file that does not answer, if that is what the error reports.
pub fn unanswered(error: &io::Error) -> Option<&Path> {
    let NoAnswer(file) = error.get_ref()?.downcast_ref()?;
    Some(file)
}

/// The error of a file that does not answer.
#[derive(Debug)]
struct NoAnswer(PathBuf);

impl std::error::Error for NoAnswer {}

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} does not answer", self.0.display())
    }
}

/// Records which file is accessed next. Must be called before each call that may hang.
pub fn enter(path: &Path) {
    CURRENT.with_borrow(|current| {
        if let Some(access) = current {
            path.clone_into(&mut access.entered());
        }
    });
    failpoint::hold(path);
}

/// The state of one path.
#[derive(Debug)]
struct Access {
    /// Held by the call in progress.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The file that this call accesses.
    entered: Mutex<PathBuf>,
    /// Whether this call has exceeded its time limit.
    hangs: AtomicBool,
}

impl Access {
    fn of_path(path: &Path) -> Arc<Self> {
        let mut files = FILES.lock();
        let new = || {
            let entered = Mutex::new(path.to_owned());
            Arc::new(Self { turn: Arc::default(), entered, hangs: AtomicBool::new(false) })
        };
        Arc::clone(files.entry(path.to_owned()).or_insert_with(new))
    }

    /// Waits until no other call is in progress. Fails if that call exceeds its time limit.
    async fn turn(&self, limit: Duration) -> io::Result<Turn> {
        let turn = Arc::clone(&self.turn);
        if self.hangs.load(Ordering::Acquire) {
            return turn.try_lock_owned().map_err(|_| self.no_answer());
        }
        let waiting = tokio::time::timeout(limit, turn.lock_owned()).await;
        waiting.map_err(|_| self.no_answer())
    }

    /// Records that the call has exceeded its time limit, and returns the error.
    fn record_hang(&self) -> io::Error {
        if !self.hangs.swap(true, Ordering::AcqRel) {
            let file = self.entered().display().to_string();
            tracing::warn!(file, "file access timed out; treated as unreadable until it responds");
        }
        self.no_answer()
    }

    /// Records that the call has returned.
    fn record_answer(&self) {
        if self.hangs.swap(false, Ordering::AcqRel) {
            let file = self.entered().display().to_string();
            tracing::info!(file, "file answers again");
        }
    }

    fn no_answer(&self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, NoAnswer(self.entered().clone()))
    }

    fn entered(&self) -> MutexGuard<'_, PathBuf> {
        self.entered.lock()
    }
}

/// The right to make a call on a path.
type Turn = tokio::sync::OwnedMutexGuard<()>;

/// A call in progress. It keeps the turn until the call returns or panics, even if nothing awaits
/// it any more.
struct FileCall {
    access: Arc<Access>,
    _turn: Turn,
}

impl FileCall {
    fn run<R>(self, work: impl FnOnce() -> R) -> R {
        CURRENT.set(Some(Arc::clone(&self.access)));
        work()
    }
}

impl Drop for FileCall {
    fn drop(&mut self) {
        CURRENT.set(None);
        self.access.record_answer();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_hanging_file_blocks_one_thread_and_recovers() {
        let path = Path::new("/a/file/that/hangs");
        let (release, held) = mpsc::channel::<()>();
        let hanging = move || {
            enter(Path::new("/another/file"));
            held.recv()
        };
        let error = run_within(SHORT, path, hanging).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "/another/file does not answer");
        // The next call fails at once and starts no work: its time limit is never reached.
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
    async fn a_wait_for_an_earlier_call_does_not_mark_the_file_as_hanging() {
        let path = Path::new("/a/slow/file/of/two");
        let (release, held) = mpsc::channel::<()>();
        let slow = tokio::spawn(run(path, move || held.recv()));
        tokio::task::yield_now().await;
        let waiting = run_within(SHORT, path, || panic!("a second call is made")).await;
        waiting.unwrap_err();
        // The next call waits for its turn, because the first call has not exceeded its time limit.
        let next = tokio::spawn(run(path, || 2));
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        slow.await.unwrap().unwrap().unwrap();
        assert_eq!(next.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_is_propagated_and_releases_the_turn() {
        let path = Path::new("/a/file/with/a/panic");
        let running = tokio::spawn(run(path, || panic!("in the work")));
        let panic = running.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"in the work"));
        assert_eq!(run(path, || 2).await.unwrap(), 2);
        // A call that panics after its time limit also releases the turn.
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
    async fn a_call_that_never_gets_its_turn_starts_no_work() {
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
