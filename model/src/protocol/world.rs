//! A state of the protocol: servers, connections, processes, and what their callers know.

use super::properties::Property;
use super::setting::Faults;
use crate::script::{BatchResult, Redis};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A moment, on a clock that advances by one at a time.
pub(super) type Moment = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The local clock of every process.
    pub(super) now: Moment,
    /// Two servers: one is the primary, the other its replica.
    pub(super) servers: [Server; 2],
    pub(super) primary: usize,
    /// Number of failovers.
    pub(super) epoch: u8,
    pub(super) processes: Vec<Process>,
    /// The batch numbers of each producer. Each process has two producers: for the shared connection
    /// and for batches that are sent alone.
    pub(super) producers: Vec<Producer>,
    pub(super) connections: BTreeMap<u8, Connection>,
    /// Calls of lost connections, which may still arrive.
    pub(super) held: Vec<HeldCalls>,
    pub(super) deliveries: BTreeMap<u8, Delivery>,
    /// The batches that were started.
    pub(super) started: BTreeSet<u8>,
    /// What the caller of each request was answered.
    pub(super) answers: Vec<Option<Answer>>,
    /// Properties that an action has violated. The others are read from the state.
    pub(super) violated: BTreeSet<Property>,
    pub(super) left: Faults,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) redis: Arc<Redis>,
    /// What its clock is ahead of the local one.
    pub(super) ahead: Moment,
    /// Number of its last write. It stays 0 where no call waits for a replica.
    pub(super) written: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Process {
    /// The shared connection.
    pub(super) connection: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Producer {
    /// Which of the names that were ever drawn it has.
    pub(super) name: u8,
    pub(super) last: u8,
    pub(super) open: BTreeSet<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    pub(super) process: u8,
    /// Whether only one batch uses it.
    pub(super) is_alone: bool,
    pub(super) server: usize,
    /// It accepts no new calls.
    pub(super) is_closing: bool,
    pub(super) clock: Reading,
    pub(super) calls: Vec<Call>,
    pub(super) replies: Vec<Reply>,
    /// The deliveries that wait for a reply, in the order of their calls; `None`: one that has ended.
    pub(super) waiting: Vec<Option<u8>>,
    /// The last write of this connection, which WAIT counts from.
    pub(super) written: u8,
}

/// The clock of a server, as a reply reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) server: Moment,
    pub(super) local: Moment,
}

/// An attempt on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Call {
    /// The name of the producer.
    pub(super) producer: u8,
    pub(super) number: u8,
    pub(super) mark: u8,
    pub(super) deadline: Moment,
    pub(super) requests: Vec<u8>,
    pub(super) is_withdrawal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct HeldCalls {
    pub(super) server: usize,
    pub(super) calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reply {
    pub(super) number: u8,
    pub(super) clock: Moment,
    /// `Err`: Redis has refused the attempt; `true`: because it is no primary.
    pub(super) result: Result<BatchResult, bool>,
    /// Whether the call has written, so that WAIT on its connection counts from it.
    pub(super) is_write: bool,
    /// The failovers before it was made.
    pub(super) epoch: u8,
}

/// A batch that a process delivers, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Delivery {
    pub(super) process: u8,
    pub(super) requests: Vec<u8>,
    pub(super) latest: Moment,
    pub(super) number: Option<u8>,
    /// On the clock of the server.
    pub(super) deadline: Option<Moment>,
    /// Whether an attempt may have been executed.
    pub(super) is_in_doubt: bool,
    /// Number of connections that broke while the batch was in flight on them.
    pub(super) broken: u8,
    /// Number of attempts that were refused.
    pub(super) refused: u8,
    pub(super) way: Way,
    pub(super) stage: Stage,
}

/// How a batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Shared,
    /// Over a connection of its own. The shared connection was there before.
    Alone {
        witness: Option<u8>,
    },
    /// Its own connection was lost: it is withdrawn over the shared one.
    Withdrawn {
        witness: Option<u8>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Ready,
    Sent(u8),
    /// It was added, and the replica has to have this write.
    Replicating {
        connection: u8,
        written: u8,
        result: BatchResult,
        epoch: u8,
    },
}

/// What a caller was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// 202; an idempotency key may repeat an earlier answer.
    Accepted { repeats: Option<u8>, epoch: u8 },
    /// 422: the idempotency key was used for another body.
    KeyReused,
    /// 503 with `none`, or 413.
    Nothing,
    /// 503 with `unknown`.
    Unknown,
    /// The process was killed.
    Unanswered,
}

impl World {
    pub(super) fn redis(&self) -> &Redis {
        match &self.servers {
            [first, _] if self.primary == 0 => &first.redis,
            [_, second] => &second.redis,
        }
    }

    pub(super) fn server(&mut self, server: usize) -> &mut Server {
        match &mut self.servers {
            [first, _] if server == 0 => first,
            [_, second] => second,
        }
    }

    /// The jobs of a request that are in the lists of the primary.
    pub(super) fn jobs(&self, request: u8) -> Vec<u8> {
        jobs(self.redis(), request)
    }
}

/// The jobs of a request in the lists of a server.
pub(super) fn jobs(redis: &Redis, request: u8) -> Vec<u8> {
    let listed = redis.listed().filter_map(|id| redis.jobs.get(&id));
    let of_request = listed.filter_map(|job| match job.data.as_bytes() {
        [tag, job] if *tag == request => Some(*job),
        _ => None,
    });
    of_request.collect()
}
