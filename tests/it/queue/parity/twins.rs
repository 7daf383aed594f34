//! Hookgate's queue, and a twin of it for each official producer.

use serde_json::{Map, Value, json};

use super::producers::Producers;
use testkit::documents::{Documents, workflow};
use testkit::queue::Job;
use testkit::state::{copy, state};
use testkit::{App, Config, Redis};

/// The queue of the default configuration.
pub const OURS: &str = "workflow-runner";

/// A Redis in which streams are trimmed alike: whole nodes are, and their size in bytes would depend on the clock.
pub async fn redis() -> Redis {
    Redis::start_with(&["--stream-node-max-bytes", "0", "--stream-node-max-entries", "10"]).await
}

/// Hookgate with these job options, and with webhooks `wh_0` to `wh_7` that start as many workflows.
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

/// Our queue as it stands becomes that of each producer.
pub async fn part(producers: &Producers, redis: &Redis) {
    for producer in producers.all {
        copy(redis, &redis.queue(), &redis.queue_named("bull", producer.twin())).await;
    }
}

/// The jobs that have come since `before`, by id.
pub async fn jobs_since(redis: &Redis, before: usize) -> Vec<Job> {
    let mut jobs = redis.queue().all().await;
    jobs.sort_by_key(|job| job.id.parse::<u64>().expect("digits"));
    jobs.split_off(before)
}

/// Lets every producer add our jobs to its twin, under the ids that they have with us.
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

/// The job as one gives it to an official library.
fn public(job: &Job, options: &Map<String, Value>) -> Value {
    let mut options = options.clone();
    if let Some(context) = job.opts().get("tm") {
        options.insert("telemetry".to_owned(), json!({ "metadata": context }));
    }
    json!({ "name": "workflow", "data": job.data(), "opts": options })
}

/// Every key of every twin is as ours, but for what its producer is known to do otherwise with these jobs; gives the number of
/// comparisons.
pub async fn assert_equal(
    producers: &Producers,
    redis: &Redis,
    jobs: &[Job],
    label: &str,
) -> usize {
    let ours = state(redis, &redis.queue()).await;
    for producer in producers.all {
        let ours = producer.instead_of(ours.clone(), jobs);
        let theirs = state(redis, &redis.queue_named("bull", producer.twin())).await;
        let names = (ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        assert_eq!(names.0, names.1, "{label}, {producer:?}");
        for (key, content) in &ours {
            assert_eq!(content, &theirs[key], "{label}, {producer:?}: {key}");
        }
    }
    producers.all.len()
}
