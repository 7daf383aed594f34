//! The faults on connections through a [`ChaosProxy`](super::chaos::ChaosProxy), and counts of what
//! has passed.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut, RangeInclusive};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::resp::Talk;

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToRedis,
    ToClient,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST: bytes that the other side has not read may be lost.
    Reset,
    /// FIN: the other side can read everything that was forwarded.
    Fin,
}

/// A value for each direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways<T> {
    pub to_redis: T,
    pub to_client: T,
}

impl<T> Index<Way> for Ways<T> {
    type Output = T;

    fn index(&self, way: Way) -> &T {
        match way {
            Way::ToRedis => &self.to_redis,
            Way::ToClient => &self.to_client,
        }
    }
}

impl<T> IndexMut<Way> for Ways<T> {
    fn index_mut(&mut self, way: Way) -> &mut T {
        match way {
            Way::ToRedis => &mut self.to_redis,
            Way::ToClient => &mut self.to_client,
        }
    }
}

/// What the proxy has counted so far.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Connections of clients that it accepted.
    pub accepted: u64,
    /// Connections of clients that it reset at once.
    pub refused: u64,
    /// Connections whose client is connected now.
    pub open: usize,
    /// Connections that it has cut.
    pub cuts: u64,
    /// Bytes that it has forwarded.
    pub bytes: Ways<u64>,
    /// Writes by which it forwarded them.
    pub writes: Ways<u64>,
}

/// Bytes that the proxy has read and not yet forwarded to Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub connections: usize,
    pub bytes: usize,
    /// Number of connections among these whose client has gone.
    pub late: usize,
}

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gate {
    #[default]
    Open,
    /// Bytes are neither read nor forwarded.
    Stalled,
    /// Bytes are read and kept.
    Held,
}

/// A cut after a number of further bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) how: Cut,
}

/// The faults on one direction of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) gate: Gate,
    pub(super) single_bytes: bool,
    pub(super) gather: Option<Duration>,
    pub(super) delay: Option<RangeInclusive<Duration>>,
    pub(super) cut: Option<Budget>,
    pub(super) insert: Option<Vec<u8>>,
}

/// A connection is late when its client has gone and Redis still sees it open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Late {
    #[default]
    No,
    Waiting,
    Delivering,
}

/// The part of a connection that other tasks than its own read or change.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) rules: Ways<Rules>,
    pub(super) cut: Option<Cut>,
    pub(super) talk: Talk,
    /// Bytes that have been read and not yet forwarded.
    pub(super) queued: Ways<usize>,
    pub(super) late: Late,
}

impl Line {
    pub(super) fn is_open(&self) -> bool {
        self.cut.is_none() && self.late == Late::No
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) redis_port: u16,
    pub(super) refuses: bool,
    /// Connections that have not ended, in the order of their arrival.
    pub(super) lines: BTreeMap<u64, Line>,
    /// The rules of new connections.
    pub(super) future: Ways<Rules>,
    /// Cuts the connection that carries the last byte, whichever that is.
    pub(super) cut: Ways<Option<Budget>>,
    /// Number of script calls, or of replies to them, to lose on any connection.
    pub(super) lose: Ways<Option<(usize, Cut)>>,
    pub(super) counts: Counts,
    pub(super) random: fastrand::Rng,
    /// What Redis has answered on late connections.
    pub(super) late_answers: Vec<Vec<u8>>,
}

impl State {
    /// A connection that has not ended.
    pub(super) fn line(&mut self, id: u64) -> &mut Line {
        self.lines.get_mut(&id).expect("only the connection itself removes it")
    }

    pub(super) fn add_line(&mut self) -> u64 {
        self.counts.accepted += 1;
        let id = self.counts.accepted;
        self.lines.insert(id, Line { rules: self.future.clone(), ..Line::default() });
        id
    }

    pub(super) fn cut_open_lines(&mut self, how: Cut) {
        for line in self.lines.values_mut().filter(|line| line.is_open()) {
            line.cut = Some(how);
            self.counts.cuts += 1;
        }
    }

    /// Parses what passes. Returns how to cut the connection if these bytes are to be lost.
    pub(super) fn loses(&mut self, id: u64, way: Way, bytes: &[u8]) -> Option<Cut> {
        let talk = &mut self.line(id).talk;
        let is_script = match way {
            Way::ToRedis => talk.read_client(bytes),
            Way::ToClient => talk.read_redis(bytes),
        };
        let lose = self.lose[way].as_mut().filter(|_| is_script)?;
        let (left, how) = (lose.0 - 1, lose.1);
        self.lose[way] = (left > 0).then_some((left, how));
        self.counts.cuts += 1;
        Some(how)
    }

    /// Number of the `wanted` bytes that may pass before a cut.
    pub(super) fn allowance(&mut self, id: u64, way: Way, wanted: usize) -> usize {
        let rules = &self.line(id).rules[way];
        let most = if rules.single_bytes { 1 } else { wanted };
        let budgets = [rules.cut, self.cut[way]].into_iter().flatten();
        budgets.fold(most, |most, budget| most.min(usize::try_from(budget.bytes).unwrap_or(most)))
    }

    /// Counts forwarded bytes. Returns how to cut the connection if a cut is due after them.
    pub(super) fn forwarded(&mut self, id: u64, way: Way, bytes: usize) -> Option<Cut> {
        let count = bytes as u64;
        self.counts.bytes[way] += count;
        self.counts.writes[way] += 1;
        let line = self.lines.get_mut(&id).expect("the connection is forwarding");
        line.queued[way] -= bytes;
        let mut cut = None;
        for budget in [&mut line.rules[way].cut, &mut self.cut[way]] {
            let Some(left) = budget else { continue };
            left.bytes -= count;
            if left.bytes == 0 {
                cut = Some(left.how);
                *budget = None;
            }
        }
        self.counts.cuts += u64::from(cut.is_some());
        cut
    }
}

/// The state, and a signal to all connections that it has changed.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new(redis_port: u16, seed: u64) -> Self {
        let state = State {
            redis_port,
            refuses: false,
            lines: BTreeMap::new(),
            future: Ways::default(),
            cut: Ways::default(),
            lose: Ways::default(),
            counts: Counts::default(),
            random: fastrand::Rng::with_seed(seed),
            late_answers: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }
}
