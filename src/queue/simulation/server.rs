//! A server of the simulation: the model of the script, a clock, and what else Hookgate asks it.

use crate::queue::simulation::ledger::{Ack, Attempt};
use crate::queue::simulation::plan::{Limit, Mode, Refusal};
use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use model::Safeguards;
use model::safeguards::Safeguard;
use model::script::{Batch, BatchResult, Redis, Refusal as Denied};
use std::sync::Arc;
use tokio::time::Instant;

/// Milliseconds since 1970 at the beginning of a run.
const BEGINNING: i64 = 1_700_000_000_000;

/// A command that has arrived at a server.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<Bytes>,
    /// The call of the script, if it is one.
    pub(super) batch: Option<Arc<Batch>>,
}

impl Command {
    pub(super) fn new(name: &'static str, arguments: Vec<Bytes>) -> Self {
        let is_script = match name {
            "EVALSHA" => true,
            "EVAL" => arguments[0].starts_with(b"-- Adds the jobs"),
            _ => false,
        };
        let batch = is_script.then(|| Arc::new(parse(&arguments)));
        Self { name, arguments, batch }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) redis: Redis,
    pub(super) mode: Mode,
    /// How much its clock is fast, in milliseconds.
    pub(super) clock: i64,
    pub(super) has_script: bool,
    /// Counts its restarts, which end every connection.
    pub(super) incarnation: u32,
    /// Counts its writes.
    pub(super) version: u64,
    pub(super) frozen_until: Option<Instant>,
    pub(super) refused: Option<(Refusal, Instant)>,
    begun: Instant,
}

/// What a server replies.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) reply: Result<Value, Error>,
    /// What the reply says of a batch.
    pub(super) ack: Option<Ack>,
    /// The call of the script, if it was one.
    pub(super) attempt: Option<Attempt>,
    pub(super) has_written: bool,
    /// Whether the server ends the connection after the reply, or instead of it.
    pub(super) ending: Option<Ending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    AfterReply,
    Silent,
}

impl Execution {
    pub(super) fn of(reply: Result<Value, Error>) -> Self {
        Self { reply, ack: None, attempt: None, has_written: false, ending: None }
    }

    fn error(details: &str) -> Self {
        let kind = match details.split(' ').next() {
            Some("WRONGTYPE") => ErrorKind::InvalidArgument,
            Some("CLUSTERDOWN") => ErrorKind::Cluster,
            _ => ErrorKind::Unknown,
        };
        Self::of(Err(Error::new(kind, details.to_owned())))
    }
}

impl Server {
    pub(super) fn new(clock: i64, mode: Mode) -> Self {
        Self {
            redis: Redis::default(),
            mode,
            clock,
            has_script: false,
            incarnation: 0,
            version: 0,
            frozen_until: None,
            refused: None,
            begun: Instant::now(),
        }
    }

    /// Milliseconds since 1970 on the clock of this server.
    pub(super) fn now(&self) -> u64 {
        let elapsed = i64::try_from(self.begun.elapsed().as_millis()).unwrap();
        u64::try_from(BEGINNING + elapsed + self.clock).unwrap()
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refused.filter(|(_, until)| Instant::now() < *until).map(|(refusal, _)| refusal)
    }

    pub(super) fn execute(
        &mut self,
        command: &Command,
        limit: Option<Limit>,
        safeguards: Safeguards,
    ) -> Execution {
        if let Some(execution) = limit.and_then(|limit| refuse_size(command, limit)) {
            return execution;
        }
        match self.refusal() {
            Some(Refusal::Loading) => {
                return Execution::error("LOADING Redis is loading the dataset in memory");
            }
            Some(Refusal::Busy) if command.name != "TIME" => {
                return Execution::error("BUSY Redis is busy running a script.");
            }
            _ => {}
        }
        if let Some(batch) = &command.batch {
            if command.name == "EVALSHA" && !self.has_script {
                return Execution::error("NOSCRIPT No matching script. Please use EVAL.");
            }
            self.has_script = true;
            return self.add_jobs(batch, safeguards);
        }
        match command.name {
            "TIME" => self.time(),
            // The script that asks whether CONFIG may be used.
            "EVAL" => Execution::of(Ok(Value::Integer(i64::from(
                limit.is_some_and(|limit| limit.is_readable),
            )))),
            "CONFIG" => Execution::of(Ok(config(command, limit))),
            "GETBIT" => find_bit(command, limit),
            other => Execution::error(&format!("ERR unknown command '{other}'")),
        }
    }

    fn time(&self) -> Execution {
        let now = i64::try_from(self.now()).unwrap();
        let time = [now / 1000, now % 1000 * 1000].map(Value::Integer);
        Execution::of(Ok(Value::Array(time.to_vec())))
    }

    fn add_jobs(&mut self, batch: &Batch, safeguards: Safeguards) -> Execution {
        match self.refusal() {
            Some(Refusal::TryAgain) => {
                return Execution::error("TRYAGAIN Multiple keys request during rehashing of slot");
            }
            Some(Refusal::ClusterDown) => {
                // fred ends the connection, and returns this error for every waiting call.
                let down = Execution::error("CLUSTERDOWN The cluster is down");
                return Execution { ending: Some(Ending::AfterReply), ..down };
            }
            _ => {}
        }
        self.apply_refusal();
        let record = self.redis.producers.get(&batch.keys.producer);
        let is_known = record
            .is_some_and(|record| record.results.iter().any(|(number, _)| *number == batch.number));
        let now = self.now();
        let result = self.redis.add_jobs(now, batch, safeguards);
        let attempt = Some(Attempt::new(batch));
        match result {
            Ok(reply) => {
                let is_write = match reply.result {
                    BatchResult::Stale => false,
                    _ => !is_known || safeguards.has(Safeguard::ProofOfPrimary),
                };
                self.version += u64::from(is_write);
                Execution {
                    ack: Some(Ack::new(batch, &reply.result, is_known, self.mode)),
                    attempt,
                    has_written: is_write,
                    ..Execution::of(Ok(Value::Bytes(reply.to_string().into())))
                }
            }
            Err(error) => Execution { attempt, ..Execution::error(&error.to_string()) },
        }
    }

    /// Sets what the script is refused at present.
    fn apply_refusal(&mut self) {
        let (mut denied, mut forbidden) = (None, None);
        match self.refusal() {
            Some(Refusal::Memory) => denied = Some(Denied::OutOfMemory),
            Some(Refusal::Save) => denied = Some(Denied::TooFewReplicas),
            Some(Refusal::ReadOnly) => denied = Some(Denied::ReadOnly),
            Some(Refusal::Permission(command)) => forbidden = Some(command),
            _ => {}
        }
        if matches!(self.mode, Mode::Replica | Mode::Demoted) {
            denied = Some(Denied::ReadOnly);
        }
        (self.redis.refusal, self.redis.forbidden) = (denied, forbidden);
    }
}

fn parse(arguments: &[Bytes]) -> Batch {
    let keys: usize = std::str::from_utf8(&arguments[1]).unwrap().parse().unwrap();
    let owned = |values: &[Bytes]| values.iter().map(|value| value.to_vec()).collect::<Vec<_>>();
    let (keys, arguments) = arguments[2..].split_at(keys);
    Batch::parse(&owned(keys), &owned(arguments)).expect("a call of the script")
}

/// What happens to a call that is too large, if it is.
fn refuse_size(command: &Command, limit: Limit) -> Option<Execution> {
    let sizes = command.arguments.iter().map(Bytes::len);
    // Of a call that has its script with it, only the arguments count here.
    let sizes = sizes.skip(usize::from(command.name == "EVAL"));
    if limit.is_of_argument {
        let error = || Execution::error("ERR Protocol error: invalid bulk length");
        let is_over = sizes.max().is_some_and(|largest| largest > limit.bytes);
        return is_over.then(|| Execution { ending: Some(Ending::AfterReply), ..error() });
    }
    let silent = || Execution::of(Ok(Value::Null));
    (sizes.sum::<usize>() > limit.bytes)
        .then(|| Execution { ending: Some(Ending::Silent), ..silent() })
}

fn config(command: &Command, limit: Option<Limit>) -> Value {
    let name = std::str::from_utf8(&command.arguments[1]).unwrap();
    let bytes = match (limit, name) {
        (Some(limit), "proto-max-bulk-len") if limit.is_of_argument => limit.bytes,
        (Some(limit), "maxmemory-clients") if !limit.is_of_argument => limit.bytes,
        _ => 0,
    };
    let pair = [name.to_owned(), bytes.to_string()];
    Value::Array(pair.map(|each| Value::String(each.into())).to_vec())
}

fn find_bit(command: &Command, limit: Option<Limit>) -> Execution {
    let offset: usize = std::str::from_utf8(&command.arguments[1]).unwrap().parse().unwrap();
    let limit = limit.filter(|limit| limit.is_of_argument);
    if limit.is_some_and(|limit| offset / 8 >= limit.bytes) {
        return Execution::error("ERR bit offset is not an integer or out of range");
    }
    Execution::of(Ok(Value::Integer(0)))
}
