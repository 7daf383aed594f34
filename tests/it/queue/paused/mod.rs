//! Paused queues: every job runs exactly once, whichever release of BullMQ pauses and resumes, and
//! whenever the webhooks arrive.

mod one_resume;

use std::collections::BTreeMap;

use redis::cmd;
use serde_json::json;
use tokio::task::JoinSet;

use testkit::App;
use testkit::calls::Calls;
use testkit::node::{self, Worker};
use testkit::official::{NODE_5, NODE_5_12, NODE_6, Official};

const HOOKGATE_QUEUE: &str = "workflow-runner";

/// Each release, and the layout by which it pauses.
const RELEASES: [(Official, &str); 4] =
    [(NODE_6, "v6"), (NODE_5, "v5"), (NODE_5_12, "v5"), (Official::Python, "v6")];

#[tokio::test]
async fn jobs_from_before_during_and_after_a_pause_run_once_each() {
    let mut calls = Calls::start();
    for (release, layout) in RELEASES {
        for layout in [layout, "auto"] {
            let app = app(layout).await;
            let mut sent = 0;
            post(&app, &mut sent, 3).await;
            release.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "pause").await;
            post(&app, &mut sent, 3).await;
            release.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "resume").await;
            post(&app, &mut sent, 2).await;
            // Twice in a row, so that the second call meets a queue in that state.
            for what in ["pause", "pause", "resume", "resume"] {
                release.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, what).await;
                post(&app, &mut sent, 2).await;
            }
            assert_all_run(&app, release, sent, &format!("{release:?}, {layout}")).await;
        }
    }
}

#[tokio::test]
async fn jobs_of_a_queue_paused_when_empty_run_once_each() {
    let mut calls = Calls::start();
    for (release, layout) in RELEASES {
        for layout in [layout, "auto"] {
            let app = app(layout).await;
            release.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "pause").await;
            // A worker that is already waiting must be woken by the resume.
            let worker = release.worker(&app.redis, HOOKGATE_QUEUE, &[]).await;
            let mut sent = 0;
            post(&app, &mut sent, 4).await;
            let all = app.redis.queue().all().await.len() as u64;
            assert_eq!(all, sent, "{release:?}, {layout}");
            assert!(worker.reports("completed", 0).await.is_empty(), "{release:?}, {layout}");
            release.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "resume").await;
            finish(&app, worker, sent, &format!("{release:?}, {layout}")).await;
        }
    }
}

#[tokio::test]
async fn jobs_added_during_pauses_and_resumes_run_once_each() {
    let mut calls = Calls::start();
    for (release, layout) in RELEASES {
        for layout in [layout, "auto"] {
            let app = app(layout).await;
            let worker = release.worker(&app.redis, HOOKGATE_QUEUE, &[]).await;
            let mut senders = JoinSet::new();
            let (stop, stopped) = tokio::sync::watch::channel(false);
            for sender in 0..4 {
                let (caller, stopped) = (app.caller.clone(), stopped.clone());
                senders.spawn(async move {
                    let mut sent = 0;
                    while !*stopped.borrow() {
                        let body = json!({ "webhookId": "wh_1", "from": sender, "n": sent });
                        assert_eq!(caller.post(body.to_string()).send().await.matched(), 1);
                        sent += 1;
                        // The workers have to keep up, because all jobs must run.
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    }
                    sent
                });
            }
            for what in ["pause", "resume"].repeat(if release == Official::Python { 2 } else { 10 })
            {
                release.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, what).await;
            }
            stop.send_replace(true);
            let sent = senders.join_all().await.into_iter().sum();
            finish(&app, worker, sent, &format!("{release:?}, {layout}")).await;
        }
    }
}

#[tokio::test]
async fn the_layout_of_5_loses_nothing_with_several_releases() {
    // A library that opens the queue during the pause changes meta.version, so meta.version does
    // not show who paused. A queue that release 5 resumes must have been paused by release 5, or
    // the resume overwrites the list that the others have left in place.
    let mut calls = Calls::start();
    for (paused_by, resumed_by) in [
        (NODE_5, NODE_5),
        (NODE_5_12, NODE_5),
        (NODE_5, NODE_6),
        (NODE_5, Official::Python),
        (NODE_6, NODE_6),
        (NODE_6, Official::Python),
        (Official::Python, NODE_6),
    ] {
        let app = app("v5").await;
        let mut sent = 0;
        post(&app, &mut sent, 2).await;
        paused_by.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "pause").await;
        post(&app, &mut sent, 2).await;
        for package in ["bullmq", "bullmq5", "bullmq"] {
            calls.queue(package, &app.redis, HOOKGATE_QUEUE).manage("getJobCounts").await;
            post(&app, &mut sent, 2).await;
        }
        resumed_by.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "resume").await;
        let label = format!("paused by {paused_by:?}, resumed by {resumed_by:?}");
        assert_all_run(&app, resumed_by, sent, &label).await;
    }
}

#[tokio::test]
async fn auto_uses_the_list_of_5_after_a_dashboard_of_6_opens_a_paused_queue() {
    let mut calls = Calls::start();
    let app = app("auto").await;
    let mut sent = 0;
    post(&app, &mut sent, 2).await;
    NODE_5.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "pause").await;
    // From here on meta.version names 6, but 5 will resume.
    calls.queue("bullmq", &app.redis, HOOKGATE_QUEUE).manage("getJobCounts").await;
    post(&app, &mut sent, 3).await;
    NODE_5.run_method(&mut calls, &app.redis, HOOKGATE_QUEUE, "resume").await;
    assert_all_run(&app, NODE_5, sent, "opened by 6 between pause and resume by 5").await;
}

async fn app(layout: &str) -> App {
    App::with(|config| {
        config.set("queue.paused_layout", layout);
    })
    .await
}

async fn post(app: &App, sent: &mut u64, count: u64) {
    for _ in 0..count {
        let body = json!({ "webhookId": "wh_1", "n": *sent });
        assert_eq!(app.post(body.to_string()).send().await.matched(), 1);
        *sent += 1;
    }
}

async fn assert_all_run(app: &App, release: Official, sent: u64, label: &str) {
    let worker = release.worker(&app.redis, HOOKGATE_QUEUE, &[]).await;
    finish(app, worker, sent, label).await;
}

/// Waits until the worker has finished all jobs; asserts that it has run each once and that none is
/// left.
async fn finish(app: &App, worker: Worker, sent: u64, label: &str) {
    let ended: usize = usize::try_from(sent).expect("a small number");
    assert_eq!(app.redis.queue().hash_ids().await.len(), ended, "{label}: all are in Redis");
    worker.reports("completed", ended).await;
    node::idle(&app.redis, HOOKGATE_QUEUE).await;
    let reports = worker.close().await;
    let mut runs: BTreeMap<&str, u32> = BTreeMap::new();
    for job in &reports.completed {
        *runs.entry(job["id"].as_str().expect("an id")).or_default() += 1;
    }
    assert!(reports.failed.is_empty(), "{label}: {:?}", reports.failed);
    assert!(runs.len() == ended && runs.values().all(|&times| times == 1), "{label}: {runs:?}");
    let paused: u64 = app.redis.query(cmd("LLEN").arg(app.redis.queue().key("paused"))).await;
    assert_eq!(paused, 0, "{label}");
}
