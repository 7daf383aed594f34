//! Staging of large jobs. Data that passes through Lua is copied several times. So the hash of a
//! large job is written by a command of its own, under a temporary name, and the script renames it
//! to the id of the job. The commands and the script are one transaction. Below a few kilobytes, the
//! further commands cost more than the copies.

use crate::queue::batch::script::Attempt;
use crate::queue::bullmq::job::Jobs;
use crate::queue::redis::transport::Command;
use bytes::Bytes;
use fred::types::Value;

/// Bytes of a request from which on its job is staged. `docs/performance/redis-cost.md` has the
/// figures.
const MIN_STAGED_BYTES: usize = 8 << 10;

/// Lifetime of a staged hash, in milliseconds. It ends one that the script could not remove, for
/// example because Redis did not have the script in its cache.
const STAGED_TTL: &str = "60000";

/// Whether the job of this request is staged. Several jobs share their payload, which would cross
/// the wire for each of them.
pub(in crate::queue) fn is_staged(jobs: &Jobs) -> bool {
    jobs.heads.len() == 1 && jobs.bytes >= MIN_STAGED_BYTES
}

/// The name of the hash of a staged request. It is in the slot of the queue, and no other attempt of
/// another batch has it.
pub(in crate::queue) fn staged_key(
    producer_key: &str,
    attempt: Attempt<'_>,
    request: usize,
) -> String {
    format!("{producer_key}:{}:{request}", attempt.number.get())
}

/// The commands that write the staged hashes of an attempt.
pub(in crate::queue) fn staging_commands(
    producer_key: &str,
    attempt: Attempt<'_>,
    job_name: &Value,
    options: &Bytes,
) -> Vec<Command> {
    let mut commands = Vec::new();
    if attempt.is_withdrawal {
        return commands;
    }
    for (position, request) in
        attempt.requests.iter().enumerate().filter(|(_, each)| is_staged(each))
    {
        let key = Value::from(staged_key(producer_key, attempt, position));
        let own = &request.options;
        let options = if own.is_empty() { options.clone() } else { own.clone() };
        let text = Value::from_static_str;
        let hash = vec![
            key.clone(),
            text("name"),
            job_name.clone(),
            text("data"),
            Value::Bytes(data(request)),
            text("opts"),
            Value::Bytes(options),
            text("timestamp"),
            Value::from(attempt.timestamp.to_string()),
            text("delay"),
            text("0"),
            text("priority"),
            text("0"),
        ];
        commands.push(("HSET", hash));
        commands.push(("PEXPIRE", vec![key, text(STAGED_TTL)]));
    }
    commands
}

/// The data of the only job of a request.
fn data(request: &Jobs) -> Bytes {
    let head = request.heads.first().cloned().unwrap_or_default();
    if request.tail.is_empty() { head } else { [&*head, &*request.tail].concat().into() }
}
