//! One resume finds all jobs of a pause: any number of them, paused by any release, with any
//! `meta.version`.

use std::collections::BTreeSet;

use redis::cmd;
use serde_json::json;
use tokio::task::JoinSet;

use super::{HOOKGATE_QUEUE, finish};
use testkit::calls::{Calls, PYTHON};
use testkit::documents::{Documents, workflow};
use testkit::official::Official;
use testkit::{App, Redis};

/// More jobs than a resume of release 6 or of Python moves from one list to the other.
const MANY: u64 = 7_600;
const CALLERS: u64 = 32;

/// Workflows on the webhook `wh_many`.
const FANOUT: u64 = 400;

/// A release, and the `meta.version` that it writes when it opens the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Release {
    package: &'static str,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    ItsOwn,
    /// No version, as with `skipMetasUpdate`; Python never writes one.
    Unwritten,
    /// The version of BullMQ Pro, which does not show the release that it contains.
    Named(&'static str),
}

const fn hand(package: &'static str, version: Version) -> Release {
    Release { package, version }
}

const NODE_6: Release = hand("bullmq", Version::ItsOwn);
const NODE_6_SILENT: Release = hand("bullmq", Version::Unwritten);
const PRO_6: Release = hand("bullmq", Version::Named("bullmq-pro:8.0.0"));
const PYTHON_3: Release = hand(PYTHON, Version::Unwritten);
const NODE_5: Release = hand("bullmq5", Version::ItsOwn);
const NODE_5_12: Release = hand("bullmq512", Version::ItsOwn);
const NODE_5_SILENT: Release = hand("bullmq5", Version::Unwritten);
const PRO_5: Release = hand("bullmq5", Version::Named("bullmq-pro:7.40.0"));

/// The release that pauses, and the one that resumes.
const PAUSES: [(Release, Release); 19] = [
    (NODE_6, NODE_6),
    (NODE_6_SILENT, NODE_6_SILENT),
    (PRO_6, PRO_6),
    (PYTHON_3, PYTHON_3),
    (NODE_5, NODE_5),
    (NODE_5_12, NODE_5_12),
    (NODE_5_SILENT, NODE_5_SILENT),
    (PRO_5, PRO_5),
    (NODE_6, PYTHON_3),
    (PYTHON_3, NODE_6),
    (PYTHON_3, PRO_6),
    (NODE_5, NODE_5_SILENT),
    (NODE_5_SILENT, NODE_5),
    // The release changes between pause and resume.
    (NODE_5, NODE_6),
    (NODE_5, PYTHON_3),
    (NODE_5_SILENT, PYTHON_3),
    (PRO_5, PRO_6),
    (NODE_6, NODE_5),
    (PYTHON_3, NODE_5),
];

impl Release {
    async fn call(self, calls: &mut Calls, redis: &Redis, method: &str, with: serde_json::Value) {
        let queue = calls.queue(self.package, redis, HOOKGATE_QUEUE);
        match self.version {
            Version::ItsOwn => queue.manage_with(method, with).await,
            Version::Unwritten | Version::Named(_) => {
                queue.call(method, with).await;
            }
        }
        if let Version::Named(text) = self.version {
            let meta = redis.queue().key("meta");
            let () = redis.query(cmd("HSET").arg(meta).arg("version").arg(text)).await;
        }
    }

    async fn add(self, calls: &mut Calls, redis: &Redis) {
        let job = json!([[{ "name": "other", "data": {} }]]);
        self.call(calls, redis, "addBulk", job).await;
    }
}

#[tokio::test]
async fn one_resume_by_python_runs_thousands_of_jobs() {
    let (app, mut calls) = (App::start().await, Calls::start());
    PYTHON_3.add(&mut calls, &app.redis).await;
    PYTHON_3.call(&mut calls, &app.redis, "pause", json!([])).await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let caller = app.caller.clone();
        callers.spawn(async move {
            for _ in 0..MANY.div_ceil(CALLERS) {
                assert_eq!(caller.webhook("wh_1").send().await.matched(), 1);
            }
        });
    }
    callers.join_all().await;
    PYTHON_3.call(&mut calls, &app.redis, "resume", json!([])).await;
    let sent = 1 + MANY.div_ceil(CALLERS) * CALLERS;
    let worker = Official::Python.worker(&app.redis, HOOKGATE_QUEUE, &[]).await;
    finish(&app, worker, sent, "paused and resumed by Python").await;
}

#[tokio::test]
async fn one_resume_by_any_release_finds_every_job() {
    let mut documents = Documents::two_organizations();
    let many = (0..FANOUT).map(|n| workflow(&format!("wf_many_{n}"), "org_a", "wh_many"));
    documents.workflows.extend(many);
    let app = App::build().documents(documents).start().await;
    let mut calls = Calls::start();
    for (pauses, resumes) in PAUSES {
        for has_jobs_before in [false, true] {
            for webhook in ["wh_1", "wh_many"] {
                let label = format!("{pauses:?}, {resumes:?}, {has_jobs_before}, {webhook}");
                let sent = pause(&app, &mut calls, pauses, has_jobs_before, webhook).await;
                resumes.call(&mut calls, &app.redis, "resume", json!([])).await;
                assert_all_wait(&app, sent, &label).await;
            }
        }
    }
}

/// Fills the queue during a pause; returns the number of jobs.
async fn pause(
    app: &App,
    calls: &mut Calls,
    pauses: Release,
    has_jobs_before: bool,
    webhook: &str,
) -> u64 {
    let () = app.redis.query(&cmd("FLUSHALL")).await;
    let mut sent = 0;
    if has_jobs_before {
        pauses.add(calls, &app.redis).await;
        sent += 1 + app.webhook("wh_1").send().await.matched();
    }
    pauses.call(calls, &app.redis, "pause", json!([])).await;
    let requests = if webhook == "wh_many" { MANY / FANOUT + 1 } else { 4 };
    for number in 0..requests {
        sent += app.webhook(webhook).send().await.matched();
        // In a pause that began without jobs, it is unknown whether another producer's jobs go to
        // the other list.
        if number == 1 && (has_jobs_before || pauses == NODE_6) {
            pauses.add(calls, &app.redis).await;
            sent += 1;
        }
    }
    sent
}

async fn assert_all_wait(app: &App, sent: u64, label: &str) {
    let queue = app.redis.queue();
    let waiting = queue.waiting_ids().await;
    let distinct: BTreeSet<&String> = waiting.iter().collect();
    assert_eq!((waiting.len() as u64, distinct.len() as u64), (sent, sent), "{label}");
    let paused: u64 = app.redis.query(cmd("LLEN").arg(queue.key("paused"))).await;
    assert_eq!(paused, 0, "{label}");
}
