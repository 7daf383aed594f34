//! The releases of BullMQ that Hookgate's jobs must be compatible with.

use std::process::Command;

use super::calls::{Calls, PYTHON};
use super::node::Worker;
use super::python::python;
use super::redis::Redis;

/// A release of an official library, with its worker, `pause()` and `resume()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Official {
    /// The release in this package of `tests/bullmq/package.json`, for Node.
    Node(&'static str),
    Python,
}

pub const NODE_6: Official = Official::Node("bullmq");
pub const NODE_5: Official = Official::Node("bullmq5");
/// The oldest supported release.
pub const NODE_5_12: Official = Official::Node("bullmq512");

impl Official {
    pub const ALL: [Self; 4] = [NODE_6, NODE_5, NODE_5_12, Self::Python];

    /// Starts a worker. Flags are those of `worker.mjs`; Python has only `--fail-first`.
    pub async fn worker(self, redis: &Redis, queue: &str, flags: &[&str]) -> Worker {
        match self {
            Self::Node(package) => {
                Worker::start(redis, queue, &[&["--bullmq", package], flags].concat()).await
            }
            Self::Python => {
                let mut command = script();
                command.arg("work").args(flags);
                Worker::start_as(command, redis, queue).await
            }
        }
    }

    /// Runs `pause` or `resume` as a dashboard or a script does: opens the queue, calls the method,
    /// closes.
    pub async fn run_method(self, calls: &mut Calls, redis: &Redis, queue: &str, what: &str) {
        let package = match self {
            Self::Node(package) => package,
            Self::Python => PYTHON,
        };
        calls.queue(package, redis, queue).manage(what).await;
    }
}

/// The Python process for [`Calls`].
pub fn python_calls() -> Command {
    let mut command = script();
    command.arg("calls");
    command
}

fn script() -> Command {
    let mut command = python("python");
    command.arg(super::root().join("tests/bullmq/python.py"));
    command
}
