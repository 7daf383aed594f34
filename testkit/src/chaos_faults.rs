//! What is to go wrong on connections through a [`ChaosProxy`](super::chaos::ChaosProxy), and what has happened there.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut, RangeInclusive};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::resp::Talk;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToRedis,
    ToClient,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST: what the other side has not read may be gone.
    Reset,
    /// FIN: what was forwarded is read to its end.
    Fin,
}

/// One for each direction.
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

/// What the proxy has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Connections of clients that it took.
    pub accepted: u64,
    /// Connections of clients that it reset at once.
    pub refused: u64,
    /// Connections whose client is there now.
    pub open: usize,
    /// Connections that it has cut.
    pub cuts: u64,
    /// Bytes that it has forwarded.
    pub bytes: Ways<u64>,
    /// In how many writes.
    pub writes: Ways<u64>,
}

/// What the proxy has read and not yet forwarded to Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub connections: usize,
    pub bytes: usize,
    /// How many of the connections have lost their client.
    pub late: usize,
}

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Gate {
    #[default]
    Open,
    /// Neither read nor forwarded.
    Stalled,
    /// Read, and kept.
    Held,
}

/// A cut behind so many more bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) how: Cut,
}

/// What happens to one direction of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) gate: Gate,
    pub(super) single_bytes: bool,
    pub(super) gather: Option<Duration>,
    pub(super) delay: Option<RangeInclusive<Duration>>,
    pub(super) cut: Option<Budget>,
    pub(super) insert: Option<Vec<u8>>,
}

/// A connection is late when its client has gone and Redis has not been told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Late {
    #[default]
    No,
    Waiting,
    Delivering,
}

/// A connection, as far as others than itself must know it.
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
    /// Connections that have not ended, by the order of their arrival.
    pub(super) lines: BTreeMap<u64, Line>,
    /// What a new connection begins with.
    pub(super) future: Ways<Rules>,
    /// Cuts whichever connection carries the last byte.
    pub(super) cut: Ways<Option<Budget>>,
    /// Script calls, or replies to them, that are lost on whichever connection.
    pub(super) lose: Ways<Option<(usize, Cut)>>,
    pub(super) counts: Counts,
    pub(super) random: fastrand::Rng,
    /// What Redis has answered on late connections.
    pub(super) late_answers: Vec<Vec<u8>>,
}

impl State {
    /// A connection that has not ended.
    pub(super) fn line(&mut self, id: u64) -> &mut Line {
        self.lines.get_mut(&id).expect("only the connection itself takes it out")
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

    /// Listens to what passes, and tells whether it is to be swallowed and the connection cut.
    pub(super) fn loses(&mut self, id: u64, way: Way, bytes: &[u8]) -> Option<Cut> {
        let talk = &mut self.line(id).talk;
        let heard_script = match way {
            Way::ToRedis => talk.hear_client(bytes),
            Way::ToClient => talk.hear_redis(bytes),
        };
        let lose = self.lose[way].as_mut().filter(|_| heard_script)?;
        let (left, how) = (lose.0 - 1, lose.1);
        self.lose[way] = (left > 0).then_some((left, how));
        self.counts.cuts += 1;
        Some(how)
    }

    /// How many of `wanted` bytes may pass before a cut.
    pub(super) fn allowance(&mut self, id: u64, way: Way, wanted: usize) -> usize {
        let rules = &self.line(id).rules[way];
        let most = if rules.single_bytes { 1 } else { wanted };
        let budgets = [rules.cut, self.cut[way]].into_iter().flatten();
        budgets.fold(most, |most, budget| most.min(usize::try_from(budget.bytes).unwrap_or(most)))
    }

    /// Counts forwarded bytes; tells whether the connection is to be cut behind them.
    pub(super) fn forwarded(&mut self, id: u64, way: Way, bytes: usize) -> Option<Cut> {
        let count = bytes as u64;
        self.counts.bytes[way] += count;
        self.counts.writes[way] += 1;
        let line = self.lines.get_mut(&id).expect("it is forwarding");
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

/// The state, and a word to all connections when it has changed.
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
