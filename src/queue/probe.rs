//! Whether jobs would be refused. Redis is asked with the script that adds them and with its real keys, but without a job.

use super::QueueSettings;
use super::script::AddJobs;
use super::session::{CallError, Session};
use crate::lifecycle::Condition;
use fred::types::Value;

/// What Redis says to jobs over this session.
pub(super) async fn ask(
    session: &Session,
    settings: &QueueSettings,
) -> Result<Condition, CallError> {
    match session.call::<Value>("EVAL", AddJobs::would_add(settings)).await {
        Ok(_) => Ok(Condition::Ready),
        Err(CallError::Refused(error)) => Ok(refusal(error.details())),
        Err(error) => Err(error),
    }
}

fn refusal(details: &str) -> Condition {
    // The slot is moving to another node, and jobs are tried again until it is there.
    if details.starts_with("TRYAGAIN") {
        return Condition::Ready;
    }
    Condition::NotReady(format!("refuses jobs: {details}{}", advice(details)))
}

/// What to do about a refusal, where its own words do not say so.
pub(super) fn advice(details: &str) -> &'static str {
    match details.split(' ').next().unwrap_or_default() {
        "CROSSSLOT" => {
            "; this server is in cluster mode, where queue.prefix needs a hash tag, such as \"{bull}\""
        }
        "MOVED" | "ASK" => {
            "; this server is one node of a cluster, for which queue.redis begins with redis-cluster://"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let reason = |details: &str| match refusal(details) {
            Condition::NotReady(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason("CROSSSLOT Keys in request don't hash to the same slot").contains("{bull}"));
        assert!(reason("MOVED 866 127.0.0.1:7001").contains("redis-cluster://"));
        assert_eq!(reason("WRONGTYPE Operation"), "refuses jobs: WRONGTYPE Operation");
        assert_eq!(refusal("TRYAGAIN Multiple keys request"), Condition::Ready);
    }
}
