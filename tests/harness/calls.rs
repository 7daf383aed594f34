//! Many calls of the official Node library's `Queue` in one process: `calls.mjs`.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::node::script;
use super::redis::Redis;

/// Ends when it is dropped, and with the test process, since its input ends.
#[derive(Debug)]
pub struct Calls {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _node: Child,
}

impl Calls {
    pub fn start() -> Self {
        let mut command = tokio::process::Command::from(script("calls.mjs"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut node = command.spawn().expect("node");
        let input = node.stdin.take().expect("its input is a pipe");
        let output = node.stdout.take().expect("its output is a pipe");
        Self { input, output: BufReader::new(output).lines(), _node: node }
    }

    /// The queue `bull:name`, as the release in `package` sees it.
    pub fn queue<'a>(
        &'a mut self,
        package: &'a str,
        redis: &Redis,
        name: &'a str,
    ) -> OfficialQueue<'a> {
        OfficialQueue { calls: self, package, redis: redis.url(), name }
    }
}

/// A queue of the official library.
#[derive(Debug)]
pub struct OfficialQueue<'a> {
    calls: &'a mut Calls,
    package: &'a str,
    redis: String,
    name: &'a str,
}

impl OfficialQueue<'_> {
    /// Calls a method with these parameters; opening the queue leaves nothing in Redis.
    pub async fn call(self, method: &str, with: Value) -> Value {
        self.call_as(json!({}), method, with).await
    }

    /// Calls a method on a queue that has been opened as everybody does, so that it announces itself in `meta`.
    pub async fn manage(self, method: &str) {
        self.call_as(json!({ "skipMetasUpdate": false }), method, json!([])).await;
    }

    /// Opens it as everybody does, to keep this many events.
    pub async fn open(self, max_len_events: u32) {
        let options = json!({
            "skipMetasUpdate": false, "streams": { "events": { "maxLen": max_len_events } },
        });
        self.call_as(options, "waitUntilReady", json!([])).await;
    }

    /// `Queue.addBulk`; jobs have the public names of their options. Gives the ids.
    pub async fn add_bulk(self, jobs: &[Value]) -> Vec<String> {
        let added = self.call("addBulk", json!([jobs])).await;
        serde_json::from_value(added["ids"].clone()).expect("ids")
    }

    async fn call_as(self, options: Value, method: &str, with: Value) -> Value {
        let line = json!({
            "redis": self.redis, "queue": self.name, "bullmq": self.package, "options": options,
            "call": method, "with": with,
        });
        let input = &mut self.calls.input;
        input.write_all(format!("{line}\n").as_bytes()).await.expect("node reads");
        let answer = self.calls.output.next_line().await.expect("text");
        serde_json::from_str(&answer.expect("node has not failed")).expect("JSON")
    }
}
