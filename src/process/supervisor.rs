//! Critical tasks: if one exits early or panics, the process exits.
//!
//! A process without one of its parts is worse than none. After its exit, the service manager
//! restarts it, and callers see a lost connection. A panic in a request or on a connection ends
//! only that request or connection.

use crate::process::failpoint;
use futures_util::FutureExt;
use std::fmt;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use tokio::sync::mpsc;

/// Supervises the critical tasks of all threads.
#[derive(Debug, Clone)]
pub struct Supervisor {
    failures: mpsc::Sender<TaskFailure>,
}

/// A critical task that has exited early or panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct TaskFailure {
    name: &'static str,
    has_panicked: bool,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, has_panicked } = self;
        let how = if *has_panicked { "panicked" } else { "exited" };
        write!(formatter, "critical task {name:?} {how}")
    }
}

/// Receives failures of critical tasks. One is kept at a time; others are dropped.
#[derive(Debug)]
pub struct TaskFailures(mpsc::Receiver<TaskFailure>);

impl TaskFailures {
    /// Waits for the next failure.
    pub async fn next(&mut self) -> TaskFailure {
        match self.0.recv().await {
            Some(failure) => failure,
            // All supervisors are gone, so no task can fail any more.
            None => std::future::pending().await,
        }
    }
}

impl Supervisor {
    pub fn new() -> (Self, TaskFailures) {
        // One failure is enough to end the process.
        let (failures, receiver) = mpsc::channel(1);
        (Self { failures }, TaskFailures(receiver))
    }

    /// Spawns a critical task that must never end, on the current runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.clone().keep(name, task));
    }

    /// Runs a critical task that must never end.
    pub async fn keep(self, name: &'static str, task: impl Future<Output = ()>) {
        let has_panicked = !ends_without_panic(name, task).await;
        self.report(TaskFailure { name, has_panicked });
    }

    /// Runs a critical task that may end, but must not panic.
    pub async fn watch(self, name: &'static str, task: impl Future<Output = ()>) {
        if !ends_without_panic(name, task).await {
            self.report(TaskFailure { name, has_panicked: true });
        }
    }

    fn report(&self, failure: TaskFailure) {
        // If the channel is full, another failure is already reported. If it is closed, the process
        // is ending.
        let _ = self.failures.try_send(failure);
    }
}

/// Runs a task to its end. Returns whether it ended without a panic.
async fn ends_without_panic(name: &'static str, task: impl Future<Output = ()>) -> bool {
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
    async fn a_panic_and_the_end_of_an_endless_task_are_reported() {
        let (supervisor, mut failures) = Supervisor::new();
        supervisor.clone().watch("work", async {}).await;
        supervisor.clone().keep("endless", async {}).await;
        assert_eq!(failures.next().await, TaskFailure { name: "endless", has_panicked: false });
        supervisor.clone().watch("work", async { panic!("a fault") }).await;
        assert_eq!(failures.next().await, TaskFailure { name: "work", has_panicked: true });
        drop(supervisor);
        let next = failures.next().now_or_never();
        assert_eq!(next, None);
    }
}
