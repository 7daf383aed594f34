//! Hookgate's queue, and a twin of it for each official producer.

use serde_json::{Map, Value, json};

use super::producers::Producers;
use testkit::documents::{Documents, workflow};
use testkit::queue::Job;
use testkit::state::{copy, state};
use testkit::{App, Config, Redis};

/// The queue of the default configuration.
pub const HOOKGATE_QUEUE: &str = "workflow-runner";

/// A Redis that trims all streams alike. It trims whole nodes, and a bound in bytes would depend on
/// the clock.
pub async fn redis() -> Redis {
    Redis::start_with(&["--stream-node-max-bytes", "0", "--stream-node-max-entries", "10"]).await
}

/// Hookgate with these job options, and with webhooks `wh_0` to `wh_7`, each of which starts as
/// many workflows as its number.
pub async fn app(redis: Redis, options: &str, change: impl FnOnce(&mut Config)) -> App {
    let options: toml::Table = options.parse().expect("TOML");
    let mut documents = Documents::two_organizations();
    documents.workflows = (1..8)
        .flat_map(|fanout| (0..fanout).map(move |n| (fanout, n)))
        .map(|(fanout, n)| workflow(&format!("wf_{fanout}_{n}"), "org_a", &format!("wh_{fanout}")))
        .collect();
    let app = App::build().documents(documents).redis(redis).config(|config| {
        config.set("queue.job", options);
        change(config);
    });
    app.start().await
}

/// Copies Hookgate's queue to the twin of each producer.
pub async fn split_into_twins(producers: &Producers, redis: &Redis) {
    for producer in producers.all {
        copy(redis, &redis.queue(), &redis.queue_named("bull", producer.twin())).await;
    }
}

/// The jobs added since `before`, by id.
pub async fn jobs_since(redis: &Redis, before: usize) -> Vec<Job> {
    let mut jobs = redis.queue().all().await;
    jobs.sort_by_key(|job| job.id.parse::<u64>().expect("digits"));
    jobs.split_off(before)
}

/// Lets every producer add Hookgate's jobs to its twin, with the same ids.
pub async fn add(
    producers: &mut Producers,
    redis: &Redis,
    jobs: &[Job],
    options: &Map<String, Value>,
    label: &str,
) {
    let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    let same: Vec<Value> = jobs.iter().map(|job| public(job, options)).collect();
    for &producer in producers.all {
        let added = producers.add(producer, redis, producer.twin(), &same).await;
        assert_eq!(added, ids, "{label}, {producer:?}");
    }
}

/// The job as a caller gives it to an official library.
fn public(job: &Job, options: &Map<String, Value>) -> Value {
    let mut options = options.clone();
    if let Some(context) = job.opts().get("tm") {
        options.insert("telemetry".to_owned(), json!({ "metadata": context }));
    }
    json!({ "name": "workflow", "data": job.data(), "opts": options })
}

/// Asserts that every key of every twin equals Hookgate's, except for the known differences of its
/// producer; returns the number of comparisons.
pub async fn assert_equal(
    producers: &Producers,
    redis: &Redis,
    jobs: &[Job],
    label: &str,
) -> usize {
    let ours = state(redis, &redis.queue()).await;
    for producer in producers.all {
        let ours = producer.expected_state(ours.clone(), jobs);
        let theirs = state(redis, &redis.queue_named("bull", producer.twin())).await;
        let names = (ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        assert_eq!(names.0, names.1, "{label}, {producer:?}");
        for (key, content) in &ours {
            assert_eq!(content, &theirs[key], "{label}, {producer:?}: {key}");
        }
    }
    producers.all.len()
}
