//! The official BullMQ library on the other side of the queue: `tests/bullmq`, which `scripts/setup` installs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

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
    /// On a queue with the prefix `bull`; waits until it is ready. Flags are those of `worker.mjs`.
    pub async fn start(redis: &Redis, queue: &str, flags: &[&str]) -> Self {
        let directory = Scratch::new("worker");
        let mut command = node("worker.mjs");
        command.args(["--redis", &redis.url(), "--queue", queue]).args(flags);
        let process = Process::start("worker", &command, &directory.join("worker.log"));
        let worker = Self { process, _directory: directory };
        worker.reports("ready", 1).await;
        worker
    }

    /// Waits for this many reports of an event and gives all of that event so far, in order.
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

    /// Lets it finish its job and end; gives everything that it reported.
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
    queue_with_input(redis, queue, command, "").await
}

/// [`queue`] for `add-bulk`: the official `Queue.addBulk`. Jobs have the public names of their options.
pub async fn add_bulk(redis: &Redis, name: &str, flags: &[&str], jobs: &[Value]) -> Vec<String> {
    let lines: Vec<String> = jobs.iter().map(Value::to_string).collect();
    let added =
        queue_with_input(redis, name, &[&["add-bulk"], flags].concat(), &lines.join("\n")).await;
    let ids = added["ids"].as_array().expect("ids").iter();
    ids.map(|id| id.as_str().expect("an id is text").to_owned()).collect()
}

/// Waits until nothing waits, runs or is put off.
pub async fn idle(redis: &Redis, name: &str) {
    let queue = redis.queue_named("bull", name);
    until("the queue is idle", async || {
        let mut left = 0;
        for (command, key) in [("LLEN", "wait"), ("LLEN", "active"), ("ZCARD", "delayed")] {
            left += redis.query::<u64>(redis::cmd(command).arg(queue.key(key))).await;
        }
        left == 0
    })
    .await;
}

async fn queue_with_input(redis: &Redis, name: &str, command: &[&str], input: &str) -> Value {
    let mut node = tokio::process::Command::from(node("queue.mjs"));
    node.args(command).args(["--redis", &redis.url(), "--queue", name]);
    node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = node.spawn().expect("node");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let writing = async {
        // A command that fails at once reads nothing; what it says is below.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(writing, child.wait_with_output());
    let output = output.expect("node runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn node(script: &str) -> Command {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/bullmq");
    assert!(package.join("node_modules/bullmq").is_dir(), "no BullMQ: run scripts/setup");
    let mut command = Command::new("node");
    command.arg(package.join(script));
    command
}
