//! Staging of large jobs. Data that passes through Lua is copied several times. So the hash of a
//! large job is written by a command of its own, under a temporary name, and the script renames it
//! to the id of the job. The commands and the script are one transaction. Below a few kilobytes, the
//! further commands cost more than the copies.

use crate::queue::bullmq::job::Jobs;
use crate::queue::redis::transport::Command;
use bytes::Bytes;
use fred::types::Value;

/// Bytes of a request from which on its job is staged. `docs/performance/redis-cost.md` has the
/// figures.
const MIN_STAGED_BYTES: usize = 8 << 10;

/// Lifetime of a staged hash, in milliseconds. The transaction that writes it also executes the
/// script. The lifetime ends one that the script could not remove, for example because Redis did not
/// have the script in its cache.
const STAGED_TTL: &str = "5000";

/// Whether the job of this request is staged. Several jobs share their payload, which would cross
/// the wire for each of them.
pub(in crate::queue) fn is_staged(jobs: &Jobs) -> bool {
    jobs.heads.len() == 1 && jobs.bytes >= MIN_STAGED_BYTES
}

/// The names of the hashes of the staged requests, in their order. They are in the slot of the queue,
/// and no other batch has them.
pub(in crate::queue) fn staged_keys(
    producer_key: &str,
    number: u64,
    requests: &[Jobs],
) -> Vec<Bytes> {
    let staged = requests.iter().enumerate().filter(|(_, request)| is_staged(request));
    staged.map(|(position, _)| format!("{producer_key}:{number}:{position}").into()).collect()
}

/// The commands that write a staged hash.
pub(in crate::queue) fn staging_commands(
    key: Bytes,
    job_name: Value,
    options: Bytes,
    timestamp: Value,
    request: &Jobs,
) -> [Command; 2] {
    let key = Value::Bytes(key);
    let text = Value::from_static_str;
    let hash = vec![
        key.clone(),
        text("name"),
        job_name,
        text("data"),
        Value::Bytes(data(request)),
        text("opts"),
        Value::Bytes(if request.options.is_empty() { options } else { request.options.clone() }),
        text("timestamp"),
        timestamp,
        text("delay"),
        text("0"),
        text("priority"),
        text("0"),
    ];
    [("HSET", hash), ("PEXPIRE", vec![key, text(STAGED_TTL)])]
}

/// The data of the only job of a request.
fn data(request: &Jobs) -> Bytes {
    let head = request.heads.first().cloned().unwrap_or_default();
    if request.tail.is_empty() { head } else { [&*head, &*request.tail].concat().into() }
}
