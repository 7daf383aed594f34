//! Tasks without which the process is of no use: where one of them ends before its time, so does the process.
//!
//! Half a service is worse than none. Whoever started the process starts it again, and callers whose connection ends
//! know what that means. A panic in a request or on a connection costs no more than that.

use crate::failpoint;
use futures_util::FutureExt;
use std::fmt;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use tokio::sync::mpsc;

/// Watches over tasks on all threads.
#[derive(Debug, Clone)]
pub struct Supervisor {
    failures: mpsc::Sender<Failure>,
}

/// A task that has ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    name: &'static str,
    has_panicked: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, has_panicked } = self;
        let how = if *has_panicked { "panicked" } else { "ended" };
        write!(formatter, "nothing goes without the task {name:?}, and it has {how}")
    }
}

/// The first failure of each, as they happen.
#[derive(Debug)]
pub struct Failures(mpsc::Receiver<Failure>);

impl Failures {
    /// Waits for the next one.
    pub async fn next(&mut self) -> Failure {
        match self.0.recv().await {
            Some(failure) => failure,
            // Nobody is left who could fail.
            None => std::future::pending().await,
        }
    }
}

impl Supervisor {
    pub fn new() -> (Self, Failures) {
        // One is enough to end the process.
        let (failures, receiver) = mpsc::channel(1);
        (Self { failures }, Failures(receiver))
    }

    /// Starts a task that has no end, on the runtime of the caller.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.clone().keep(name, task));
    }

    /// Runs a task that has no end.
    pub async fn keep(self, name: &'static str, task: impl Future<Output = ()>) {
        let has_panicked = !runs_to_its_end(name, task).await;
        self.tell(Failure { name, has_panicked });
    }

    /// Runs a task that ends when its work is done.
    pub async fn watch(self, name: &'static str, task: impl Future<Output = ()>) {
        if !runs_to_its_end(name, task).await {
            self.tell(Failure { name, has_panicked: true });
        }
    }

    fn tell(&self, failure: Failure) {
        // Full: another one has been told already. Closed: the process is ending.
        let _ = self.failures.try_send(failure);
    }
}

/// Whether it has ended without a panic.
async fn runs_to_its_end(name: &'static str, task: impl Future<Output = ()>) -> bool {
    let mut task = pin!(task);
    let task = poll_fn(|context| {
        failpoint::pass(name);
        task.as_mut().poll(context)
    });
    AssertUnwindSafe(task).catch_unwind().await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_so_is_the_end_of_what_has_none() {
        let (supervisor, mut failures) = Supervisor::new();
        supervisor.clone().watch("work", async {}).await;
        supervisor.clone().keep("endless", async {}).await;
        assert_eq!(failures.next().await, Failure { name: "endless", has_panicked: false });
        supervisor.clone().watch("work", async { panic!("a fault") }).await;
        assert_eq!(failures.next().await, Failure { name: "work", has_panicked: true });
        drop(supervisor);
        let nobody = failures.next().now_or_never();
        assert_eq!(nobody, None);
    }
}
