//! The script that adds jobs: its call, its reply, and what its errors mean.

use crate::metrics::RedisError;
use crate::queue::batch::producer::{BatchNumber, Producer};
use crate::queue::batch::staging::{is_staged, staged_keys, staging_commands};
use crate::queue::bullmq::idempotency::Idempotency;
use crate::queue::bullmq::job::Jobs;
use crate::queue::bullmq::options::JobOptions;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::redis::reply::{is_denied_to_script, without_script};
use crate::queue::redis::transport::Command;
use crate::queue::settings::QueueSettings;
use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::types::Value;
use fred::types::scripts::Script;
use std::sync::{Arc, LazyLock};

const ADD_JOBS: &str = include_str!("add_jobs.lua");

/// The digest of the script, by which EVALSHA names it.
static DIGEST: LazyLock<Value> =
    LazyLock::new(|| bulk_string(Script::from_lua(ADD_JOBS).sha1().to_string()));

/// The same script with another digest, which distinguishes dry runs from calls that add jobs.
const DRY_RUN_SCRIPT: &str =
    concat!("-- Asks whether jobs would be refused.\n", include_str!("add_jobs.lua"));

/// The script, with the arguments of EVALSHA that are the same for every batch.
#[derive(Debug)]
pub(in crate::queue) struct AddJobs {
    digest: Value,
    keys: Vec<Value>,
    /// The key prefix of jobs and the name of jobs.
    names: [Value; 2],
    producer_key: String,
    options: Arc<ArcSwap<JobOptions>>,
    arguments: Vec<Value>,
    idempotency_prefix: String,
}

/// The outcome of a request that Redis has reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    Added,
    /// Its idempotency key was used before for the same body or delivery, with this number of
    /// matches.
    Repeated {
        matched: usize,
    },
    /// Its idempotency key was used before for another body.
    KeyReused,
    /// Another value holds a key that a job needs. The request has added nothing.
    KeyConflict,
}

/// Why an attempt has not reported the outcome of its batch.
#[derive(Debug)]
pub(in crate::queue) enum ScriptError {
    /// The deadline has passed. No attempt of the batch will be executed.
    Late,
    /// Redis has refused this attempt, with this error message.
    Refused(RedisError, String),
    /// This attempt was never written to the connection.
    NotSent,
    /// The batch was withdrawn before any attempt was executed, and none will be.
    Withdrawn,
    /// This attempt may have been executed.
    Lost(RedisError),
    /// The batch was executed, but fewer replicas than requested have acknowledged it.
    TooFewReplicas,
}

/// One copy of a batch on the wire.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct Attempt<'a> {
    pub(in crate::queue) number: &'a BatchNumber,
    /// Milliseconds on the clock of Redis.
    pub(in crate::queue) deadline: u64,
    /// Milliseconds since 1970 on the local clock when the delivery began. Stored as the
    /// `timestamp` of the jobs.
    pub(in crate::queue) timestamp: u64,
    pub(in crate::queue) requests: &'a [Jobs],
    /// Whether this attempt adds nothing and prevents every later attempt from being executed. If
    /// an earlier attempt was executed, its outcomes are the reply.
    pub(in crate::queue) is_withdrawal: bool,
}

impl<'a> Attempt<'a> {
    /// The requests that the script executes.
    fn executed(self) -> &'a [Jobs] {
        if self.is_withdrawal { &[] } else { self.requests }
    }
}

impl AddJobs {
    pub(in crate::queue) fn new(settings: &QueueSettings, producer: &Producer) -> Self {
        let mut keys = settings.queue.script_keys().to_vec();
        keys.push(settings.queue.producer_key(&producer.id));
        let arguments = [
            settings.paused_layout.as_str().to_owned(),
            u8::from(settings.events).to_string(),
            settings.record_ttl().as_millis().to_string(),
        ];
        Self {
            digest: DIGEST.clone(),
            keys: keys.into_iter().map(bulk_string).collect(),
            producer_key: settings.queue.producer_key(&producer.id),
            names: [settings.queue.job_prefix(), settings.job_name.clone()].map(bulk_string),
            options: Arc::clone(&settings.job),
            arguments: arguments.into_iter().map(bulk_string).collect(),
            idempotency_prefix: settings.queue.idempotency_prefix(),
        }
    }

    /// The arguments of an EVAL that is refused if jobs would be refused, and that writes nothing.
    /// It names every key that a call may name.
    pub(in crate::queue) fn dry_run_arguments(settings: &QueueSettings) -> Vec<Value> {
        let mut producer = Producer::new();
        "check".clone_into(&mut producer.id);
        let mut add_jobs = Self::new(settings, &producer);
        let queue = &settings.queue;
        let other_keys = [queue.idempotency_prefix() + "check", queue.job_prefix() + "1"];
        add_jobs.keys.extend(other_keys.map(bulk_string));
        let number = producer.open_batch();
        let attempt = Attempt {
            number: &number,
            deadline: u64::MAX,
            timestamp: 0,
            requests: &[],
            is_withdrawal: false,
        };
        add_jobs.values(&Value::from_static_str(DRY_RUN_SCRIPT), attempt, &[])
    }

    /// Sends an attempt and returns the outcome of each request.
    pub(in crate::queue) async fn call(
        &self,
        connection: &RedisConnection,
        attempt: Attempt<'_>,
    ) -> Result<Vec<RequestOutcome>, ScriptError> {
        let mut reply = self.send(connection, "EVALSHA", &self.digest, attempt).await;
        // This server does not have the script in its cache, so nothing was executed.
        if matches!(&reply, Err(CallError::Refused(error)) if error.details().starts_with("NOSCRIPT"))
        {
            let script = Value::from_static_str(ADD_JOBS);
            reply = self.send(connection, "EVAL", &script, attempt).await;
        }
        let reply: Bytes = reply.map_err(|error| match error {
            CallError::Lost if connection.is_cluster_down() => {
                ScriptError::Lost(RedisError::Cluster)
            }
            error => error.into(),
        })?;
        let Some(reply) = BatchReply::read(&reply, attempt.number.get(), attempt.requests.len())
        else {
            // After a wrong reply, no other reply on this connection can be trusted.
            connection.give_up();
            return Err(ScriptError::Lost(RedisError::Protocol));
        };
        connection.set_clock(reply.clock);
        connection.set_useful();
        match reply.outcome {
            BatchOutcome::Settled(outcomes) => Ok(outcomes),
            BatchOutcome::Late => Err(ScriptError::Late),
            BatchOutcome::Withdrawn => Err(ScriptError::Withdrawn),
        }
    }

    /// Sends the script, together with the staged hashes if there are any.
    async fn send(
        &self,
        connection: &RedisConnection,
        name: &'static str,
        script: &Value,
        attempt: Attempt<'_>,
    ) -> Result<Bytes, CallError> {
        let number = attempt.number.get();
        let staged = staged_keys(&self.producer_key, number, attempt.executed());
        let arguments = self.values(script, attempt, &staged);
        if staged.is_empty() {
            return connection.call(name, arguments).await;
        }
        let mut commands = self.staging(attempt, staged);
        commands.push((name, arguments));
        connection.transaction(commands).await
    }

    /// The commands that write the staged hashes of an attempt, under these names.
    fn staging(&self, attempt: Attempt<'_>, keys: Vec<Bytes>) -> Vec<Command> {
        let [_, job_name] = &self.names;
        let requests = attempt.executed().iter().filter(|request| is_staged(request));
        let commands = keys.into_iter().zip(requests).flat_map(|(key, request)| {
            let options = self.options.load().json.clone();
            staging_commands(key, job_name.clone(), options, decimal(attempt.timestamp), request)
        });
        commands.collect()
    }

    /// The arguments of EVALSHA or EVAL, in the order that the script documents.
    fn values(&self, script: &Value, attempt: Attempt<'_>, staged: &[Bytes]) -> Vec<Value> {
        let requests = attempt.executed();
        let jobs: usize = requests.iter().map(|request| request.heads.len()).sum();
        let mut values = Vec::with_capacity(32 + requests.len() * 5 + jobs);
        let keys = requests.iter().filter_map(|request| request.idempotency.as_ref());
        let mut staged = staged.iter().cloned().map(Value::Bytes);
        let count = self.keys.len() + keys.clone().count() + staged.len();
        values.extend([script.clone(), decimal(count as u64)]);
        values.extend_from_slice(&self.keys);
        values.extend(keys.map(|Idempotency { key, .. }| {
            bulk_string([&self.idempotency_prefix, key.as_str()].concat())
        }));
        values.extend(staged.clone());
        values.extend_from_slice(&self.names);
        values.push(Value::Bytes(self.options.load().json.clone()));
        values.extend_from_slice(&self.arguments);
        values.extend(
            [
                attempt.number.get(),
                attempt.number.low_water_mark(),
                attempt.deadline,
                attempt.timestamp,
            ]
            .map(decimal),
        );
        values.push(if attempt.is_withdrawal {
            bulk_string("-".to_owned())
        } else {
            decimal(jobs as u64)
        });
        for request in requests {
            let key = if is_staged(request) { staged.next() } else { None };
            append_request(&mut values, request, key);
        }
        values
    }
}

/// Appends a request in one of the forms that the script documents.
fn append_request(values: &mut Vec<Value>, request: &Jobs, staged: Option<Value>) {
    if staged.is_some() || !request.is_short_form() {
        let idempotency = request.idempotency.as_ref();
        let condition = idempotency.map(|each| each.fingerprint_and_lifetime.clone());
        values.push(decimal(request.heads.len() as u64));
        values.push(Value::Bytes(request.options.clone()));
        values.push(Value::Bytes(condition.unwrap_or_default()));
    }
    if let Some(staged) = staged {
        values.extend([staged, Value::from_static_str("")]);
        return;
    }
    if !request.is_short_form() {
        values.push(Value::Bytes(request.tail.clone()));
    }
    values.extend(request.heads.iter().cloned().map(Value::Bytes));
}

fn decimal(number: u64) -> Value {
    bulk_string(number.to_string())
}

fn bulk_string(string: String) -> Value {
    Value::Bytes(Bytes::from(string))
}

/// A reply of the script.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchReply {
    /// Milliseconds since 1970 on the clock of Redis.
    pub clock: u64,
    pub outcome: BatchOutcome,
}

/// The outcome of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The outcome of each request.
    Settled(Vec<RequestOutcome>),
    /// The deadline had passed.
    Late,
    Withdrawn,
}

impl BatchReply {
    /// Parses the reply to an attempt of this batch, which has this many requests; `None` if it is
    /// not a reply to it.
    pub fn read(reply: &[u8], batch: u64, requests: usize) -> Option<Self> {
        let mut words = std::str::from_utf8(reply).ok()?.split(' ');
        // The number distinguishes it from a reply to another batch. `stale` never answers a live
        // attempt, because its `BatchNumber` keeps the low-water mark below it. If it arrives, the
        // reply is wrong.
        let number = parse_number(words.next()?)?;
        let clock = parse_number(words.next()?)?;
        let word = words.next().filter(|_| number == batch)?;
        // More words are of no reply of the script, and nothing else in it can be trusted either.
        if words.next().is_some() {
            return None;
        }
        let outcome = match word {
            "late" => BatchOutcome::Late,
            "-" => BatchOutcome::Withdrawn,
            "*" => BatchOutcome::Settled(vec![RequestOutcome::Added; requests]),
            word => BatchOutcome::Settled(
                parse_outcomes(word).filter(|outcomes| outcomes.len() == requests)?,
            ),
        };
        Some(Self { clock, outcome })
    }
}

/// A number as Redis writes it: digits only. The parser of the standard library accepts a sign.
fn parse_number(word: &str) -> Option<u64> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

/// Each outcome is a letter. A number of jobs follows `R`.
fn parse_outcomes(word: &str) -> Option<Vec<RequestOutcome>> {
    let mut outcomes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        rest = rest.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        outcomes.push(match (letter, number) {
            ('A', "") => RequestOutcome::Added,
            ('E', "") => RequestOutcome::KeyConflict,
            ('X', "") => RequestOutcome::KeyReused,
            ('R', number) => RequestOutcome::Repeated { matched: number.parse().ok()? },
            _ => return None,
        });
        rest = after;
    }
    Some(outcomes)
}

impl From<CallError> for ScriptError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => {
                Self::Refused(refusal_kind(error.details()), error.details().to_owned())
            }
            CallError::NotSent => Self::NotSent,
            CallError::Lost => Self::Lost(RedisError::Connection),
        }
    }
}

/// The kind of an error reply, by its first word.
fn refusal_kind(details: &str) -> RedisError {
    if is_denied_to_script(details) {
        return RedisError::Authentication;
    }
    let error = without_script(details);
    if let Some((_, fault)) = error.split_once("Protocol error: ") {
        return protocol_error(fault);
    }
    if error.contains("Script attempted to access a non local key") {
        return RedisError::Cluster;
    }
    match error.split(' ').next().unwrap_or_default() {
        "OOM" => RedisError::OutOfMemory,
        "READONLY" | "MASTERDOWN" => RedisError::ReadOnly,
        "LOADING" => RedisError::Loading,
        "BUSY" => RedisError::Busy,
        "TRYAGAIN" | "ASK" | "CLUSTERDOWN" => RedisError::Cluster,
        "MISCONF" | "NOREPLICAS" => RedisError::WritesRefused,
        "NOAUTH" | "WRONGPASS" | "NOPERM" => RedisError::Authentication,
        "WRONGTYPE" => RedisError::WrongType,
        _ => RedisError::Other,
    }
}

/// The kind of a protocol error. Redis has not read the whole call, and closes the connection.
fn protocol_error(fault: &str) -> RedisError {
    match fault.trim() {
        "invalid bulk length" | "invalid multibulk length" => RedisError::TooLarge,
        fault if fault.starts_with("unauthenticated") => RedisError::Authentication,
        _ => RedisError::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_to_this_batch_is_accepted() {
        let read = |reply: &str| BatchReply::read(reply.as_bytes(), 1, 2);
        let reply = |outcome| Some(BatchReply { clock: 17, outcome });
        let outcomes =
            |outcomes: &[RequestOutcome]| reply(BatchOutcome::Settled(outcomes.to_vec()));
        assert_eq!(read("1 17 *"), outcomes(&[RequestOutcome::Added, RequestOutcome::Added]));
        assert_eq!(read("1 17 AA"), outcomes(&[RequestOutcome::Added, RequestOutcome::Added]));
        assert_eq!(
            read("1 17 R40X"),
            outcomes(&[RequestOutcome::Repeated { matched: 40 }, RequestOutcome::KeyReused])
        );
        assert_eq!(
            read("1 17 EA"),
            outcomes(&[RequestOutcome::KeyConflict, RequestOutcome::Added])
        );
        assert_eq!(read("1 17 late"), reply(BatchOutcome::Late));
        assert_eq!(read("1 17 -"), reply(BatchOutcome::Withdrawn));
        for other in [
            "",
            "1",
            "1 17",
            "1 17 ",
            "2 17 AA",
            "1 x AA",
            "1 17 A",
            "1 17 AAA",
            "1 17 AR",
            "1 17 A4A",
            "1 17 stale",
            "1 17 AÄ",
            "1 17 AA ",
            "1 17 AA AA",
            "+1 17 AA",
            "1 +17 AA",
            "OK",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn an_error_is_classified_by_its_first_word_after_any_prefix() {
        let redis_6_prefix =
            "ERR Error running script (call to f_5b): @user_script:108: @user_script: 108: -";
        for (details, expected) in [
            ("OOM command not allowed", RedisError::OutOfMemory),
            ("MISCONF Errors writing to the AOF file", RedisError::WritesRefused),
            ("ERR value is not an integer", RedisError::Other),
            ("ERR Protocol error: invalid bulk length", RedisError::TooLarge),
            ("ERR Protocol error: unauthenticated bulk length", RedisError::Authentication),
            ("ERR Protocol error: expected '$', got 'x'", RedisError::Protocol),
            ("TRYAGAIN Multiple keys request during rehashing of slot", RedisError::Cluster),
            ("CLUSTERDOWN Hash slot not served", RedisError::Cluster),
            ("MASTERDOWN Link with MASTER is down", RedisError::ReadOnly),
            (
                "ERR Script attempted to access a non local key in a cluster node script: 5b",
                RedisError::Cluster,
            ),
            (&format!("{redis_6_prefix}READONLY You can't write: so it is"), RedisError::ReadOnly),
            (&format!("{redis_6_prefix}OOM command not allowed"), RedisError::OutOfMemory),
            ("@user_script: 141: -READONLY You can't write", RedisError::ReadOnly),
            ("ERR Error running script (call to f_5b): @user_script:1: oh", RedisError::Other),
            (
                "ERR The user executing the script can't run this command or subcommand script: 5b",
                RedisError::Authentication,
            ),
            (
                "ERR ACL failure in script: User some has no permissions to run the 'incrby' command script: 5b",
                RedisError::Authentication,
            ),
        ] {
            assert_eq!(refusal_kind(details), expected, "{details}");
        }
    }
}
