//! What a seed chooses before its run begins: settings, chances of faults, the steps of the
//! surroundings, and requests.
//!
//! Each class of faults is switched on or off as a whole, because some sequences need that others
//! do not interfere.

use fastrand::Rng;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) enqueue_timeout: Duration,
    pub(super) wait_replicas: usize,
    pub(super) max_jobs: usize,
    pub(super) max_bytes: usize,
    pub(super) max_in_flight: usize,
    /// Number of processes, each with its own connection and producer.
    pub(super) processes: usize,
    pub(super) faults: Faults,
    pub(super) clocks: [i64; 2],
    pub(super) limit: Option<Limit>,
    pub(super) steps: Vec<(u64, Step)>,
    pub(super) requests: Vec<RequestPlan>,
    pub(super) drain_at: Option<u64>,
    /// When the faults end.
    pub(super) heals_at: u64,
}

/// Chances of faults, of a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) connect_refused: u32,
    pub(super) cut_before: u32,
    pub(super) cut_after: u32,
    pub(super) cut_travelling: u32,
    pub(super) silenced: u32,
    pub(super) wrong_reply: u32,
    pub(super) spike: u32,
    pub(super) momentary: u32,
    /// Of a write, that the replica has it at once.
    pub(super) replicated: u32,
    /// How long a copy of a call may travel after its connection is lost, in milliseconds.
    pub(super) travels: u64,
    /// Whether such a copy may reach the server that is the primary when it arrives, through a
    /// proxy that has kept it.
    pub(super) is_proxied: bool,
}

/// The bytes of a call over which the server ends a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    /// Whether it is the size of an argument, which is refused with an error, or that of a call.
    pub(super) is_of_argument: bool,
    pub(super) is_readable: bool,
}

/// A step of the surroundings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Clock { server: usize, milliseconds: i64 },
    Failover { is_older: bool, old: OldPrimary },
    Refuse { refusal: Refusal, milliseconds: u64 },
    Freeze { milliseconds: u64 },
    Restart,
    HoldKey,
}

/// What becomes of a server that is no longer the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldPrimary {
    Dead,
    /// It refuses writes at once. It has its own data for a while.
    Demoted,
    /// It accepts writes for a while, which are then lost.
    Split,
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Primary,
    /// It follows the primary.
    Replica,
    /// It is no longer the primary and refuses writes, but still has its own data.
    Demoted,
    /// It is no longer the primary, but accepts writes, which are lost later.
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Loading,
    Busy,
    ReadOnly,
    TryAgain,
    ClusterDown,
    Memory,
    Save,
    Permission(model::script::Command),
}

#[derive(Debug, Clone)]
pub(super) struct RequestPlan {
    pub(super) at: u64,
    pub(super) process: usize,
    pub(super) jobs: usize,
    pub(super) bytes: usize,
    pub(super) key: Option<usize>,
    pub(super) body: usize,
    /// When its caller leaves, after the request has begun.
    pub(super) leaves_after: Option<u64>,
    /// How long its caller does not look for the answer.
    pub(super) is_slow_for: u64,
    /// How often its caller sends it again, after an answer that permits it.
    pub(super) resends: u32,
}

impl Plan {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let enqueue_timeout = *choose(rng, &[200, 300, 600]);
        let span = enqueue_timeout * rng.u64(1..=4) / 2;
        let wait_replicas = usize::from(enqueue_timeout >= 500 && rng.u32(0..4) == 0);
        let limit = (rng.u32(0..4) == 0).then(|| Limit {
            bytes: rng.usize(1200..3000),
            is_of_argument: rng.bool(),
            is_readable: rng.u32(0..4) == 0,
        });
        let max_bytes = if rng.bool() { 4096 } else { rng.usize(600..2000) };
        let processes = rng.usize(1..=2);
        let faults = Faults::new(rng, enqueue_timeout);
        let clocks = if rng.bool() { [0, 0] } else { [0, rng.i64(-3000..3000)] };
        Self {
            enqueue_timeout: Duration::from_millis(enqueue_timeout),
            wait_replicas,
            max_jobs: rng.usize(1..16),
            max_bytes,
            max_in_flight: rng.usize(1..=4),
            processes,
            faults,
            clocks,
            limit,
            steps: steps(rng, span, enqueue_timeout),
            requests: requests(rng, span, limit, processes),
            drain_at: (rng.u32(0..6) == 0).then(|| rng.u64(0..=span)),
            heals_at: span + enqueue_timeout + faults.travels,
        }
    }

    /// Whether there is a server that takes over.
    pub(super) fn has_replica(&self) -> bool {
        self.wait_replicas > 0
            || self.steps.iter().any(|(_, step)| matches!(step, Step::Failover { .. }))
    }

    pub(super) fn clocks_vary(&self) -> bool {
        let is_step = |(_, step): &(u64, Step)| matches!(step, Step::Clock { .. });
        self.clocks[0] != self.clocks[1] || self.steps.iter().any(is_step)
    }
}

impl Faults {
    fn new(rng: &mut Rng, timeout: u64) -> Self {
        let is_calm = rng.u32(0..4) == 0;
        let on = |rng: &mut Rng, most: u32| {
            if is_calm || rng.u32(0..3) > 0 { 0 } else { rng.u32(1..=most) }
        };
        Self {
            connect_refused: on(rng, 200),
            cut_before: on(rng, 80),
            cut_after: on(rng, 120),
            cut_travelling: on(rng, 120),
            silenced: on(rng, 60),
            wrong_reply: on(rng, 80),
            spike: on(rng, 100),
            momentary: on(rng, 60),
            replicated: *choose(rng, &[0, 500, 900, 1000]),
            travels: timeout * rng.u64(1..=3) / 2,
            is_proxied: rng.bool(),
        }
    }
}

fn steps(rng: &mut Rng, span: u64, timeout: u64) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    let mut add = |rng: &mut Rng, most: u32, step: &dyn Fn(&mut Rng) -> Step| {
        if rng.u32(0..3) == 0 {
            for _ in 0..rng.u32(1..=most) {
                let at = rng.u64(0..=span + timeout);
                let step = step(rng);
                steps.push((at, step));
            }
        }
    };
    add(rng, 3, &|rng| Step::Clock {
        // The first server is the primary until a failover.
        server: rng.usize(0..3) / 2,
        milliseconds: rng.i64(10..90_000) * if rng.bool() { 1 } else { -1 },
    });
    add(rng, 2, &|rng| Step::Failover {
        is_older: rng.bool(),
        old: *choose(rng, &[OldPrimary::Dead, OldPrimary::Demoted, OldPrimary::Split]),
    });
    add(rng, 3, &|rng| Step::Refuse { refusal: refusal(rng), milliseconds: rng.u64(1..=timeout) });
    add(rng, 1, &|rng| Step::Freeze { milliseconds: rng.u64(1..=timeout) });
    add(rng, 2, &|_| Step::Restart);
    add(rng, 2, &|_| Step::HoldKey);
    steps.sort_by_key(|(at, _)| *at);
    steps
}

pub(super) fn refusal(rng: &mut Rng) -> Refusal {
    use model::script::Command;
    *choose(
        rng,
        &[
            Refusal::Loading,
            Refusal::Busy,
            Refusal::ReadOnly,
            Refusal::TryAgain,
            Refusal::ClusterDown,
            Refusal::Memory,
            Refusal::Save,
            Refusal::Permission(Command::Set),
            Refusal::Permission(Command::HSet),
            Refusal::Permission(Command::LPush),
        ],
    )
}

fn requests(rng: &mut Rng, span: u64, limit: Option<Limit>, processes: usize) -> Vec<RequestPlan> {
    let keys = rng.usize(1..4);
    let keyed = *choose(rng, &[0, 300, 800]);
    let bodies = rng.usize(1..=2);
    let is_burst = rng.bool();
    let count = rng.usize(2..=9);
    let begin = |rng: &mut Rng| if is_burst { rng.u64(0..3) } else { rng.u64(0..span) };
    let mut requests: Vec<RequestPlan> = (0..count)
        .map(|_| {
            let key = (rng.u32(0..1000) < keyed).then(|| rng.usize(0..keys));
            let is_large = limit.is_some() && rng.u32(0..4) == 0;
            RequestPlan {
                at: begin(rng),
                process: rng.usize(0..processes),
                jobs: if key.is_some() { rng.usize(0..4) } else { rng.usize(1..4) },
                bytes: match rng.u32(0..12) {
                    _ if is_large => rng.usize(1000..4000),
                    // The job is staged.
                    0 => rng.usize(8200..9000),
                    _ => rng.usize(20..200),
                },
                key,
                body: if rng.u32(0..4) == 0 { rng.usize(0..bodies) } else { 0 },
                leaves_after: (rng.u32(0..8) == 0).then(|| rng.u64(0..400)),
                is_slow_for: if rng.u32(0..8) == 0 { rng.u64(1..1000) } else { 0 },
                resends: rng.u32(0..=1),
            }
        })
        .collect();
    requests.sort_by_key(|request| request.at);
    requests
}

pub(super) fn choose<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}
