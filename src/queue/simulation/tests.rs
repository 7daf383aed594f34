//! The short and the long form of the simulation: see docs/internals/testing.md.

use crate::queue::simulation::run::{Bench, Outcome, search};
use crate::queue::simulation::trace::Kind;
use model::{Safeguard, Safeguards};
use testkit::size;

/// Seeds of the short form.
const SEEDS: u64 = 40_000;

/// Seeds within which every removed safeguard must show.
const SEEDS_OF_MUTATIONS: u64 = 20_000;

/// The safeguards of the script. Those of the calling side cannot be removed from the real code. The
/// record of `late` needs a clock that is set back between two copies, which no seed of this size
/// has; the search in `model/` shows that it is needed.
const OF_THE_SCRIPT: [Safeguard; 16] = [
    Safeguard::Record,
    Safeguard::Mark,
    Safeguard::Deadline,
    Safeguard::RecordOfWithdrawal,
    Safeguard::RecordBeforeJobs,
    Safeguard::RecordPutBack,
    Safeguard::RecordCorrected,
    Safeguard::NumberBeforeDeadline,
    Safeguard::ProofOfPrimary,
    Safeguard::WholeRequests,
    Safeguard::KeyLookedUp,
    Safeguard::KeyInSameStep,
    Safeguard::KeyOfAddedOnly,
    Safeguard::RepeatOfFailedFails,
    Safeguard::KeyKeptWithoutJobs,
    Safeguard::Fingerprint,
];

/// The trace of a run, what was broken, and how to repeat it.
fn report(seed: u64, outcome: &Outcome) -> String {
    format!(
        "{}\n\nseed {seed} breaks a promise:\n{}\n\nSIMULATION_SEED={seed} cargo test --lib -- --nocapture queue::simulation::tests::no_seed",
        outcome.trace.join("\n"),
        outcome.faults.join("\n"),
    )
}

#[test]
#[expect(clippy::print_stdout, reason = "figures of a long run, and the trace of one seed")]
fn no_seed_breaks_a_promise_and_every_kind_of_event_is_reached() {
    if let Some(seed) = size::given("SIMULATION_SEED") {
        let outcome = Bench::new().run(seed, Safeguards::ALL, true);
        println!("{}", outcome.trace.join("\n"));
        assert!(outcome.faults.is_empty(), "{}", report(seed, &outcome));
        return;
    }
    let seeds = size::from_environment("SIMULATION_SEEDS", SEEDS);
    let search = search(0..seeds, Safeguards::ALL);
    println!("{} seeds", search.seeds);
    let counts = || Kind::ALL.iter().zip(&search.reached);
    counts().for_each(|(kind, count)| println!("{count:>10} {kind:?}"));
    if let Some((seed, outcome)) = &search.failed {
        panic!("{}", report(*seed, outcome));
    }
    let missed: Vec<_> = counts().filter(|(_, count)| **count == 0).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

#[test]
fn a_seed_gives_the_same_trace_again() {
    let (first, second) = (Bench::new(), Bench::new());
    for seed in 0..100 {
        let once = first.run(seed, Safeguards::ALL, true);
        assert!(once.trace.len() > 3, "{:?}", once.trace);
        assert_eq!(once, second.run(seed, Safeguards::ALL, true), "seed {seed}");
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the seed that needs a safeguard")]
fn every_safeguard_of_the_script_is_needed() {
    let mut unneeded = Vec::new();
    for safeguard in OF_THE_SCRIPT {
        let search = search(0..SEEDS_OF_MUTATIONS, Safeguards::ALL.without(safeguard));
        match &search.failed {
            Some((seed, outcome)) => println!("{safeguard:?}: seed {seed}: {}", outcome.faults[0]),
            None => unneeded.push(safeguard),
        }
    }
    assert!(unneeded.is_empty(), "nothing shows that these are removed: {unneeded:?}");
}
