//! What a connection holds.

use crate::queue::simulation::ledger::Ack;
use crate::queue::simulation::server::Command;
use bytes::Bytes;
use fred::error::Error;
use fred::types::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: usize,
    pub(super) incarnation: u32,
    /// On their way to the server.
    pub(super) calls: VecDeque<Call>,
    /// On their way back.
    pub(super) replies: VecDeque<PendingReply>,
    /// When the server reads the next call, which it does not do during WAIT.
    pub(super) reads_at: Instant,
    pub(super) is_silent: bool,
    /// Whether the server ends the connection after its last reply.
    pub(super) is_ending: bool,
    pub(super) end: Option<Error>,
    /// The version of the server after the last write over this connection.
    pub(super) last_write: u64,
    /// Whether it is the connection of an isolated batch.
    pub(super) is_alone: bool,
    /// The requests of the batches that were sent alone.
    pub(super) alone: BTreeSet<usize>,
    /// The last reply of the script.
    pub(super) last_text: Option<Bytes>,
    /// The reply that is delivered instead of the next one, once one reply was too many.
    pub(super) shifted: Option<Result<Value, Error>>,
    pub(super) wake: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) command: Command,
    pub(super) arrives: Instant,
    pub(super) answer: oneshot::Sender<Result<Value, Error>>,
}

#[derive(Debug)]
pub(super) struct PendingReply {
    pub(super) arrives: Instant,
    pub(super) result: Result<Value, Error>,
    /// `None` if the reply is a wrong one.
    pub(super) ack: Option<Ack>,
    pub(super) answer: oneshot::Sender<Result<Value, Error>>,
}

/// What a connection waits for.
pub(super) enum Turn {
    Ended(Error),
    Until(Instant),
    Idle,
}

impl Link {
    pub(super) fn new(server: usize, incarnation: u32) -> Self {
        Self {
            server,
            incarnation,
            calls: VecDeque::new(),
            replies: VecDeque::new(),
            reads_at: Instant::now(),
            is_silent: false,
            is_ending: false,
            end: None,
            last_write: 0,
            is_alone: false,
            alone: BTreeSet::new(),
            last_text: None,
            shifted: None,
            wake: Arc::default(),
        }
    }
}

/// What happens to a call that is sent.
pub(super) enum Sent {
    Awaited(oneshot::Receiver<Result<Value, Error>>),
    NotWritten,
    Kept,
}
