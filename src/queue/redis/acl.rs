//! The permissions of the Redis user: which are missing for adding jobs, and which are not needed.
//! Redis itself checks them, and nothing is written.

use crate::process::lifecycle::Condition;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::settings::QueueSettings;
use fred::types::Value;

pub(in crate::queue) const SCRIPT: &str = include_str!("acl.lua");
const EXCESS_SCRIPT: &str = include_str!("excess_acl.lua");

/// Commands without which jobs are still accepted, because the script continues without them, and
/// what their absence breaks.
const DEGRADING: [(&str, &str); 4] = [
    ("ZADD", "idle BullMQ workers are not woken and find jobs seconds later"),
    ("XADD", "no event reports jobs that were added"),
    ("DEL", "jobs of a request that gets 503 may remain"),
    ("UNLINK", "large jobs of a request that gets 503 stay in memory for seconds"),
];

/// The permissions that adding jobs needs and this user does not have.
#[derive(Debug, Default)]
pub(in crate::queue) struct MissingPermissions {
    /// Commands, each with the key for which it is refused; `None` before Redis 7.0, which cannot
    /// report them.
    pub(in crate::queue) missing: Option<Vec<String>>,
}

impl MissingPermissions {
    /// Queries the permissions over this connection.
    pub(in crate::queue) async fn query(
        connection: &RedisConnection,
        settings: &QueueSettings,
    ) -> Result<Self, CallError> {
        let queue = &settings.queue;
        let records = [queue.producer_key("check"), queue.idempotency_prefix() + "check"];
        let job = queue.job_prefix() + "1";
        let waits_for_replicas = if settings.wait_replicas > 0 { "1" } else { "0" };
        let mut arguments = [SCRIPT, "0"].map(Value::from_static_str).to_vec();
        let keys = queue.script_keys().into_iter().chain(records).chain([job]);
        arguments.extend(keys.map(Value::from));
        arguments.push(Value::from_static_str(waits_for_replicas));
        arguments.push(Value::from_static_str(if settings.events { "1" } else { "0" }));
        Ok(Self { missing: list_commands(connection, arguments).await? })
    }

    /// Commands that this user may use and that adding jobs does not need; `None` before Redis 7.0.
    pub(in crate::queue) async fn query_excess(
        connection: &RedisConnection,
        settings: &QueueSettings,
    ) -> Result<Option<Vec<String>>, CallError> {
        let mut arguments = [EXCESS_SCRIPT, "0"].map(Value::from_static_str).to_vec();
        arguments.extend(settings.queue.foreign_keys().map(Value::from));
        list_commands(connection, arguments).await
    }

    /// A sentence for each missing permission, and whether jobs are refused because of it.
    pub(in crate::queue) fn sentences(&self) -> impl Iterator<Item = (String, bool)> {
        self.missing.iter().flatten().map(|missing| {
            let command = missing.split(' ').next();
            let silent = DEGRADING.into_iter().find(|(silent, _)| command == Some(silent));
            let effect = silent.map_or("jobs are refused", |(_, effect)| effect);
            (format!("this user may not {missing}: {effect}"), silent.is_none())
        })
    }

    /// The condition of Redis by the missing permissions.
    pub(in crate::queue) fn condition(&self) -> Condition {
        let (refusing, silent): (Vec<_>, Vec<_>) =
            self.sentences().partition(|(_, is_refusing)| *is_refusing);
        let notes =
            |sentences: Vec<(String, bool)>| sentences.into_iter().map(|(sentence, _)| sentence);
        if !refusing.is_empty() {
            return Condition::NotReady(notes(refusing).collect::<Vec<_>>().join("; "));
        }
        Condition::from_notes(notes(silent).collect())
    }
}

/// Runs a script that lists commands; `None` if its reply is null.
async fn list_commands(
    connection: &RedisConnection,
    arguments: Vec<Value>,
) -> Result<Option<Vec<String>>, CallError> {
    let reply: Value = connection.call("EVAL", arguments).await?;
    // fred would convert an empty list to `None`, but only null means that Redis cannot report.
    if reply.is_null() {
        return Ok(None);
    }
    reply.convert().map(Some).map_err(|_| CallError::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_script_is_checked() {
        let script = include_str!("../batch/add_jobs.lua");
        let calls = script.match_indices("call('").chain(script.match_indices("try('"));
        let mut count = 0;
        for (at, start) in calls {
            let command = script[at + start.len()..].split('\'').next().unwrap();
            assert!(SCRIPT.contains(&format!("{{'{command}'")), "{command}");
            count += 1;
        }
        assert!(count > 15, "only {count} calls were found: is the script still parsed?");
    }

    #[test]
    fn permissions_that_refuse_jobs_are_reported_before_the_others() {
        let missing = |missing: &[&str]| MissingPermissions {
            missing: Some(missing.iter().map(ToString::to_string).collect()),
        };
        assert_eq!(MissingPermissions::default().condition(), Condition::Ready);
        assert_eq!(missing(&[]).condition(), Condition::Ready);
        let note = "this user may not DEL bull:q:1: jobs of a request that gets 503 may remain";
        assert_eq!(
            missing(&["DEL bull:q:1"]).condition(),
            Condition::Degraded(vec![note.to_owned()])
        );
        let reason = "this user may not TIME: jobs are refused".to_owned();
        assert_eq!(missing(&["DEL bull:q:1", "TIME"]).condition(), Condition::NotReady(reason));
    }
}
