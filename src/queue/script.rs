//! The script that adds jobs: its call, its reply, and what its errors mean.

use super::QueueSettings;
use super::idempotency::Idempotency;
use super::job::Jobs;
use super::options::JobOptions;
use super::producer::{BatchNumber, Producer};
use super::session::{CallError, Session};
use crate::metrics::RedisError;
use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::types::Value;
use fred::types::scripts::Script;
use std::sync::Arc;

const ADD_JOBS: &str = include_str!("add_jobs.lua");

/// The same script under another digest, by which its calls are told from those that add jobs.
const WOULD_ADD: &str =
    concat!("-- Asks whether jobs would be refused.\n", include_str!("add_jobs.lua"));

/// The arguments of EVALSHA that do not depend on what is in a batch.
#[derive(Debug)]
pub(super) struct AddJobs {
    digest: Value,
    keys: Vec<Value>,
    /// Key prefix of jobs and their name.
    names: [Value; 2],
    options: Arc<ArcSwap<JobOptions>>,
    arguments: Vec<Value>,
    idempotency_prefix: String,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Added,
    /// Its idempotency key has been used for the same body, which had so many matches.
    Repeated {
        matched: usize,
    },
    /// Its idempotency key has been used for another body.
    KeyReused,
    /// A key that a job needs is held by something else. It has added nothing.
    InTheWay,
}

/// Why a batch has no fates.
#[derive(Debug)]
pub(super) enum Failure {
    /// Its deadline has passed, and it will not be carried out.
    Late,
    /// Redis has refused this copy of it, in these words.
    Refused(RedisError, String),
    /// This copy was never written.
    NotSent,
    /// The batch was taken back before any copy was carried out, and none will be.
    Withdrawn,
    /// It may have been carried out.
    Lost(RedisError),
    /// It was carried out, but fewer replicas than asked for are known to have it.
    TooFewReplicas,
}

/// One copy of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy<'a> {
    pub(super) number: &'a BatchNumber,
    /// Milliseconds by the clock of Redis.
    pub(super) deadline: u64,
    /// Milliseconds since 1970 by our own clock, that the jobs bear as the time at which they were added.
    pub(super) timestamp: u64,
    pub(super) requests: &'a [Jobs],
    /// Whether it adds nothing and keeps every other copy from being carried out. If one already was, its fates are the
    /// reply.
    pub(super) is_withdrawal: bool,
}

impl AddJobs {
    pub(super) fn new(settings: &QueueSettings, producer: &Producer) -> Self {
        let mut keys = settings.queue.script_keys().to_vec();
        keys.push(settings.queue.producer_key(&producer.id));
        let arguments = [
            settings.paused_layout.word().to_owned(),
            u8::from(settings.events).to_string(),
            settings.record_life().as_millis().to_string(),
            settings.idempotency.ttl.as_millis().max(1).to_string(),
        ];
        Self {
            digest: text(Script::from_lua(ADD_JOBS).sha1().to_string()),
            keys: keys.into_iter().map(text).collect(),
            names: [settings.queue.job_prefix(), settings.job_name.clone()].map(text),
            options: Arc::clone(&settings.job),
            arguments: arguments.into_iter().map(text).collect(),
            idempotency_prefix: settings.queue.idempotency_prefix(),
        }
    }

    /// The arguments of an EVAL that is refused if jobs would be, and writes nothing. It has all keys that a call may have.
    pub(super) fn would_add(settings: &QueueSettings) -> Vec<Value> {
        let mut producer = Producer::new();
        "check".clone_into(&mut producer.id);
        let mut add_jobs = Self::new(settings, &producer);
        let queue = &settings.queue;
        let more = [queue.idempotency_prefix() + "check", queue.job_prefix() + "1"];
        add_jobs.keys.extend(more.map(text));
        let number = producer.open_batch();
        let copy = Copy {
            number: &number,
            deadline: u64::MAX,
            timestamp: 0,
            requests: &[],
            is_withdrawal: false,
        };
        add_jobs.values(&Value::from_static_str(WOULD_ADD), copy)
    }

    /// Sends a copy of a batch and comes back with what became of each request.
    pub(super) async fn call(
        &self,
        session: &Session,
        copy: Copy<'_>,
    ) -> Result<Vec<Fate>, Failure> {
        let mut reply = session.call("EVALSHA", self.values(&self.digest, copy)).await;
        // This server does not know the script (yet, or any more), so nothing was done.
        if matches!(&reply, Err(CallError::Refused(error)) if error.details().starts_with("NOSCRIPT"))
        {
            let script = Value::from_static_str(ADD_JOBS);
            reply = session.call("EVAL", self.values(&script, copy)).await;
        }
        let reply: Bytes = reply.map_err(|error| match error {
            CallError::Lost if session.is_cluster_down() => Failure::Lost(RedisError::Cluster),
            error => error.into(),
        })?;
        let Some(reply) = Reply::read(&reply, copy) else {
            // Whatever else comes over this connection cannot be believed either.
            session.give_up();
            return Err(Failure::Lost(RedisError::Protocol));
        };
        session.set_clock(reply.clock);
        session.set_useful();
        match reply.became {
            Became::Settled(fates) => Ok(fates),
            Became::Late => Err(Failure::Late),
            Became::Withdrawn => Err(Failure::Withdrawn),
        }
    }

    /// The arguments of EVALSHA, in the order that the script gives.
    fn values(&self, script: &Value, copy: Copy<'_>) -> Vec<Value> {
        let requests = if copy.is_withdrawal { &[] } else { copy.requests };
        let jobs: usize = requests.iter().map(|request| request.heads.len()).sum();
        let mut values = Vec::with_capacity(32 + requests.len() * 5 + jobs);
        let keys = requests.iter().filter_map(|request| request.idempotency.as_ref());
        values.extend([script.clone(), decimal((self.keys.len() + keys.clone().count()) as u64)]);
        values.extend_from_slice(&self.keys);
        values.extend(keys.map(|Idempotency { key, .. }| {
            text([&self.idempotency_prefix, key.as_str()].concat())
        }));
        values.extend_from_slice(&self.names);
        values.push(Value::Bytes(self.options.load().json.clone()));
        values.extend_from_slice(&self.arguments);
        values.extend(
            [copy.number.get(), copy.number.low_water_mark(), copy.deadline, copy.timestamp]
                .map(decimal),
        );
        values.push(if copy.is_withdrawal { text("-".to_owned()) } else { decimal(jobs as u64) });
        for request in requests {
            if !request.is_ordinary() {
                let fingerprint = request.idempotency.as_ref().map(|each| each.fingerprint.clone());
                values.push(decimal(request.heads.len() as u64));
                values.push(Value::Bytes(request.options.clone()));
                values.push(Value::Bytes(fingerprint.unwrap_or_default()));
                values.push(Value::Bytes(request.tail.clone()));
            }
            values.extend(request.heads.iter().cloned().map(Value::Bytes));
        }
        values
    }
}

fn decimal(number: u64) -> Value {
    text(number.to_string())
}

fn text(text: String) -> Value {
    Value::Bytes(Bytes::from(text))
}

/// What the script has answered.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    /// Milliseconds since 1970, by the clock of Redis.
    clock: u64,
    became: Became,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// Of each request.
    Settled(Vec<Fate>),
    /// It came too late.
    Late,
    Withdrawn,
}

impl Reply {
    /// Reads a reply to this copy; `None` if it is none.
    fn read(reply: &[u8], copy: Copy<'_>) -> Option<Self> {
        let mut words = std::str::from_utf8(reply).ok()?.split(' ');
        // The number tells it from a reply to another batch.
        let number: u64 = words.next()?.parse().ok()?;
        let clock = words.next()?.parse().ok()?;
        let word = words.next().filter(|_| number == copy.number.get())?;
        let became = match word {
            "late" => Became::Late,
            "-" => Became::Withdrawn,
            "*" => Became::Settled(vec![Fate::Added; copy.requests.len()]),
            word => {
                Became::Settled(fates(word).filter(|fates| fates.len() == copy.requests.len())?)
            }
        };
        Some(Self { clock, became })
    }
}

/// Each fate is a letter, with a number behind `R`.
fn fates(word: &str) -> Option<Vec<Fate>> {
    let mut fates = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        rest = rest.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        fates.push(match (letter, number) {
            ('A', "") => Fate::Added,
            ('E', "") => Fate::InTheWay,
            ('X', "") => Fate::KeyReused,
            ('R', number) => Fate::Repeated { matched: number.parse().ok()? },
            _ => return None,
        });
        rest = behind;
    }
    Some(fates)
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => {
                Self::Refused(refusal(error.details()), error.details().to_owned())
            }
            CallError::NotSent => Self::NotSent,
            CallError::Lost => Self::Lost(RedisError::Connection),
        }
    }
}

/// What an error reply begins with tells why. Redis 6 puts what has come up in a script behind a preface:
/// `ERR Error running script (call to f_…): @user_script:108: @user_script: 108: -READONLY You can't…`
fn refusal(details: &str) -> RedisError {
    let within =
        details.starts_with("ERR Error running script").then(|| details.rsplit_once(": -"));
    let error = within.flatten().map_or(details, |(_, error)| error);
    if error.contains("The user executing the script can't") {
        return RedisError::Authentication;
    }
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

/// Redis has not read the call to its end, and ends the connection.
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
    fn a_reply_is_believed_if_it_is_to_this_batch() {
        let producer = Producer::new();
        let requests = [Jobs::default(), Jobs::default()];
        let copy = Copy {
            number: &producer.open_batch(),
            deadline: 0,
            timestamp: 0,
            requests: &requests,
            is_withdrawal: false,
        };
        let read = |reply: &str| Reply::read(reply.as_bytes(), copy);
        let reply = |became| Some(Reply { clock: 17, became });
        let fates = |fates: &[Fate]| reply(Became::Settled(fates.to_vec()));
        assert_eq!(read("1 17 *"), fates(&[Fate::Added, Fate::Added]));
        assert_eq!(read("1 17 AA"), fates(&[Fate::Added, Fate::Added]));
        assert_eq!(read("1 17 R40X"), fates(&[Fate::Repeated { matched: 40 }, Fate::KeyReused]));
        assert_eq!(read("1 17 EA"), fates(&[Fate::InTheWay, Fate::Added]));
        assert_eq!(read("1 17 late"), reply(Became::Late));
        assert_eq!(read("1 17 -"), reply(Became::Withdrawn));
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
            "OK",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn an_error_is_told_by_its_first_word_wherever_it_stands() {
        let of_redis_6 =
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
            (&format!("{of_redis_6}READONLY You can't write: so it is"), RedisError::ReadOnly),
            (&format!("{of_redis_6}OOM command not allowed"), RedisError::OutOfMemory),
            ("ERR Error running script (call to f_5b): @user_script:1: oh", RedisError::Other),
            (
                "ERR The user executing the script can't run this command or subcommand script: 5b",
                RedisError::Authentication,
            ),
        ] {
            assert_eq!(refusal(details), expected, "{details}");
        }
    }
}
