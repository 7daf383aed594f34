//! What a search begins with: who sends what, and how much may go wrong.

use crate::safeguards::Safeguards;
use crate::script::Command;

/// The size of a search.
#[derive(Debug, Clone)]
pub struct Setting {
    pub requests: Vec<Request>,
    pub batches: Vec<Batch>,
    /// Number of Hookgate processes.
    pub processes: u8,
    /// The last moment of the local clock.
    pub horizon: u8,
    /// Moments from the start of a batch to the latest time at which Redis may execute it. Its
    /// callers are answered one moment later.
    pub window: u8,
    /// How many numbers a producer may use.
    pub most_numbers: u8,
    /// A batch that was in flight when this many connections broke is suspected.
    pub suspect_after: u8,
    /// Whether a 202 waits for the replica.
    pub waits_for_replica: bool,
    /// Ids of jobs whose keys hold another value.
    pub held_jobs: Vec<i64>,
    /// The commands of which one may be refused for a while.
    pub refusable: Vec<Command>,
    /// By how much the clock of the replica is slow.
    pub replica_is_slow_by: u8,
    /// Whether the old primary goes on as one after a failover.
    pub has_two_primaries: bool,
    pub faults: Faults,
    pub safeguards: Safeguards,
}

/// A request of a caller. A request that is sent again is another one.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub jobs: u8,
    /// An idempotency key and a body.
    pub key: Option<(u8, u8)>,
    /// The request that it repeats, once that was not answered with a 202.
    pub repeats: Option<u8>,
}

/// Requests that a process sends together.
#[derive(Debug, Clone)]
pub struct Batch {
    pub process: u8,
    pub requests: Vec<u8>,
}

/// How often each fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// A connection is lost. What was sent over it may still arrive.
    pub losses: u8,
    /// The clock of the primary is set forward, by one moment.
    pub forward: u8,
    /// The clock of the primary is set back, by one moment.
    pub back: u8,
    /// The replica becomes the primary.
    pub failovers: u8,
    /// Every record is removed.
    pub forgotten: u8,
    /// The primary refuses a command, or all writes, for a while.
    pub refusals: u8,
    /// A connection loses one reply and stays open.
    pub shifts: u8,
    /// A process is killed and starts again.
    pub restarts: u8,
}

impl Default for Setting {
    /// One process sends one request with one job. Nothing goes wrong.
    fn default() -> Self {
        Self {
            requests: vec![Request::new(1)],
            batches: vec![Batch { process: 0, requests: vec![0] }],
            processes: 1,
            horizon: 3,
            window: 1,
            most_numbers: 3,
            suspect_after: 2,
            waits_for_replica: false,
            held_jobs: Vec::new(),
            refusable: Vec::new(),
            replica_is_slow_by: 0,
            has_two_primaries: false,
            faults: Faults::default(),
            safeguards: Safeguards::ALL,
        }
    }
}

impl Request {
    pub const fn new(jobs: u8) -> Self {
        Self { jobs, key: None, repeats: None }
    }

    #[must_use]
    pub const fn with_key(self, key: u8, body: u8) -> Self {
        Self { key: Some((key, body)), ..self }
    }

    #[must_use]
    pub const fn repeating(self, request: u8) -> Self {
        Self { repeats: Some(request), ..self }
    }
}
