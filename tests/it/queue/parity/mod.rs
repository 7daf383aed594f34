//! Hookgate leaves in Redis what BullMQ's own libraries leave there for the same jobs: every key of
//! the queue, its type, fields and values.
#![expect(clippy::indexing_slicing, reason = "a test panics")]
#![expect(unreachable_pub, reason = "pub marks items for other files of these tests")]

mod options;
mod producers;
mod queues;
mod sequence;
mod twins;

use std::collections::BTreeSet;

use redis::cmd;
use serde_json::{Map, Value, json};
use testkit::App;
use testkit::state::state;

use options::{OPTIONS, public};
use producers::{PRODUCERS, Producers};
use queues::{QUEUES, prepare};
use twins::{HOOKGATE_QUEUE, add, app, assert_equal, jobs_since, split_into_twins};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the test prints the number of cases")]
async fn every_option_on_every_queue_is_stored_as_by_the_official_producers() {
    let lanes = tokio::join!(lane(0), lane(1), lane(2));
    let cases = lanes.0 + lanes.1 + lanes.2;
    assert_eq!(cases, OPTIONS.len() * QUEUES.len() * PRODUCERS.len());
    println!(
        "{cases} parity cases: {} sets of options, {} queues, {} producers, each with and without a trace",
        OPTIONS.len(),
        QUEUES.len(),
        PRODUCERS.len()
    );
}

/// Runs every third entry of [`OPTIONS`] from `first` on; returns the number of comparisons.
async fn lane(first: usize) -> usize {
    let mut redis = twins::redis().await;
    let mut producers = Producers::start(PRODUCERS, &redis).await;
    let mut cases = 0;
    for options in OPTIONS.iter().skip(first).step_by(3) {
        let app = app(redis, options, |_| {}).await;
        for (name, steps) in QUEUES {
            let () = app.redis.query(&cmd("FLUSHALL")).await;
            prepare(steps, &app.redis, HOOKGATE_QUEUE, &mut producers.node).await;
            let label = format!("[{options}] on a queue {name}");
            cases += compare(&app, &mut producers, &public(options), &label).await;
        }
        redis = app.redis;
    }
    cases
}

/// Sends webhooks, lets the producers add the same jobs to the twins, and compares the queues;
/// returns the number of comparisons.
async fn compare(
    app: &App,
    producers: &mut Producers,
    options: &Map<String, Value>,
    label: &str,
) -> usize {
    split_into_twins(producers, &app.redis).await;
    let before = app.redis.queue().all().await.len();
    let mut matched = 0;
    for call in [
        app.webhook("wh_1"),
        app.post(
            json!({ "webhookId": "wh_3", "a": [1, 2.5, null, "größer / \"\\\n"] }).to_string(),
        )
        .header("traceparent", TRACE),
        app.post(json!({ "webhookId": "wh_2", "empty": {}, "none": [] }).to_string())
            .header("traceparent", TRACE)
            .header("tracestate", "a=b,c=1"),
    ] {
        matched += call.send().await.matched();
    }
    let jobs = jobs_since(&app.redis, before).await;
    assert_eq!((jobs.len() as u64, matched), (6, 6), "{label}");
    let traced = jobs.iter().filter(|job| job.opts().get("tm").is_some()).count();
    assert_eq!(traced, 5, "{label}");
    add(producers, &app.redis, &jobs, options, label).await;
    assert_equal(producers, &app.redis, &jobs, label).await
}

#[tokio::test]
async fn prepared_queues_have_the_state_of_their_name() {
    let redis = twins::redis().await;
    let mut producers = Producers::start(PRODUCERS, &redis).await;
    let mut distinct = BTreeSet::new();
    for (name, steps) in QUEUES {
        let () = redis.query(&cmd("FLUSHALL")).await;
        prepare(steps, &redis, HOOKGATE_QUEUE, &mut producers.node).await;
        let state = state(&redis, &redis.queue()).await;
        assert!(distinct.insert(format!("{state:?}")), "{name} equals another queue");
        let meta = state.get("meta").map_or(&Value::Null, |meta| &meta["content"]);
        assert_eq!(meta.get("paused").is_some(), name.starts_with("paused"), "{name}: {meta}");
        assert_eq!(meta.get("concurrency").is_some(), name.contains("concurrency"), "{name}");
        let has_length = *name != "fresh" && !name.contains("without maxLenEvents");
        assert_eq!(meta.get("opts.maxLenEvents").is_some(), has_length, "{name}: {meta}");
        assert_eq!(state.contains_key("paused"), name.contains("paused by 5"), "{name}");
    }
}
