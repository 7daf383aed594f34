//! Random faults of every kind, one after the other, under a constant load: every answer stays
//! true, and the process does not grow.
//!
//! The default takes half a minute. The long run is
//!
//! ```sh
//! SOAK_SECONDS=21600 SOAK_PAUSE_MS=200 cargo test --test it process::soak -- --nocapture
//! ```
//!
//! `SOAK_SEED` selects other faults.

#![expect(clippy::print_stdout, reason = "a long run prints its figures")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use mongodb::bson::doc;
use redis::cmd;
use reqwest::Method;
use serde_json::json;
use testkit::chaos::ChaosProxy;
use testkit::config::countable;
use testkit::documents::workflow;
use testkit::ledger::{self, Load, Pace};
use testkit::mongo::{TestDatabase, document};
use testkit::raw::Connection;
use testkit::size::from_environment;
use testkit::wait::until;
use testkit::{App, Mongo, Redis};
use tokio::time::Instant;

const PREVIEW: &str = "/api/webhook/workflow/preview";

/// Bounds on the growth of memory and descriptors under a constant load.
const MEMORY: f64 = 48.0 * 1024.0 * 1024.0;
const FILES: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    RedisConnectionsCut,
    RedisFrozen,
    RedisKilled,
    RedisForgetsScripts,
    MongoRefuses,
    MongoFrozen,
    ConfigurationReread,
    ConfigurationBroken,
    CallersGone,
    CallersUnknown,
}

const FAULTS: [Fault; 10] = [
    Fault::RedisConnectionsCut,
    Fault::RedisFrozen,
    Fault::RedisKilled,
    Fault::RedisForgetsScripts,
    Fault::MongoRefuses,
    Fault::MongoFrozen,
    Fault::ConfigurationReread,
    Fault::ConfigurationBroken,
    Fault::CallersGone,
    Fault::CallersUnknown,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_break_no_promise_and_leak_nothing() {
    let span = Duration::from_secs(from_environment("SOAK_SECONDS", 30));
    let pace = Pace {
        callers: 8,
        pause: Duration::from_millis(from_environment("SOAK_PAUSE_MS", 20)),
        requests: u64::MAX,
    };
    let mut soak = Soak::start(from_environment("SOAK_SEED", 1)).await;
    let load = Load::at(pace, &soak.app.caller);
    load.more_accepted(100).await;
    let begun = Instant::now();
    let mut resources = Vec::new();
    // Each fault once, so that a short run has all of them, then random ones.
    let mut next = FAULTS.to_vec();
    soak.random.shuffle(&mut next);
    while begun.elapsed() < span || !next.is_empty() {
        let fault = next.pop().unwrap_or_else(|| soak.random.choice(FAULTS).expect("a fault"));
        println!("{:4} s: {fault:?}", begun.elapsed().as_secs());
        soak.strike(fault).await;
        soak.app.hookgate.ready().await;
        load.more_accepted(20).await;
        soak.follow_a_change().await;
        resources.push(soak.resources().await);
    }
    let verdict = load.stop().await.judge(&soak.app.redis).await;
    println!("{} faults; {verdict}", resources.len());
    verdict.assert_sound();
    assert_eq!(verdict.not_sent, 0, "{verdict}");
    soak.app.assert_accounting().await;
    // By then the process has allocated what the faults make it allocate.
    let (Some(first), Some(last)) = (resources.get(4), resources.last()) else {
        panic!("{resources:?}")
    };
    println!("bytes and descriptors: {first:?} after five faults, {last:?} at the end");
    assert!(last.0 < first.0 + MEMORY && last.1 < first.1 + FILES, "{resources:?}");
    assert_eq!(soak.app.hookgate.terminate().await, 0);
    assert!(!soak.app.hookgate.log().contains("panic"));
}

struct Soak {
    app: App,
    proxy: ChaosProxy,
    mongo: Mongo,
    database: TestDatabase,
    random: Rng,
    changes: u32,
}

impl Soak {
    async fn start(seed: u64) -> Self {
        let mongo = Mongo::start().await;
        let database = mongo.database().await;
        database.insert(&ledger::documents()).await;
        let redis = Redis::start_durable().await;
        let proxy = ChaosProxy::before(&redis, seed).await;
        let app = App::build().redis(redis).redis_address(&proxy.url()).mongo(&database);
        let app = app.config(countable);
        let app = app.config(|config| {
            config.set("telemetry.log", "info");
        });
        let app = app.start().await;
        Self { app, proxy, mongo, database, random: Rng::with_seed(seed), changes: 0 }
    }

    /// Returns when the fault is over.
    async fn strike(&mut self, fault: Fault) {
        let moment = Duration::from_millis(self.random.u64(100..2500));
        match fault {
            Fault::RedisConnectionsCut => {
                self.proxy.cut_at_random(self.random.usize(1..6), 8 << 10).await;
            }
            Fault::RedisFrozen => {
                self.app.redis.freeze();
                tokio::time::sleep(moment).await;
                self.app.redis.thaw();
            }
            Fault::RedisKilled => {
                self.app.redis.kill9().await;
                tokio::time::sleep(moment).await;
                self.app.redis.restart().await;
            }
            Fault::RedisForgetsScripts => {
                let () = self.app.redis.query(cmd("SCRIPT").arg("FLUSH")).await;
                let () = self.app.redis.query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal"])).await;
            }
            Fault::MongoRefuses => {
                let code =
                    self.random.choice([286, 280, 136, 43, 10107]).expect("one of the codes");
                let how = doc! { "errorCode": code, "errorLabels": [] };
                let fault = self.mongo.fail(&["getMore", "aggregate"], how).await;
                fault.hit(2).await;
                fault.end().await;
            }
            Fault::MongoFrozen => {
                self.mongo.freeze();
                tokio::time::sleep(moment).await;
                self.mongo.thaw();
            }
            Fault::ConfigurationReread => {
                let attempts = self.random.u32(1..10);
                self.app.hookgate.config.set("queue.job.attempts", attempts);
                self.app.hookgate.reload().await;
            }
            Fault::ConfigurationBroken => {
                self.app.hookgate.config.set("limits.in_flight_requests", "many");
                self.app.hookgate.reload().await;
                self.app.hookgate.config.remove("limits.in_flight_requests");
            }
            Fault::CallersGone => self.disconnect_callers().await,
            Fault::CallersUnknown => {
                for serial in 0..100 {
                    let reply = self.app.webhook("wh_1").bearer(&format!("nobody-{serial}")).send();
                    // After a fault of MongoDB the index may be too stale to deny anything.
                    match reply.await {
                        reply if reply.status == 503 => {
                            reply.assert_rejected(503, "index_unavailable");
                        }
                        reply => reply.assert_rejected(401, "invalid_api_key"),
                    }
                }
            }
        }
    }

    /// Disconnects in a head, in a body, and before the first byte.
    async fn disconnect_callers(&mut self) {
        let request = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
            Content-Length: 100\r\n\r\n{\"webhookId\":";
        let counts = self.app.caller.counts();
        for _ in 0..50 {
            counts.sent.fetch_add(1, Ordering::Relaxed);
            counts.unanswered.fetch_add(1, Ordering::Relaxed);
            let mut caller = Connection::open(self.app.hookgate.address()).await;
            caller.send(&request[..self.random.usize(0..=request.len())]).await;
            if self.random.bool() {
                caller.reset();
            }
        }
    }

    /// Inserts a workflow and deletes the one before; waits until both changes have an effect.
    async fn follow_a_change(&mut self) {
        let before = format!("wh_new_{}", self.changes);
        self.changes += 1;
        let webhook = format!("wh_new_{}", self.changes);
        let new = document(workflow(&webhook, "org_a", &webhook));
        let workflows = self.database.workflows();
        workflows.insert_one(new).await.expect("inserted");
        workflows.delete_one(doc! { "_id": &before }).await.expect("deleted");
        self.reaches(&webhook, 1).await;
        self.reaches(&before, 0).await;
    }

    /// Uses the preview, so that no job is added that the ledger does not have.
    async fn reaches(&self, webhook: &str, count: u64) {
        let body = json!({ "webhookId": webhook }).to_string();
        until(&format!("{webhook} matches {count}"), async || {
            let call = self.app.caller.call(Method::POST, PREVIEW).bearer("key_a");
            let reply = call.header("content-type", "application/json").body(body.as_str()).send();
            let reply = reply.await;
            reply.status == 200 && reply.json().pointer("/data/matchedCount") == Some(&json!(count))
        })
        .await;
    }

    /// Bytes of memory and number of open files.
    async fn resources(&self) -> (f64, usize) {
        let metrics = self.app.hookgate.metrics().await;
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.app.hookgate.process().pid()));
        let memory = metrics.value("process_resident_memory_bytes", &[]);
        (memory, files.expect("its descriptors").count())
    }
}
