//! The official producers, and the known differences between each of them and Hookgate.

use bullmq::options::RedisConnectionOptions;
use bullmq::queue::BulkJob;
use bullmq::redis_connection::RedisConnection;
use bullmq::{JobOptions, Queue, QueueOptions};
use serde_json::{Map, Value, json};

use testkit::Redis;
use testkit::calls::Calls;
use testkit::queue::Job;
use testkit::state::{State, by_value};

/// A producer that adds to a twin of Hookgate's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// `Queue.addBulk` of the release in this package.
    Node(&'static str),
    /// `Queue::add_bulk` of the crate `bullmq-official`.
    RustPort,
}

pub const PRODUCERS: &[Producer] =
    &[Producer::Node("bullmq"), Producer::Node("bullmq5"), Producer::RustPort];

impl Producer {
    /// The queue that it adds to.
    pub fn twin(self) -> &'static str {
        match self {
            Self::Node("bullmq") => "node-6",
            Self::Node(_) => "node-5",
            Self::RustPort => "rust",
        }
    }

    /// The list that it adds to while a queue is paused.
    fn paused_list(self) -> &'static str {
        match self {
            Self::Node("bullmq5") => "paused",
            Self::Node(_) | Self::RustPort => "wait",
        }
    }

    /// What this producer leaves for these jobs, derived from what Hookgate has left for them.
    pub fn expected_state(self, mut ours: State, jobs: &[Job]) -> State {
        if ours["meta"]["content"].get("paused").is_some() {
            pushed_to(self.paused_list(), &mut ours, jobs);
        }
        for job in jobs {
            with_14_digits(&mut ours.get_mut(&job.id).expect("the job's hash")["content"]["opts"]);
        }
        if self == Self::RustPort {
            // This producer writes its own name instead of a version when it opens a queue,
            ours.get_mut("meta").expect("a queue has meta")["content"]["library"] =
                json!("bullmq-official:0.1.0");
            // and supports fewer options.
            for job in jobs {
                let hash = ours.get_mut(&job.id).expect("the job's hash");
                keep_options_of_the_rust_port(
                    hash["content"]["opts"].as_object_mut().expect("options"),
                );
            }
        }
        ours
    }
}

/// The releases differ in the list that gets the jobs of a paused queue. Hookgate uses the one that
/// has jobs.
fn pushed_to(list: &str, state: &mut State, jobs: &[Job]) {
    let newest = json!(jobs.last().expect("at least one job").id);
    let is_ahead = |name: &str| state.get(name).is_some_and(|list| list["content"][0] == newest);
    let from = if list == "wait" { "paused" } else { "wait" };
    if !is_ahead(from) {
        return;
    }
    let content = state[from]["content"].as_array().expect("a list");
    let (new, old) = content.split_at(jobs.len());
    let (new, old) = (new.to_vec(), old.to_vec());
    let there = state
        .get(list)
        .map_or(Vec::new(), |there| there["content"].as_array().expect("a list").clone());
    for (name, content) in [(from, old), (list, [new, there].concat())] {
        if content.is_empty() {
            state.remove(name);
        } else {
            let key = json!({ "type": "list", "expires": false, "content": content });
            state.insert(name.to_owned(), key);
        }
    }
}

/// The script of all official producers encodes the options with Lua's JSON, which keeps 14 digits.
fn with_14_digits(json: &mut Value) {
    match json {
        Value::Object(members) => members.values_mut().for_each(with_14_digits),
        Value::Number(number) => {
            let float = number.as_f64().expect("a finite number");
            let kept: f64 = format!("{float:.13e}").parse().expect("a number");
            if (kept - float).abs() > 0.0 {
                *json = by_value(json!(kept));
            }
        }
        _ => {}
    }
}

/// The crate ignores `keepLogs`, `stackTraceLimit`, the trace, the jitter, and the delay of a
/// custom backoff strategy.
fn keep_options_of_the_rust_port(options: &mut Map<String, Value>) {
    for unknown in ["kl", "stackTraceLimit", "tm"] {
        options.remove(unknown);
    }
    if let Some(backoff) = options.get_mut("backoff").and_then(Value::as_object_mut) {
        backoff.remove("jitter");
        let is_builtin = backoff["type"] == "fixed" || backoff["type"] == "exponential";
        if !is_builtin || !backoff.contains_key("delay") {
            backoff.insert("delay".to_owned(), json!(0));
        }
    }
}

/// The producers of a test, on one Redis.
pub struct Producers {
    pub all: &'static [Producer],
    pub node: Calls,
    rust: RedisConnection,
}

impl Producers {
    pub async fn start(all: &'static [Producer], redis: &Redis) -> Self {
        let options = RedisConnectionOptions::new().url(redis.url());
        let rust = RedisConnection::new_managed_only(&options).await.expect("redis answers");
        let mut producers = Self { all, node: Calls::start(), rust };
        // Concurrent calls do not keep their order when one of them has to load the script.
        producers.rust_port("warm-up", &[json!({ "name": "x", "data": {}, "opts": {} })]).await;
        producers
    }

    /// Adds jobs with the public names of their options; returns the ids.
    pub async fn add(
        &mut self,
        producer: Producer,
        redis: &Redis,
        queue: &str,
        jobs: &[Value],
    ) -> Vec<String> {
        match producer {
            Producer::Node(package) => self.node.queue(package, redis, queue).add_bulk(jobs).await,
            Producer::RustPort => self.rust_port(queue, jobs).await,
        }
    }

    async fn rust_port(&mut self, queue: &str, jobs: &[Value]) -> Vec<String> {
        let connection = self.rust.clone();
        let opened = Queue::with_connection(queue, connection, QueueOptions::new()).await;
        let jobs = jobs.iter().map(|job| {
            let mut options = job["opts"].clone();
            if let Some(delay) = options["backoff"].as_u64() {
                // The crate does not accept a bare number of milliseconds.
                options["backoff"] = json!({ "type": "fixed", "delay": delay });
            }
            let options: JobOptions = serde_json::from_value(options).expect("its options");
            BulkJob::with_options(job["name"].as_str().expect("a name"), &job["data"], options)
        });
        let added = opened.expect("redis answers").add_bulk(jobs.collect()).await;
        added.expect("the script runs").iter().map(|job| job.id().to_owned()).collect()
    }
}
