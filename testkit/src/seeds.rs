//! The search for a seed whose run fails.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs seeds on all cores until one fails. Each thread begins with a state of its own, and `fails`
/// runs a seed with it. Returns the lowest seed that was seen to fail, and the states.
pub fn search<State: Send>(
    seeds: Range<u64>,
    begin: impl Fn() -> State + Sync,
    fails: impl Fn(&mut State, u64) -> bool + Sync,
) -> (Option<u64>, Vec<State>) {
    let next = AtomicU64::new(seeds.start);
    let failing = AtomicU64::new(u64::MAX);
    let work = || {
        let mut state = begin();
        while failing.load(Ordering::Relaxed) == u64::MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            if fails(&mut state, seed) {
                failing.fetch_min(seed, Ordering::Relaxed);
            }
        }
        state
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut states = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            states.push(thread.join().expect("no run panics"));
        }
    });
    let failing = failing.into_inner();
    ((failing < u64::MAX).then_some(failing), states)
}
