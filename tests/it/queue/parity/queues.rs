//! The states in which a queue may be when Hookgate's jobs come.

use redis::cmd;
use serde_json::{Value, json};

use testkit::Redis;
use testkit::calls::Calls;

/// What has happened to a queue.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The release in this package has announced the queue, with this many events to keep.
    Open(&'static str, u32),
    /// The official library has added as many jobs.
    Jobs(u32),
    /// Workers have taken as many of them.
    Running(u32),
    /// The release in this package has paused the queue.
    Pause(&'static str),
    /// `setGlobalConcurrency`.
    Concurrency(u32),
    /// Nobody has written down this field of `meta`.
    Without(&'static str),
}

use Step::{Concurrency, Jobs, Open, Pause, Running, Without};

const V6: &str = "bullmq";
const V5: &str = "bullmq5";
const V5_12: &str = "bullmq512";

/// Each by a name and by what has led to it.
pub const QUEUES: &[(&str, &[Step])] = &[
    ("fresh", &[]),
    ("announced", &[Open(V6, 10_000)]),
    ("announced by 5.81", &[Open(V5, 10_000)]),
    ("without maxLenEvents", &[Open(V6, 10_000), Jobs(2), Without("opts.maxLenEvents")]),
    ("with few events", &[Open(V6, 20), Jobs(30)]),
    ("with as many events as it keeps", &[Open(V6, 20), Jobs(10)]),
    ("running", &[Open(V6, 10_000), Jobs(5), Running(2)]),
    ("paused", &[Open(V6, 10_000), Jobs(3), Running(1), Pause(V6)]),
    ("paused when empty", &[Open(V6, 10_000), Pause(V6)]),
    ("paused, with few events", &[Open(V6, 20), Jobs(30), Pause(V6)]),
    ("paused, without maxLenEvents", &[Open(V6, 50), Pause(V6), Without("opts.maxLenEvents")]),
    ("paused by 5.81", &[Open(V5, 10_000), Jobs(3), Running(1), Pause(V5)]),
    ("paused when empty by 5.81", &[Open(V5, 10_000), Pause(V5)]),
    ("paused by 5.12", &[Open(V5_12, 10_000), Jobs(3), Pause(V5_12)]),
    ("paused by who knows", &[Open(V6, 10_000), Jobs(3), Pause(V6), Without("version")]),
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
