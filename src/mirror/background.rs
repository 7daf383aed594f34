//! Work that would keep the other tasks of the thread waiting for too long.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

/// Runs work on a thread of its own, also when nobody waits for it any more. A panic there is one here.
///
/// The thread is none of tokio's: names that are looked up and files that are read may hang all of those.
pub(super) async fn background<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, done) = oneshot::channel();
    let run = move || drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
    let (give, take) = mpsc::channel();
    let thread = thread::Builder::new().name("background".to_owned());
    match thread.spawn(move || take.recv().map(|run: Run| run())) {
        Ok(_) => drop(give.send(Box::new(run) as Run)),
        // The system has no thread left, but tokio may.
        Err(_) => drop(tokio::task::spawn_blocking(run)),
    }
    match done.await {
        Ok(Ok(done)) => done,
        Ok(Err(panic)) => resume_unwind(panic),
        // The runtime has ended.
        Err(_) => std::future::pending().await,
    }
}

type Run = Box<dyn FnOnce() + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_while_all_threads_of_the_runtime_hang() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let done = runtime.block_on(async {
            let hanging = tokio::task::spawn_blocking(move || held.recv());
            let done = background(|| 1).await;
            release.send(()).unwrap();
            hanging.await.unwrap().unwrap();
            done
        });
        assert_eq!(done, 1);
    }

    #[tokio::test]
    async fn a_panic_is_passed_on() {
        let working = tokio::spawn(background(|| panic!("of the work")));
        let panic = working.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"of the work"));
    }
}
