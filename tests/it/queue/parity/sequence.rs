//! Hundreds of random requests, with pauses and real BullMQ workers between them.

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use super::TRACE;
use super::options::public;
use super::producers::{Producer, Producers};
use super::queues::{Step, prepare};
use super::twins::{HOOKGATE_QUEUE, add, app, assert_equal, jobs_since, redis, split_into_twins};
use testkit::App;
use testkit::node::{Worker, idle};

const SEED: u64 = 3;
const ROUNDS: usize = 8;
const REQUESTS: usize = 40;
/// Producers of a release that pauses a queue as Hookgate's queue is paused.
const PRODUCERS: &[Producer] = &[Producer::Node("bullmq"), Producer::RustPort];
const OPTIONS: &str = "attempts = 2\nbackoff = 0\nremoveOnComplete = { age = 3600 }";

#[tokio::test]
async fn random_requests_between_pauses_and_workers_equal_the_official_producers() {
    let mut rng = Rng::with_seed(SEED);
    let app = app(redis().await, OPTIONS, |_| {}).await;
    let mut producers = Producers::start(PRODUCERS, &app.redis).await;
    prepare(&[Step::Open("bullmq", 1000)], &app.redis, HOOKGATE_QUEUE, &mut producers.node).await;
    split_into_twins(&producers, &app.redis).await;
    let mut known = 0;
    for round in 0..ROUNDS {
        let is_paused = rng.bool();
        if is_paused {
            on_every_queue(&app, &mut producers, "pause").await;
        }
        post_at_random(&app, &mut rng).await;
        let jobs = jobs_since(&app.redis, 0).await;
        let label = format!("seed {SEED}, round {round}, paused {is_paused}");
        add(&mut producers, &app.redis, &jobs[known..], &public(OPTIONS), &label).await;
        assert_equal(&producers, &app.redis, &jobs, &label).await;
        known = jobs.len();
        if is_paused {
            on_every_queue(&app, &mut producers, "resume").await;
        }
        if rng.u8(0..3) > 0 {
            // Jobs succeed at their first attempt, at their second, or never.
            let fail_first = rng.u8(0..3).to_string();
            tokio::join!(
                work_off(&app, HOOKGATE_QUEUE, &fail_first),
                work_off(&app, PRODUCERS[0].twin(), &fail_first),
                work_off(&app, PRODUCERS[1].twin(), &fail_first),
            );
            assert_equal(&producers, &app.redis, &jobs, &format!("{label}, after the workers"))
                .await;
        }
    }
    assert!(known > ROUNDS * REQUESTS, "{known} jobs of {} requests", ROUNDS * REQUESTS);
}

/// Bursts of requests for webhooks that start up to seven workflows.
async fn post_at_random(app: &App, rng: &mut Rng) {
    let mut sent = 0;
    while sent < REQUESTS {
        let mut burst = JoinSet::new();
        for _ in 0..rng.usize(1..=8).min(REQUESTS - sent) {
            let fanout = rng.u64(0..8);
            let body = json!({ "webhookId": format!("wh_{fanout}"), "n": rng.u32(..) });
            let mut call = app.post(body.to_string());
            if rng.bool() {
                call = call.header("traceparent", TRACE);
            }
            burst.spawn(async move { assert_eq!(call.send().await.matched(), fanout) });
            sent += 1;
        }
        burst.join_all().await;
    }
}

async fn on_every_queue(app: &App, producers: &mut Producers, method: &str) {
    for queue in [HOOKGATE_QUEUE, PRODUCERS[0].twin(), PRODUCERS[1].twin()] {
        producers.node.queue("bullmq", &app.redis, queue).call(method, json!([])).await;
    }
}

async fn work_off(app: &App, queue: &str, fail_first: &str) {
    let worker = Worker::start(&app.redis, queue, &["--fail-first", fail_first]).await;
    idle(&app.redis, queue).await;
    worker.close().await;
}
