//! Hundreds of requests at random, with pauses and real workers between them.

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use super::TRACE;
use super::options::public;
use super::producers::{Producer, Producers};
use super::queues::{Step, prepare};
use super::twins::{OURS, add, app, assert_equal, jobs_since, part, redis};
use testkit::App;
use testkit::node::{Worker, idle};

const SEED: u64 = 3;
const ROUNDS: usize = 8;
const REQUESTS: usize = 40;
/// Those of a version that pauses as our queue's does.
const PRODUCERS: &[Producer] = &[Producer::Node("bullmq"), Producer::RustPort];
const OPTIONS: &str = "attempts = 2\nbackoff = 0\nremoveOnComplete = { age = 3600 }";

#[tokio::test]
async fn hundreds_of_requests_between_pauses_and_workers_leave_what_the_official_producers_leave() {
    let mut rng = Rng::with_seed(SEED);
    let app = app(redis().await, OPTIONS, |_| {}).await;
    let mut producers = Producers::start(PRODUCERS, &app.redis).await;
    prepare(&[Step::Open("bullmq", 1000)], &app.redis, OURS, &mut producers.node).await;
    part(&producers, &app.redis).await;
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
            // Jobs pass at once, at their second attempt, or not at all.
            let fail_first = rng.u8(0..3).to_string();
            tokio::join!(
                work_off(&app, OURS, &fail_first),
                work_off(&app, PRODUCERS[0].twin(), &fail_first),
                work_off(&app, PRODUCERS[1].twin(), &fail_first),
            );
            assert_equal(&producers, &app.redis, &jobs, &format!("{label}, worked off")).await;
        }
    }
    assert!(known > ROUNDS * REQUESTS, "{known} jobs of {} requests", ROUNDS * REQUESTS);
}

/// Bursts of requests for webhooks that start from none to seven workflows.
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
    for queue in [OURS, PRODUCERS[0].twin(), PRODUCERS[1].twin()] {
        producers.node.queue("bullmq", &app.redis, queue).call(method, json!([])).await;
    }
}

async fn work_off(app: &App, queue: &str, fail_first: &str) {
    let worker = Worker::start(&app.redis, queue, &["--fail-first", fail_first]).await;
    idle(&app.redis, queue).await;
    worker.close().await;
}
