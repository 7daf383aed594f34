//! Latency of requests without changes, during loads, and during many changes.
//!
//! The program gets a fixed rate of small webhooks from callers that do not wait for one another.
//! Latency is measured from the moment at which a request was due, so that late sending counts as
//! slow.
//!
//! mongod has the lowest priority here, because in production it has a machine of its own. It still
//! has an effect, which a phase shows in which the bare driver drains it while Hookgate loads
//! nothing.

use crate::collection::{ORGANIZATIONS, Workflows, webhook};
use crate::load::drain_batches;
use crate::meter::{Clock, load_average, median, quantile};
use crate::others;
use bson::doc;
use rustix::process::{Pid, setpriority_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use testkit::{App, Caller, Mongo};
use tokio::time::Instant;

const REQUESTS_PER_SECOND: u32 = 1000;
/// Changes in one command, one command each 5 ms: 2,000 changes a second.
const CHANGES: usize = 10;
const CHANGES_EVERY: Duration = Duration::from_millis(5);

#[derive(Clone, Copy)]
enum Phase {
    Quiet,
    /// The bare driver repeatedly reads what a load reads.
    Drains,
    /// Complete loads, one after the other.
    Loads,
    Changes,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Quiet, "nothing"),
    (Phase::Drains, "the driver drains mongod"),
    (Phase::Loads, "complete loads"),
    (Phase::Changes, "2,000 changes a second"),
];

/// The measurements of one phase of one round.
struct Measured {
    /// Latency of each request in milliseconds.
    waits: Vec<f64>,
    /// Cores that were used: by this process, mongod, Hookgate and Redis.
    cores: Vec<f64>,
    loads: f64,
}

pub fn measure(mongo: &Mongo, workflows: &Workflows, seconds: Duration, rounds: usize) {
    let app = others().block_on(async {
        let quietly = |config: &mut testkit::Config| {
            config.set("telemetry.log", "info");
        };
        let app = App::build().mongo(&workflows.database).config(quietly).start_unready().await;
        loaded(&app, "start", 0.0).await;
        app.hookgate.ready().await;
        app
    });
    lower_priority(mongo.process().pid());
    let mut measured: [Vec<Measured>; PHASES.len()] = Default::default();
    for round in 0..rounds {
        for turn in 0..PHASES.len() {
            let at = (round + turn) % PHASES.len();
            let processes =
                [mongo.process().pid(), app.hookgate.process().pid(), app.redis.process().pid()];
            let clock = Clock::start(&processes);
            let (waits, loads) = run(&app, mongo, workflows, PHASES[at].0, seconds);
            let spent = clock.stop();
            let cores = spent[1..].iter().map(|cpu| cpu / spent[0]).collect();
            measured[at].push(Measured { waits, cores, loads });
        }
        eprintln!("requests: round {} of {rounds}", round + 1);
    }
    print(&measured);
}

/// Gives all threads of a process the lowest priority. Later threads inherit it.
fn lower_priority(process: u32) {
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let id = thread.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // A thread may have ended meanwhile.
        let _ = setpriority_process(Pid::from_raw(id), 19);
    }
}

fn print(measured: &[Vec<Measured>; PHASES.len()]) {
    println!(
        "\n| {REQUESTS_PER_SECOND} requests a second (load average {}), meanwhile | p50, ms | p99, ms | of that of nothing | \
         p99.9 | loads | cores: mongod | Hookgate | Redis | load and changes |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        load_average()
    );
    let of_all = |rounds: &[Measured], part| {
        median(rounds.iter().map(|all| quantile(all.waits.clone(), part)).collect())
    };
    let quiet = of_all(&measured[0], 990);
    for ((_, name), rounds) in PHASES.iter().zip(measured) {
        let p99 = of_all(rounds, 990);
        let cores = |at: usize| median(rounds.iter().map(|all| all.cores[at]).collect());
        println!(
            "| {name} | {:.2} | {p99:.2} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
            of_all(rounds, 500),
            p99 / quiet,
            of_all(rounds, 999),
            rounds.iter().map(|all| all.loads).sum::<f64>(),
            cores(1),
            cores(2),
            cores(3),
            cores(0),
        );
    }
}

/// Latencies of requests during a phase, and the number of loads.
fn run(
    app: &App,
    mongo: &Mongo,
    workflows: &Workflows,
    phase: Phase,
    seconds: Duration,
) -> (Vec<f64>, f64) {
    let is_over = Arc::new(AtomicBool::new(false));
    let requests = {
        let (caller, count, is_over) = (app.caller.clone(), workflows.count, Arc::clone(&is_over));
        thread::spawn(move || others().block_on(requests(caller, count, &is_over)))
    };
    let loads = others().block_on(async {
        let until = Instant::now() + seconds;
        let mut loads = 0.0;
        match phase {
            Phase::Quiet => tokio::time::sleep(seconds).await,
            Phase::Drains => {
                while Instant::now() < until {
                    let workflows = workflows.clone();
                    // The driver has a runtime of its own.
                    thread::spawn(move || drain_batches(&workflows)).join().unwrap();
                    loads += 1.0;
                }
            }
            Phase::Loads => {
                while Instant::now() < until {
                    reload(app, mongo, workflows).await;
                    loads += 1.0;
                }
            }
            Phase::Changes => changes(workflows, until).await,
        }
        loads
    });
    is_over.store(true, Ordering::Relaxed);
    (requests.join().unwrap(), loads)
}

async fn requests(caller: Caller, workflows: u64, is_over: &AtomicBool) -> Vec<f64> {
    let every = Duration::from_secs(1) / REQUESTS_PER_SECOND;
    let mut ticks = tokio::time::interval(every);
    let mut calls = Vec::new();
    let mut n = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let due = ticks.tick().await;
        // The next workflow of the caller's organization.
        n = (n + ORGANIZATIONS * 7919) % workflows;
        let call = caller.webhook(&webhook(n));
        calls.push(tokio::spawn(async move {
            assert_eq!(call.send().await.matched(), 1);
            due.elapsed().as_secs_f64() * 1e3
        }));
    }
    let mut waits = Vec::new();
    for call in calls {
        waits.push(call.await.unwrap());
    }
    waits
}

async fn reload(app: &App, mongo: &Mongo, workflows: &Workflows) {
    let before = loads(app, "stream_lost").await;
    let namespace = format!("{}.workflows", workflows.database.name());
    // The error of a lost stream position.
    let how = doc! { "errorCode": 286, "namespace": namespace };
    let fault = mongo.fail_times(1, &["getMore"], how).await;
    loaded(app, "stream_lost", before).await;
    fault.end().await;
}

async fn changes(workflows: &Workflows, until: Instant) {
    let mut ticks = tokio::time::interval(CHANGES_EVERY);
    let mut writing = Vec::new();
    while Instant::now() < until {
        ticks.tick().await;
        let (updates, _): (Vec<_>, Vec<_>) = (0..CHANGES).map(|_| workflows.change()).unzip();
        let workflows = workflows.clone();
        writing.push(tokio::spawn(async move { workflows.write(updates).await }));
    }
    for written in writing {
        written.await.unwrap();
    }
}

/// Waits for one more load.
async fn loaded(app: &App, reason: &str, before: f64) {
    while loads(app, reason).await <= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn loads(app: &App, reason: &str) -> f64 {
    let labels = [("collection", "workflows"), ("reason", reason)];
    app.hookgate.metrics().await.value("hookgate_index_loads_total", &labels)
}
