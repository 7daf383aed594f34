//! What the user of Redis may not do of what adding jobs takes, and what it may do beyond that. Redis itself is asked, and
//! nothing is written.

use super::QueueSettings;
use super::session::{CallError, Session};
use crate::lifecycle::Condition;
use fred::types::Value;

pub(super) const SCRIPT: &str = include_str!("rights.lua");
const EXCESS_SCRIPT: &str = include_str!("excess_rights.lua");

/// Rights that are missed by nobody at once, because the script goes on without them.
const SILENT: [(&str, &str); 4] = [
    ("ZADD", "waiting workers are not woken, and see jobs seconds later"),
    ("XADD", "nobody is told of jobs that were added"),
    ("PEXPIRE", "a server that is no longer the primary may be believed"),
    ("DEL", "jobs of a request that is answered 503 may stay"),
];

/// Rights that are missing.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// Commands, with the keys that they are refused for; `None` where Redis cannot tell (before 7.0).
    pub(super) missing: Option<Vec<String>>,
}

impl Rights {
    /// Asks over this session.
    pub(super) async fn ask(
        session: &Session,
        settings: &QueueSettings,
    ) -> Result<Self, CallError> {
        let queue = &settings.queue;
        let records = [queue.producer_key("check"), queue.idempotency_prefix() + "check"];
        let job = queue.job_prefix() + "1";
        let waits_for_replicas = if settings.wait_replicas > 0 { "1" } else { "0" };
        let mut words = [SCRIPT, "0"].map(Value::from_static_str).to_vec();
        let keys = queue.script_keys().into_iter().chain(records).chain([job]);
        words.extend(keys.map(Value::from));
        words.push(Value::from_static_str(waits_for_replicas));
        words.push(Value::from_static_str(if settings.events { "1" } else { "0" }));
        Ok(Self { missing: commands(session, words).await? })
    }

    /// Commands that this user may use and that adding jobs does not take; `None` where Redis cannot tell.
    pub(super) async fn excess(
        session: &Session,
        settings: &QueueSettings,
    ) -> Result<Option<Vec<String>>, CallError> {
        let mut words = [EXCESS_SCRIPT, "0"].map(Value::from_static_str).to_vec();
        words.extend(settings.queue.foreign_keys().map(Value::from));
        commands(session, words).await
    }

    /// A sentence for each that is missing, and whether jobs are refused for it.
    pub(super) fn sentences(&self) -> impl Iterator<Item = (String, bool)> {
        self.missing.iter().flatten().map(|right| {
            let command = right.split(' ').next();
            let silent = SILENT.into_iter().find(|(silent, _)| command == Some(silent));
            let effect = silent.map_or("jobs are refused", |(_, effect)| effect);
            (format!("this user may not {right}: {effect}"), silent.is_none())
        })
    }

    /// What it comes to for whoever adds jobs.
    pub(super) fn condition(&self) -> Condition {
        let (refusing, silent): (Vec<_>, Vec<_>) =
            self.sentences().partition(|(_, is_refusing)| *is_refusing);
        let notes = |sentences: Vec<(String, bool)>| sentences.into_iter().map(|(text, _)| text);
        if !refusing.is_empty() {
            return Condition::NotReady(notes(refusing).collect::<Vec<_>>().join("; "));
        }
        if silent.is_empty() {
            Condition::Ready
        } else {
            Condition::Degraded(notes(silent).collect())
        }
    }
}

/// The reply to a script that lists commands, or null.
async fn commands(session: &Session, words: Vec<Value>) -> Result<Option<Vec<String>>, CallError> {
    let reply: Value = session.call("EVAL", words).await?;
    // An empty list is not null, which fred makes of it for an `Option`.
    if reply.is_null() {
        return Ok(None);
    }
    reply.convert().map(Some).map_err(|_| CallError::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_script_is_among_the_rights() {
        let script = include_str!("add_jobs.lua");
        let calls = script.match_indices("call('").chain(script.match_indices("try('"));
        let mut count = 0;
        for (at, start) in calls {
            let command = script[at + start.len()..].split('\'').next().unwrap();
            assert!(SCRIPT.contains(&format!("{{'{command}'")), "{command}");
            count += 1;
        }
        assert!(count > 15, "only {count} calls were found: is the script still read?");
    }

    #[test]
    fn what_refuses_jobs_is_told_before_what_goes_unnoticed() {
        let rights = |missing: &[&str]| Rights {
            missing: Some(missing.iter().map(ToString::to_string).collect()),
        };
        assert_eq!(Rights::default().condition(), Condition::Ready);
        assert_eq!(rights(&[]).condition(), Condition::Ready);
        let note =
            "this user may not DEL bull:q:1: jobs of a request that is answered 503 may stay";
        assert_eq!(
            rights(&["DEL bull:q:1"]).condition(),
            Condition::Degraded(vec![note.to_owned()])
        );
        let reason = "this user may not TIME: jobs are refused".to_owned();
        assert_eq!(rights(&["DEL bull:q:1", "TIME"]).condition(), Condition::NotReady(reason));
    }
}
