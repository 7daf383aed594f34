//! The settings that are searched. Together they have every fault and every safeguard in them; one
//! setting with all of it would have too many states.

#![expect(clippy::print_stdout, reason = "what a search has found is for people")]

use super::{Batch, Faults, Property, Protocol, Request, Setting};
use crate::script::Command;
use crate::search::{Findings, Until, search};

/// How large the searches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// For every run of the tests.
    Short,
    /// For hours.
    Long,
}

impl Size {
    /// `MODEL_SIZE=long` chooses the large searches.
    pub(super) fn from_environment() -> Self {
        let is_long =
            std::env::vars_os().any(|(name, value)| name == "MODEL_SIZE" && value == "long");
        if is_long { Self::Long } else { Self::Short }
    }

    /// A search that finds more is given up.
    pub(super) fn most_states(self) -> usize {
        self.pick(3_000_000, 20_000_000)
    }

    fn pick<T>(self, short: T, long: T) -> T {
        if self == Self::Long { long } else { short }
    }
}

/// Every setting, with its name. Every property holds in it.
pub(super) fn settings(size: Size) -> Vec<(&'static str, Setting)> {
    vec![
        ("attempts", attempts(size)),
        ("batches in flight", in_flight(size)),
        ("keys", keys(size)),
        ("keys in a batch", keys_in_a_batch(size)),
        ("held keys", held(size)),
        ("refusals", refusals(size)),
        ("alone", alone(size)),
        ("shifted", shifted(size)),
        ("restarts", restarts(size)),
        ("failover", failover(size)),
        ("replicas", replicas(size)),
    ]
}

pub(super) fn batch(process: u8, requests: &[u8]) -> Batch {
    Batch { process, requests: requests.to_vec() }
}

/// One batch, of which copies arrive at any time, while the clock of Redis jumps ahead.
pub(super) fn attempts(size: Size) -> Setting {
    Setting {
        requests: vec![Request::new(2)],
        horizon: size.pick(3, 5),
        window: size.pick(2, 3),
        faults: Faults { losses: size.pick(2, 4), forward: size.pick(1, 2), ..Faults::default() },
        ..Setting::default()
    }
}

/// Batches of one process on one connection.
pub(super) fn in_flight(size: Size) -> Setting {
    let batches = size.pick(2, 3);
    Setting {
        requests: (0..batches).map(|_| Request::new(1)).collect(),
        batches: (0..batches).map(|request| batch(0, &[request])).collect(),
        horizon: 2,
        faults: Faults { losses: size.pick(1, 2), forward: 1, ..Faults::default() },
        most_numbers: size.pick(3, 4),
        ..Setting::default()
    }
}

/// A caller sends to two processes with one idempotency key, and again.
pub(super) fn keys(size: Size) -> Setting {
    let request = Request::new(1).with_key(0, 0);
    Setting {
        requests: vec![request, request, request.repeating(0)],
        batches: vec![batch(0, &[0]), batch(1, &[1]), batch(1, &[2])],
        processes: 2,
        horizon: size.pick(1, 2),
        faults: Faults { losses: 1, restarts: 1, ..Faults::default() },
        ..Setting::default()
    }
}

/// One key with two bodies, and without jobs, in a batch and in another one.
pub(super) fn keys_in_a_batch(size: Size) -> Setting {
    let request = |jobs, body| Request::new(jobs).with_key(0, body);
    Setting {
        requests: vec![request(0, 0), request(2, 0), request(2, 0), request(1, 1)],
        batches: vec![batch(0, &[0, 1, 2]), batch(0, &[3])],
        horizon: 1,
        faults: Faults { losses: size.pick(2, 3), ..Faults::default() },
        ..Setting::default()
    }
}

/// A job's key holds another value: the request fails, and its caller sends it again.
pub(super) fn held(size: Size) -> Setting {
    let request = Request::new(2).with_key(0, 0);
    Setting {
        requests: vec![request, request, Request::new(1), request.repeating(0)],
        batches: vec![batch(0, &[0, 1, 2]), batch(0, &[3])],
        horizon: 2,
        held_jobs: vec![2],
        faults: Faults { losses: size.pick(2, 3), ..Faults::default() },
        ..Setting::default()
    }
}

/// The script raises at any of its calls.
pub(super) fn refusals(size: Size) -> Setting {
    let request = Request::new(1).with_key(0, 0);
    Setting {
        requests: vec![request, request.repeating(0)],
        batches: vec![batch(0, &[0]), batch(0, &[1])],
        horizon: 1,
        refusable: Command::ALL.to_vec(),
        most_numbers: 2,
        faults: Faults { losses: 1, refusals: size.pick(1, 2), ..Faults::default() },
        ..Setting::default()
    }
}

/// A batch breaks its connections, and is sent alone.
pub(super) fn alone(size: Size) -> Setting {
    Setting {
        requests: vec![Request::new(1), Request::new(1)],
        batches: vec![batch(0, &[0, 1])],
        horizon: 2,
        most_numbers: size.pick(2, 3),
        faults: Faults { losses: size.pick(3, 4), ..Faults::default() },
        ..Setting::default()
    }
}

/// A connection swallows a reply while a batch is withdrawn over it.
pub(super) fn shifted(size: Size) -> Setting {
    Setting {
        requests: vec![Request::new(1), Request::new(1)],
        batches: vec![batch(0, &[0]), batch(0, &[1])],
        horizon: size.pick(0, 1),
        most_numbers: size.pick(2, 3),
        suspect_after: 1,
        faults: Faults { losses: 2, shifts: 1, ..Faults::default() },
        ..Setting::default()
    }
}

/// A process is killed, and its callers send again.
pub(super) fn restarts(size: Size) -> Setting {
    Setting {
        requests: vec![Request::new(1), Request::new(1).repeating(0)],
        batches: vec![batch(0, &[0]), batch(0, &[1])],
        horizon: size.pick(1, 2),
        faults: Faults { losses: size.pick(2, 3), restarts: size.pick(1, 2), ..Faults::default() },
        ..Setting::default()
    }
}

/// The replica becomes the primary.
pub(super) fn failover(size: Size) -> Setting {
    Setting {
        requests: vec![Request::new(1).with_key(0, 0), Request::new(1).with_key(0, 0).repeating(0)],
        batches: vec![batch(0, &[0]), batch(0, &[1])],
        horizon: 2,
        most_numbers: 2,
        faults: Faults { losses: size.pick(1, 2), failovers: 1, ..Faults::default() },
        ..Setting::default()
    }
}

/// A 202 waits for the replica, which becomes the primary.
pub(super) fn replicas(size: Size) -> Setting {
    Setting {
        requests: vec![Request::new(1)],
        batches: vec![batch(0, &[0])],
        horizon: 2,
        most_numbers: 2,
        waits_for_replica: true,
        faults: Faults { losses: size.pick(2, 3), failovers: 1, ..Faults::default() },
        ..Setting::default()
    }
}

/// The properties that cannot hold in a setting.
fn exceptions(name: &str) -> &'static [Property] {
    // Without `queue.wait_replicas`, a replica that lacks the last writes becomes the primary.
    if name == "failover" { &[Property::Kept] } else { &[] }
}

#[test]
fn every_property_holds_in_every_state() {
    let size = Size::from_environment();
    for (name, setting) in settings(size) {
        let findings = search(&Protocol::new(setting), Until::Exhausted, size.most_states());
        let Findings { states, steps, depth, violations, .. } = &findings;
        println!("{name}: {states} states, {steps} steps, {depth} deep");
        for (property, trace) in violations {
            let is_expected = exceptions(name).contains(property);
            assert!(is_expected, "{name}: {property}: does not hold\n{trace}");
        }
        assert_eq!(violations.len(), exceptions(name).len(), "{name}");
        assert!(findings.is_exhausted || size == Size::Long, "{name} has too many states");
    }
}
