//! Hookgate's queue and a twin that only the official library writes to.

use redis::cmd;
use serde_json::{Map, Value, json};

use super::app::{App, Builder};
use super::node;
use super::queue::Job;
use super::redis::Redis;
use super::state::{copy, state};

/// The queue of the default configuration.
pub const OURS: &str = "workflow-runner";
/// The official one.
pub const THEIRS: &str = "twin";

/// `[queue.job]`, with every option that it takes.
const OPTIONS: &str = r#"
    attempts = 5
    backoff = { type = "exponential", delay = 1500, jitter = 0.5 }
    removeOnComplete = { age = 3600, count = 1000 }
    removeOnFail = 50
    keepLogs = 20
    stackTraceLimit = 3
"#;

/// What the library writes down unless it is told otherwise.
pub const MAX_LEN_EVENTS: u32 = 10_000;

/// A running Hookgate, whose queue has a twin in the same Redis.
#[derive(Debug)]
pub struct Twins {
    pub app: App,
    max_len_events: String,
}

impl Twins {
    /// With `max_len_events` as every official queue writes it down when it is opened.
    pub async fn start(app: Builder, max_len_events: u32) -> Self {
        // Whole nodes of a stream are trimmed, and their size in bytes depends on the clock.
        let redis = Redis::start_with(&["--stream-node-max-bytes", "0"]).await;
        let options: toml::Table = OPTIONS.parse().expect("TOML");
        let app = app.redis(redis).config(|config| {
            config.set("queue.job", options);
        });
        Self { app: app.start().await, max_len_events: max_len_events.to_string() }
    }

    /// Runs a command of the official library on our queue, before [`Twins::part`].
    pub async fn official(&self, command: &[&str]) {
        let command = [command, &["--max-len-events", &self.max_len_events]].concat();
        node::queue(&self.app.redis, OURS, &command).await;
    }

    /// Adds jobs to our queue as the official library does, before [`Twins::part`].
    pub async fn official_jobs(&self, count: usize) {
        let jobs: Vec<Value> =
            (0..count).map(|n| json!({ "name": "before", "data": { "n": n } })).collect();
        node::add_bulk(&self.app.redis, OURS, &[], &jobs).await;
    }

    /// From here on Hookgate writes to one queue, and the official library to an exact copy of it.
    pub async fn part(&self) {
        let redis = &self.app.redis;
        copy(redis, &redis.queue(), &redis.queue_named("bull", THEIRS)).await;
    }

    /// Sends webhooks one after the other and adds the same jobs to the twin; gives the jobs.
    pub async fn post(&self, webhooks: &[Value]) -> Vec<Job> {
        let redis = &self.app.redis;
        let before = redis.queue().hash_ids().await;
        let mut matched = 0;
        for webhook in webhooks {
            matched += self.app.post(webhook.to_string()).send().await.matched();
        }
        let mut jobs = redis.queue().all().await;
        jobs.retain(|job| !before.contains(&job.id));
        jobs.sort_by_key(|job| job.id.parse::<u64>().expect("digits"));
        assert_eq!(jobs.len() as u64, matched);
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        assert_eq!(self.add_to_twin(&jobs).await, ids);
        jobs
    }

    /// Both queues hold the same; `besides` are fields of `meta` that only the official library writes.
    pub async fn assert_equal(&self, besides: &[&str]) {
        let redis = &self.app.redis;
        let ours = state(redis, &redis.queue()).await;
        let mut theirs = state(redis, &redis.queue_named("bull", THEIRS)).await;
        let meta = theirs.get_mut("meta").and_then(|meta| meta["content"].as_object_mut());
        meta.expect("a queue has meta").retain(|field, _| !besides.contains(&field.as_str()));
        assert!(ours.keys().eq(theirs.keys()), "{:?} and {:?}", ours.keys(), theirs.keys());
        for (key, content) in &ours {
            assert_eq!(content, &theirs[key], "{key}");
        }
    }

    async fn add_to_twin(&self, jobs: &[Job]) -> Vec<String> {
        let options: Map<String, Value> = toml::from_str(OPTIONS).expect("TOML");
        let job = |job: &Job| {
            let mut options = options.clone();
            if let Some(context) = job.opts().get("tm") {
                options.insert("telemetry".to_owned(), json!({ "metadata": context }));
            }
            json!({ "name": "workflow", "data": job.data(), "opts": options })
        };
        let jobs: Vec<Value> = jobs.iter().map(job).collect();
        let flags = ["--max-len-events", &self.max_len_events];
        node::add_bulk(&self.app.redis, THEIRS, &flags, &jobs).await
    }

    /// Runs one of our queue's waiting jobs without end, as a worker that is busy.
    pub async fn occupy_a_worker(&self) {
        let redis = &self.app.redis;
        let mut command = cmd("LMOVE");
        let (wait, active) = (redis.queue().key("wait"), redis.queue().key("active"));
        let () = redis.query(command.arg(wait).arg(active).arg("RIGHT").arg("LEFT")).await;
    }

    /// Lets a real worker run all jobs of our queue and end.
    pub async fn run_all(&self) {
        let worker = node::Worker::start(&self.app.redis, OURS, &[]).await;
        node::idle(&self.app.redis, OURS).await;
        worker.close().await;
    }
}
