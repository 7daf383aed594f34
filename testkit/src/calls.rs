//! Many calls of the official libraries' `Queue`, each in one process: `calls.mjs` and `python.py`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::node::script;
use super::official;
use super::redis::Redis;

/// In place of a package of Node, the library for Python.
pub const PYTHON: &str = "python";

/// Ends when it is dropped, and with the test process, since its input ends.
#[derive(Debug)]
pub struct Calls {
    node: Library,
    /// Once it has been called.
    python: Option<Library>,
}

/// A library in a process of its own, which takes a call a line.
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
        let input = process.stdin.take().expect("its input is a pipe");
        let output = process.stdout.take().expect("its output is a pipe");
        Self { input, output: BufReader::new(output).lines(), _process: process }
    }

    async fn call(&mut self, call: &Value) -> Value {
        self.input.write_all(format!("{call}\n").as_bytes()).await.expect("it reads");
        let answer = self.output.next_line().await.expect("text");
        serde_json::from_str(&answer.expect("it has not failed")).expect("JSON")
    }
}

impl Calls {
    pub fn start() -> Self {
        Self { node: Library::start(script("calls.mjs")), python: None }
    }

    /// The queue `bull:name`, as the release in `package` sees it, or [`PYTHON`].
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
        self.manage_with(method, json!([])).await;
    }

    /// As [`OfficialQueue::manage`], with these parameters.
    pub async fn manage_with(self, method: &str, with: Value) {
        self.call_as(json!({ "skipMetasUpdate": false }), method, with).await;
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
