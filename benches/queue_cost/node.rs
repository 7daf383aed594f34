//! The official library for Node, in a process of its own: `tests/bullmq/produce.mjs`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::jobs::Jobs;
use crate::meter::{Cost, Meter, QUEUE};
use crate::{How, WARM_UP};
use testkit::scratch::Scratch;

pub struct Node {
    process: Child,
    /// Closing this ends the process.
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    versions: String,
    is_warm: bool,
}

impl Node {
    pub fn start(url: &str, jobs: &Jobs, options: &str) -> Self {
        let directory = Scratch::new("node");
        let data = directory.write("data.jsonl", jobs.to_lines());
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bullmq");
        assert!(package.join("node_modules/bullmq").is_dir(), "no BullMQ: run scripts/setup test");
        let mut command = Command::new("node");
        command.arg(package.join("produce.mjs")).args(["--redis", url, "--queue", QUEUE]);
        command.args(["--default-job-options", options, "--data"]).arg(data);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.expect("node");
        let orders = process.stdin.take();
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = next(&mut answers);
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        let versions = format!("Node {}, {}", text("node"), text("bullmq").replace(':', " "));
        Self { process, orders, answers, versions, is_warm: false }
    }

    pub fn measure(&mut self, jobs: &Jobs, how: How, meter: &mut Meter) -> Cost {
        if !std::mem::replace(&mut self.is_warm, true) {
            self.add(WARM_UP.min(jobs.len()), How::Add { callers: crate::CALLERS });
        }
        meter.measure(jobs, true, || self.add(jobs.len(), how))
    }

    pub fn versions(&self) -> &str {
        &self.versions
    }

    /// Makes the process add `jobs` jobs; returns the CPU time that it took.
    fn add(&mut self, jobs: usize, how: How) -> Duration {
        let order = match how {
            How::Add { callers } => json!({ "add": { "callers": callers }, "jobs": jobs }),
            How::AddBulk { size } => json!({ "addBulk": { "size": size }, "jobs": jobs }),
        };
        writeln!(self.orders.as_mut().unwrap(), "{order}").expect("node reads its input");
        Duration::from_micros(next(&mut self.answers)["cpuMicroseconds"].as_u64().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}

fn next(answers: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = answers.next().expect("node is running").unwrap();
    serde_json::from_str(&line).unwrap()
}
