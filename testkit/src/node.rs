//! The official BullMQ library on the other side of the queue: `tests/bullmq`, which
//! `scripts/setup` installs.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::process::Process;
use super::redis::Redis;
use super::scratch::Scratch;
use super::wait::{until, until_some};

/// A BullMQ worker; killed on drop.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    _directory: Scratch,
}

impl Worker {
    /// Starts a worker on a queue with the prefix `bull` and waits until it is ready. Flags are
    /// those of `worker.mjs`.
    pub async fn start(redis: &Redis, queue: &str, flags: &[&str]) -> Self {
        let mut command = script("worker.mjs");
        command.args(flags);
        Self::start_as(command, redis, queue).await
    }

    /// Starts another program that writes the same reports.
    pub async fn start_as(mut command: Command, redis: &Redis, queue: &str) -> Self {
        let directory = Scratch::new("worker");
        command.args(["--redis", &redis.url(), "--queue", queue]);
        let process = Process::start("worker", &command, &directory.join("worker.log"));
        let worker = Self { process, _directory: directory };
        worker.reports("ready", 1).await;
        worker
    }

    /// Waits for this many reports of an event and returns all reports of that event so far, in
    /// order.
    pub async fn reports(&self, event: &str, count: usize) -> Vec<Value> {
        until_some(&format!("the worker reports {count} times {event}"), async || {
            assert!(
                self.process.exit_code().is_none(),
                "worker ended: {}",
                self.process.log_text()
            );
            let reports = self.reported(event);
            (reports.len() >= count).then_some(reports)
        })
        .await
    }

    /// Lets the worker finish its job and end; returns everything that it reported.
    pub async fn close(self) -> Closed {
        self.process.signal("TERM");
        assert_eq!(self.process.wait().await, 0, "{}", self.process.log_text());
        Closed { completed: self.reported("completed"), failed: self.reported("failed") }
    }

    fn reported(&self, event: &str) -> Vec<Value> {
        let log = self.process.log_text();
        // The last line may not be complete yet.
        let reports = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        reports.filter(|report| report["event"] == event).collect()
    }
}

/// What a worker reported until it ended.
#[derive(Debug)]
pub struct Closed {
    pub completed: Vec<Value>,
    pub failed: Vec<Value>,
}

/// Runs a command of `queue.mjs` on a queue with the prefix `bull`.
pub async fn queue(redis: &Redis, queue: &str, command: &[&str]) -> Value {
    run("queue.mjs", redis, queue, command).await
}

/// What bull-board shows of a queue: the answer of its API with the jobs of one state.
pub async fn board(redis: &Redis, queue: &str, state: &str) -> Value {
    run("board.mjs", redis, queue, &[state]).await
}

/// Waits until no job is waiting, active or delayed.
pub async fn idle(redis: &Redis, name: &str) {
    let queue = redis.queue_named("bull", name);
    // A worker that has nothing left also removes the marker.
    until("the queue is idle", async || {
        let mut left = 0;
        for (command, key) in
            [("LLEN", "wait"), ("LLEN", "active"), ("ZCARD", "delayed"), ("ZCARD", "marker")]
        {
            left += redis.query::<u64>(redis::cmd(command).arg(queue.key(key))).await;
        }
        left == 0
    })
    .await;
}

async fn run(name: &str, redis: &Redis, queue: &str, arguments: &[&str]) -> Value {
    let mut node = tokio::process::Command::from(script(name));
    node.args(arguments).args(["--redis", &redis.url(), "--queue", queue]);
    let output = node.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("node runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// A script of `tests/bullmq`.
pub fn script(name: &str) -> Command {
    let package = super::root().join("tests/bullmq");
    assert!(package.join("node_modules/bullmq5").is_dir(), "no BullMQ: run scripts/setup");
    let mut command = Command::new("node");
    command.arg(package.join(name));
    command
}
