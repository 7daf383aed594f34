//! Work that would block the other tasks of the thread for too long.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

/// Runs work on its own thread, to its end even if this future is dropped. A panic of the work
/// continues in the caller.
///
/// The thread is not one of tokio's blocking threads, because name lookups and file reads that
/// hang may occupy all of those.
pub(super) async fn background<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    #[cfg(test)]
    if simulated::IS_SIMULATED.get() {
        return simulated::background(work).await;
    }
    let (sender, result) = oneshot::channel();
    let run = move || drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
    // The work goes through a channel, so that it is not lost if the thread cannot be spawned.
    let (jobs, job) = mpsc::channel();
    let thread = thread::Builder::new().name("background".to_owned());
    match thread.spawn(move || job.recv().map(|run: Run| run())) {
        Ok(_) => drop(jobs.send(Box::new(run) as Run)),
        // The system refuses another thread, but tokio may have an idle one.
        Err(_) => drop(tokio::task::spawn_blocking(run)),
    }
    match result.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        // The runtime has shut down.
        Err(_) => std::future::pending().await,
    }
}

type Run = Box<dyn FnOnce() + Send>;

#[cfg(test)]
pub(in crate::mirror) mod simulated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_while_all_threads_of_the_runtime_hang() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let result = runtime.block_on(async {
            let hanging = tokio::task::spawn_blocking(move || released.recv());
            let result = background(|| 1).await;
            release.send(()).unwrap();
            hanging.await.unwrap().unwrap();
            result
        });
        assert_eq!(result, 1);
    }

    #[tokio::test]
    async fn a_panic_continues_in_the_caller() {
        let working = tokio::spawn(background(|| panic!("of the work")));
        let panic = working.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"of the work"));
    }
}
