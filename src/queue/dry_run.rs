//! The dry run: shows whether jobs would be refused. It runs the script that adds jobs with its
//! real keys, but without a job.

use crate::process::lifecycle::Condition;
use crate::queue::batch::script::AddJobs;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::settings::QueueSettings;
use fred::types::Value;

/// Runs the script without a job over this connection.
pub(super) async fn run(
    connection: &RedisConnection,
    settings: &QueueSettings,
) -> Result<Condition, CallError> {
    match connection.call::<Value>("EVAL", AddJobs::dry_run_arguments(settings)).await {
        Ok(_) => Ok(Condition::Ready),
        Err(CallError::Refused(error)) => Ok(condition_of_refusal(error.details())),
        Err(error) => Err(error),
    }
}

fn condition_of_refusal(details: &str) -> Condition {
    // The slot is moving to another node. Batches are retried until it has arrived.
    if details.starts_with("TRYAGAIN") {
        return Condition::Ready;
    }
    Condition::NotReady(format!("refuses jobs: {details}{}", advice(details)))
}

/// What to do about a refusal, if its message does not say so.
pub(super) fn advice(details: &str) -> &'static str {
    match details.split(' ').next().unwrap_or_default() {
        "CROSSSLOT" => {
            "; this server is in cluster mode, where queue.prefix needs a hash tag, such as \"{bull}\""
        }
        "MOVED" | "ASK" => {
            "; this server is a cluster node, so queue.redis must begin with redis-cluster://"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_contains_advice() {
        let reason = |details: &str| match condition_of_refusal(details) {
            Condition::NotReady(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason("CROSSSLOT Keys in request don't hash to the same slot").contains("{bull}"));
        assert!(reason("MOVED 866 127.0.0.1:7001").contains("redis-cluster://"));
        assert_eq!(reason("WRONGTYPE Operation"), "refuses jobs: WRONGTYPE Operation");
        assert_eq!(condition_of_refusal("TRYAGAIN Multiple keys request"), Condition::Ready);
    }
}
