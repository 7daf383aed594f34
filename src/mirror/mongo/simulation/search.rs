//! The search for a seed that violates a promise, and for one that finds each mutation.

use crate::metrics::Metrics;
use crate::mirror::mongo::simulation::mutation::Mutation;
use crate::mirror::mongo::simulation::schedule::{Outcome, run};
use std::ops::Range;
use std::sync::Arc;
use testkit::{seeds, size};

/// The seeds of the short form.
const SEEDS: u64 = 1000;

/// Mutations that none of these seeds finds are missed.
const SEEDS_OF_MUTATION: u64 = 2000;

fn metrics() -> Arc<Metrics> {
    Metrics::new("", "").unwrap()
}

/// Runs seeds until one violates a promise. Returns the seed, and the lookups.
fn search(seeds: Range<u64>, mutation: Option<Mutation>) -> (Option<u64>, [u64; 3]) {
    let begin = || (metrics(), [0; 3]);
    let (violating, states) = seeds::search(seeds, begin, |(metrics, sums), seed| {
        let Outcome { violation, counts, .. } = run(seed, mutation, metrics, false);
        *sums = add(*sums, counts);
        violation.is_some()
    });
    (violating, states.into_iter().fold([0; 3], |sums, (_, counts)| add(sums, counts)))
}

fn add(sums: [u64; 3], counts: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|kind| sums[kind] + counts[kind])
}

/// Runs a seed again and describes it.
fn describe(seed: u64) -> String {
    let Outcome { violation, trace, .. } = run(seed, None, &metrics(), true);
    format!("{trace}FOLLOWING_SEED={seed}: {}", violation.as_deref().unwrap_or("no violation"))
}

#[test]
#[expect(clippy::print_stdout, reason = "a run is described on request")]
fn every_look_up_shows_the_collection_at_a_recent_moment() {
    if let Some(seed) = size::given("FOLLOWING_SEED") {
        println!("{}", describe(seed));
    }
    let first = size::from_environment("FOLLOWING_SEED", 0);
    let count = size::from_environment("FOLLOWING_SEEDS", SEEDS);
    let begun = tokio::time::Instant::now();
    let (violating, [hits, misses, stale]) = search(first..first + count, None);
    println!("{count} seeds in {:?}: {hits} hits, {misses} misses, {stale} stale", begun.elapsed());
    if let Some(seed) = violating {
        panic!("{}", describe(seed));
    }
    assert!(hits > 0 && misses > 0 && stale > 0, "each kind of answer occurs");
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let metrics = metrics();
    let identity = |seed| run(seed, None, &metrics, false).trace.identity();
    for seed in 0..20 {
        assert_eq!(identity(seed), identity(seed), "seed {seed}");
    }
    assert_ne!(identity(0), identity(1));
}

/// Each safeguard is needed: the search finds what happens without it.
macro_rules! mutations {
    ($($name:ident: $mutation:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let (found, _) = search(0..SEEDS_OF_MUTATION, Some(Mutation::$mutation));
                println!("{:?} is found by seed {found:?}", Mutation::$mutation);
                assert!(found.is_some(), "no seed finds {:?}", Mutation::$mutation);
            }
        )*
    };
}

mutations! {
    a_miss_that_is_believed_while_stale_is_found: MissWhileStale,
    a_miss_that_is_believed_while_inconsistent_is_found: MissWhileInconsistent,
    a_snapshot_that_denies_is_found: SnapshotDenies,
    a_change_that_is_not_fetched_is_found: NotFetchedAgain,
    a_fetch_of_a_later_state_is_found: FetchLater,
    a_read_that_is_not_causal_is_found: NotCausal,
    a_position_before_what_is_applied_is_found: PositionBeforeApplying,
    a_stream_that_is_opened_after_the_load_is_found: StreamAfterLoad,
    a_uuid_that_is_not_compared_is_found: NoUuid,
    an_ignored_deletion_is_found: NoDeletes,
    a_full_reply_that_counts_as_complete_is_found: FullReply,
}
