//! The search for a seed that violates a promise, and for one that finds each mutation.

use crate::metrics::Metrics;
use crate::mirror::mongo::simulation::mutation::Mutation;
use crate::mirror::mongo::simulation::schedule::{Outcome, run};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The seeds of the short form.
const SEEDS: u64 = 1000;

/// Mutations that none of these seeds finds are missed.
const SEEDS_OF_MUTATION: u64 = 2000;

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|value| value.to_str().unwrap().parse().unwrap())
}

fn metrics() -> Arc<Metrics> {
    Metrics::new("", "").unwrap()
}

/// Runs seeds on all cores until one violates a promise. Returns the seed, and the lookups.
fn search(seeds: Range<u64>, mutation: Option<Mutation>) -> (Option<u64>, [u64; 3]) {
    let next = AtomicU64::new(seeds.start);
    let violating = AtomicU64::new(u64::MAX);
    let worker = || {
        let metrics = metrics();
        let mut sums = [0; 3];
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || violating.load(Ordering::Relaxed) < u64::MAX {
                return sums;
            }
            let Outcome { violation, counts, .. } = run(seed, mutation, &metrics, false);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            if violation.is_some() {
                violating.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut sums = [0; 3];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let of_worker = worker.join().unwrap();
            sums.iter_mut().zip(of_worker).for_each(|(sum, count)| *sum += count);
        }
    });
    let violating = violating.into_inner();
    ((violating < u64::MAX).then_some(violating), sums)
}

/// Runs a seed again and describes it.
fn describe(seed: u64) -> String {
    let Outcome { violation, trace, .. } = run(seed, None, &metrics(), true);
    format!("{trace}FOLLOWING_SEED={seed}: {}", violation.as_deref().unwrap_or("no violation"))
}

#[test]
#[expect(clippy::print_stdout, reason = "a run is described on request")]
fn every_look_up_shows_the_collection_at_a_recent_moment() {
    if let Some(seed) = number("FOLLOWING_SEED") {
        println!("{}", describe(seed));
    }
    let first = number("FOLLOWING_SEED").unwrap_or(0);
    let count = number("FOLLOWING_SEEDS").unwrap_or(SEEDS);
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
