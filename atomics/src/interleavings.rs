//! Every interleaving of a few threads.

use crate::bucket::{Bucket, Rate};
use crate::currency::Currency;
use crate::in_flight::InFlight;
use crate::phase::{Phase, PhaseWord};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::num::NonZeroU32;

/// Runs a test in every interleaving with at most three preemptions, in which nearly all faults
/// show; more take minutes.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

/// Runs `work` on two threads besides this one, and waits for both.
fn in_two_threads<T: Send + Sync + 'static>(shared: &Arc<T>, work: fn(&T)) {
    let threads = [(); 2].map(|()| {
        let shared = Arc::clone(shared);
        thread::spawn(move || work(&shared))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn the_bound_of_requests_is_never_exceeded_and_no_request_leaks() {
    model(|| {
        let in_flight = Arc::new(InFlight::default());
        in_two_threads(&in_flight, |in_flight| {
            for _ in 0..2 {
                if in_flight.try_add_request(1) {
                    // Another that is being refused counts for a moment.
                    assert!((1..=2).contains(&in_flight.requests()));
                    in_flight.end_request();
                }
            }
        });
        assert_eq!(in_flight.requests(), 0);
        assert!(in_flight.try_add_request(1), "the bound is not used up");
    });
}

/// Requests and bytes that are admitted, as the holders count them.
struct Admitted {
    in_flight: InFlight,
    bytes: AtomicUsize,
}

#[test]
fn admitted_bytes_exceed_the_bound_only_for_a_single_holder() {
    model(|| {
        let admitted =
            Arc::new(Admitted { in_flight: InFlight::default(), bytes: AtomicUsize::new(0) });
        in_two_threads(&admitted, |Admitted { in_flight, bytes }| {
            let mut own = 0;
            for more in [3, 4] {
                if in_flight.try_add_bytes(more, own, 5) {
                    let others = bytes.fetch_add(more, Ordering::Relaxed) - own;
                    own += more;
                    assert!(others == 0 || others + own <= 5, "{others} and {own}");
                }
            }
            bytes.fetch_sub(own, Ordering::Relaxed);
            in_flight.release_bytes(own);
        });
        assert_eq!(admitted.in_flight.bytes(), 0);
    });
}

#[test]
fn a_bucket_is_never_overdrawn() {
    model(|| {
        let shared = Arc::new((Bucket::default(), AtomicUsize::new(0)));
        in_two_threads(&shared, |(bucket, taken)| {
            let number = |number| NonZeroU32::new(number).unwrap();
            let rate = Rate { per_second: number(1), burst: number(3) };
            for _ in 0..2 {
                let has_taken = bucket.try_take(rate, 1, 1_000_000_000).is_ok();
                taken.fetch_add(usize::from(has_taken), Ordering::Relaxed);
            }
        });
        assert_eq!(shared.1.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn no_request_begins_on_an_evicted_connection_and_none_is_evicted() {
    model(|| {
        let word = Arc::new(PhaseWord::default());
        let evictor = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                (0..2).any(|_| word.idle_since().is_some_and(|since| word.evict(since)))
            })
        };
        let mut was_refused = false;
        for now in [1, 2] {
            word.enter(Phase::Head, now);
            if word.begin_request() {
                assert!(!was_refused, "a request begins after an eviction");
                assert_eq!(word.phase(), Phase::Answering, "a request in progress is evicted");
                assert!(word.end_request());
                word.enter(Phase::Idle, now);
            } else {
                was_refused = true;
            }
        }
        let is_evicted = evictor.join().unwrap();
        assert_eq!(is_evicted, word.phase() == Phase::Evicted);
        assert!(!was_refused || is_evicted);
    });
}

/// An index with one key, whose shard is a number: the state that was published. The key is in
/// every state but [`Self::INCONSISTENT`], which is a load in the middle of a change.
#[derive(Default)]
struct Index {
    shard: Shard,
    currency: Currency,
}

struct Shard(AtomicUsize);

impl Default for Shard {
    fn default() -> Self {
        Self(AtomicUsize::new(0))
    }
}

impl Index {
    const INCONSISTENT: usize = 1;

    /// As `ShardedIndex::lookup` does: whether the key is found; `None` for a stale miss.
    fn lookup(&self) -> Option<bool> {
        let is_found = |shard: usize| shard != Self::INCONSISTENT;
        let before = self.shard.0.load(Ordering::Acquire);
        if is_found(before) {
            return Some(true);
        }
        let could_deny = !self.currency.is_inconsistent() && self.currency.as_of().is_some();
        let after = self.shard.0.load(Ordering::Acquire);
        if after != before && is_found(after) {
            return Some(true);
        }
        (could_deny && !self.currency.is_inconsistent()).then_some(false)
    }
}

#[test]
fn a_key_that_always_exists_is_never_denied() {
    model(|| {
        let index = Arc::new(Index::default());
        index.currency.mark_current(0);
        let reader = {
            let index = Arc::clone(&index);
            thread::spawn(move || [index.lookup(), index.lookup()])
        };
        // A load, and then the change that the stream reports after it.
        index.currency.mark_inconsistent();
        index.shard.0.store(Index::INCONSISTENT, Ordering::Release);
        index.currency.set_age_origin(1);
        index.shard.0.store(2, Ordering::Release);
        index.currency.mark_current(2);
        assert!(!reader.join().unwrap().contains(&Some(false)));
    });
}

/// An account that is removed when no request holds it and it has nothing to remember.
#[test]
fn an_account_without_holders_shows_everything_that_they_have_done() {
    model(|| {
        let mut account = Arc::new((InFlight::default(), AtomicUsize::new(0)));
        let holder = {
            let account = Arc::clone(&account);
            thread::spawn(move || {
                account.0.add_request();
                account.1.store(1, Ordering::Relaxed);
                account.0.end_request();
            })
        };
        if let Some((in_flight, jobs)) = Arc::get_mut(&mut account) {
            assert_eq!((in_flight.requests(), jobs.load(Ordering::Relaxed)), (0, 1));
        }
        holder.join().unwrap();
    });
}
