//! The states of a queue that Hookgate adds jobs to.

use redis::cmd;
use serde_json::{Value, json};

use testkit::Redis;
use testkit::calls::Calls;

/// A step that changes a queue.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The release in this package opens the queue, with this bound for its events.
    Open(&'static str, u32),
    /// The official library adds this many jobs.
    Jobs(u32),
    /// BullMQ workers fetch this many of them.
    Running(u32),
    /// The release in this package pauses the queue.
    Pause(&'static str),
    /// `setGlobalConcurrency`.
    Concurrency(u32),
    /// This field of `meta` is removed.
    Without(&'static str),
}

use Step::{Concurrency, Jobs, Open, Pause, Running, Without};

const V6: &str = "bullmq";
const V5: &str = "bullmq5";
const V5_12: &str = "bullmq512";

/// Each state by its name and the steps that lead to it.
pub const QUEUES: &[(&str, &[Step])] = &[
    ("fresh", &[]),
    ("announced", &[Open(V6, 10_000)]),
    ("announced by 5.81", &[Open(V5, 10_000)]),
    ("without maxLenEvents", &[Open(V6, 10_000), Jobs(2), Without("opts.maxLenEvents")]),
    ("with few events", &[Open(V6, 20), Jobs(30)]),
    ("with the maximum of events", &[Open(V6, 20), Jobs(10)]),
    ("running", &[Open(V6, 10_000), Jobs(5), Running(2)]),
    ("paused", &[Open(V6, 10_000), Jobs(3), Running(1), Pause(V6)]),
    ("paused when empty", &[Open(V6, 10_000), Pause(V6)]),
    ("paused, with few events", &[Open(V6, 20), Jobs(30), Pause(V6)]),
    ("paused, without maxLenEvents", &[Open(V6, 50), Pause(V6), Without("opts.maxLenEvents")]),
    ("paused by 5.81", &[Open(V5, 10_000), Jobs(3), Running(1), Pause(V5)]),
    ("paused when empty by 5.81", &[Open(V5, 10_000), Pause(V5)]),
    ("paused by 5.12", &[Open(V5_12, 10_000), Jobs(3), Pause(V5_12)]),
    ("paused without a version", &[Open(V6, 10_000), Jobs(3), Pause(V6), Without("version")]),
    ("at its concurrency", &[Open(V6, 10_000), Jobs(4), Running(2), Concurrency(2)]),
    ("over its concurrency", &[Open(V6, 10_000), Jobs(4), Running(3), Concurrency(1)]),
    ("below its concurrency", &[Open(V6, 10_000), Jobs(4), Running(1), Concurrency(2)]),
    ("at its concurrency, few events", &[Open(V6, 20), Jobs(30), Running(1), Concurrency(1)]),
    (
        "paused at its concurrency",
        &[Open(V6, 10_000), Jobs(4), Running(1), Concurrency(1), Pause(V6)],
    ),
];

/// Brings the empty queue `bull:name` into a state.
pub async fn prepare(steps: &[Step], redis: &Redis, name: &str, calls: &mut Calls) {
    let queue = redis.queue_named("bull", name);
    for step in steps {
        match *step {
            Open(package, max_len_events) => {
                calls.queue(package, redis, name).open(max_len_events).await;
            }
            Jobs(count) => {
                let job = |n| json!({ "name": "before", "data": { "n": n } });
                let jobs: Vec<Value> = (0..count).map(job).collect();
                calls.queue(V6, redis, name).add_bulk(&jobs).await;
            }
            Running(count) => {
                for _ in 0..count {
                    let mut command = cmd("LMOVE");
                    command.arg(queue.key("wait")).arg(queue.key("active"));
                    let _: String = redis.query(command.arg("RIGHT").arg("LEFT")).await;
                }
            }
            Pause(package) => {
                calls.queue(package, redis, name).call("pause", json!([])).await;
            }
            Concurrency(limit) => {
                calls.queue(V6, redis, name).call("setGlobalConcurrency", json!([limit])).await;
                let () = redis.query(cmd("DEL").arg(queue.key("marker"))).await;
            }
            Without(field) => {
                let _: u32 = redis.query(cmd("HDEL").arg(queue.key("meta")).arg(field)).await;
            }
        }
    }
}
