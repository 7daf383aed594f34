//! Which promise holds if an assumption does not. The table stands in
//! `docs/concepts/exactly-once.md`.

#![expect(clippy::print_stdout, reason = "what a search has found is for people")]

use super::sizes::{
    Size, alone, attempts, batch, failover, in_flight, keys, refusals, replicas, restarts, shifted,
};
use super::{Faults, Property, Protocol, Request, Setting};
use crate::search::{Until, search};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/concepts/exactly-once.md");

const COLUMNS: [(&str, &[Property]); 6] = [
    ("202: all jobs are added", &[Property::Acknowledged]),
    ("202: they stay", &[Property::Kept]),
    ("no job twice, no part of a request", &[Property::Once, Property::Whole]),
    ("`none`: nothing is added", &[Property::None]),
    ("503: nothing is added later", &[Property::NotLater]),
    ("a key is used once", &[Property::KeyOnce, Property::KeyTrue]),
];

/// What goes wrong, and the settings in which it does.
fn rows() -> Vec<(&'static str, Vec<Setting>)> {
    let size = Size::Short;
    let slow = |setting| Setting { replica_is_slow_by: 1, ..setting };
    let two = |setting| Setting { has_two_primaries: true, ..setting };
    let set_back = |faults: &mut Faults| faults.back = 1;
    let fails_over = |faults: &mut Faults| faults.failovers = 1;
    let forgets = |faults: &mut Faults| faults.forgotten = 1;
    let shifts = |faults: &mut Faults| faults.shifts = 1;
    let swallowed = Faults { shifts: 1, refusals: 1, ..Faults::default() };
    let refusing = |setting| Setting { horizon: 1, faults: swallowed, ..setting };
    vec![
        (
            "Connections break, attempts arrive late, processes die, Redis refuses commands",
            vec![attempts(size), keys(size), refusals(size), alone(size), restarts(size)],
        ),
        (
            "The clock of Redis is set back",
            [attempts(size), keys(size), alone(size)].map(|each| with(each, set_back)).to_vec(),
        ),
        (
            "A replica that lacks the last writes becomes the primary",
            vec![failover(size), with(alone(size), fails_over)],
        ),
        (
            "One replica becomes the primary, `wait_replicas = 1`",
            vec![replicas(size), with_one_key(replicas(size))],
        ),
        (
            "The same, and the clock of the replica is slow",
            vec![slow(replicas(size)), slow(with_one_key(replicas(size)))],
        ),
        (
            "The old primary goes on after a failover",
            vec![two(failover(size)), two(replicas(size))],
        ),
        (
            "Hookgate's records are deleted or evicted",
            [attempts(size), keys(size), alone(size)].map(|each| with(each, forgets)).to_vec(),
        ),
        (
            "A connection swallows a reply and stays open",
            vec![with(in_flight(size), shifts), with(keys(size), shifts), shifted(size)],
        ),
        (
            "The same, while Redis refuses commands",
            vec![refusing(in_flight(size)), refusing(with_one_key(in_flight(size)))],
        ),
    ]
}

/// The first caller sends again if need be, and all requests have one idempotency key.
fn with_one_key(setting: Setting) -> Setting {
    let request = Request::new(1).with_key(0, 0);
    let mut setting = setting;
    setting.requests = vec![request, request.repeating(0)];
    setting.batches = vec![batch(0, &[0]), batch(0, &[1])];
    setting.faults.losses = setting.faults.losses.min(1);
    setting
}

fn with(setting: Setting, change: impl Fn(&mut Faults)) -> Setting {
    let mut setting = setting;
    change(&mut setting.faults);
    setting
}

#[test]
fn the_page_says_what_holds_under_which_fault() {
    let mut lines = vec![
        format!("| what goes wrong | {} |", COLUMNS.map(|(heading, _)| heading).join(" | ")),
        format!("|---|{}", ":-:|".repeat(COLUMNS.len())),
    ];
    for (fault, settings) in rows() {
        let mut violated = BTreeSet::new();
        for setting in settings {
            let findings = search(&Protocol::new(setting), Until::Exhausted, 3_000_000);
            assert!(findings.is_exhausted, "{fault}");
            for (property, trace) in findings.violations {
                if violated.insert(property) {
                    println!("{fault}: {property}: does not hold\n{trace}");
                }
            }
        }
        let cells = COLUMNS.map(|(_, properties)| {
            let holds = properties.iter().all(|property| !violated.contains(property));
            if holds { "yes" } else { "no" }
        });
        lines.push(format!("| {fault} | {} |", cells.join(" | ")));
    }
    let table = lines.join("\n");
    println!("{table}");
    assert!(
        PAGE.contains(&table),
        "docs/concepts/exactly-once.md does not have this table:\n{table}"
    );
}
