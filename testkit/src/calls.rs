//! Runs many calls of an official library's `Queue` in one process of `calls.mjs` or `python.py`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::node::script;
use super::official;
use super::redis::Redis;

/// Selects the library for Python where a package of Node is expected.
pub const PYTHON: &str = "python";

/// The processes end when this is dropped. They also end with the test process, because their input
/// ends.
#[derive(Debug)]
pub struct Calls {
    node: Library,
    /// Started by the first call to it.
    python: Option<Library>,
}

/// A library in a process of its own. It reads one call per line.
#[derive(Debug)]
struct Library {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Library {
    fn start(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("node or python3");
        let input = process.stdin.take().expect("the input is a pipe");
        let output = process.stdout.take().expect("the output is a pipe");
        Self { input, output: BufReader::new(output).lines(), _process: process }
    }

    async fn call(&mut self, call: &Value) -> Value {
        self.input.write_all(format!("{call}\n").as_bytes()).await.expect("it reads");
        let answer = self.output.next_line().await.expect("a string");
        serde_json::from_str(&answer.expect("the call succeeds")).expect("JSON")
    }
}

impl Calls {
    pub fn start() -> Self {
        Self { node: Library::start(script("calls.mjs")), python: None }
    }

    /// The queue `bull:name` as the release in `package`, or [`PYTHON`], sees it.
    pub fn queue<'a>(
        &'a mut self,
        package: &'a str,
        redis: &Redis,
        name: &'a str,
    ) -> OfficialQueue<'a> {
        OfficialQueue { calls: self, package, redis: redis.url(), name }
    }
}

/// A queue of an official library.
#[derive(Debug)]
pub struct OfficialQueue<'a> {
    calls: &'a mut Calls,
    package: &'a str,
    redis: String,
    name: &'a str,
}

impl OfficialQueue<'_> {
    /// Calls a method with these parameters. Opening the queue leaves nothing in Redis.
    pub async fn call(self, method: &str, with: Value) -> Value {
        self.call_as(json!({}), method, with).await
    }

    /// Calls a method on a queue that is opened with the defaults, so that the library announces
    /// itself in `meta`.
    pub async fn manage(self, method: &str) {
        self.manage_with(method, json!([])).await;
    }

    /// Like [`OfficialQueue::manage`], with these parameters.
    pub async fn manage_with(self, method: &str, with: Value) {
        self.call_as(json!({ "skipMetasUpdate": false }), method, with).await;
    }

    /// Opens the queue with the defaults and this bound for its events.
    pub async fn open(self, max_len_events: u32) {
        let options = json!({
            "skipMetasUpdate": false, "streams": { "events": { "maxLen": max_len_events } },
        });
        self.call_as(options, "waitUntilReady", json!([])).await;
    }

    /// `Queue.addBulk`, whose jobs have options by their public names. Returns the ids.
    pub async fn add_bulk(self, jobs: &[Value]) -> Vec<String> {
        let added = self.call("addBulk", json!([jobs])).await;
        serde_json::from_value(added["ids"].clone()).expect("ids")
    }

    async fn call_as(self, options: Value, method: &str, with: Value) -> Value {
        let call = json!({
            "redis": self.redis, "queue": self.name, "bullmq": self.package, "options": options,
            "call": method, "with": with,
        });
        let Calls { node, python } = self.calls;
        let library = match self.package {
            PYTHON => python.get_or_insert_with(|| Library::start(official::python_calls())),
            _ => node,
        };
        library.call(&call).await
    }
}
