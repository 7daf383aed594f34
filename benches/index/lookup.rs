//! Lookups from two threads at a time, without changes and during many.

use crate::contenders::{Index, Plain, change, look_up};
use crate::meter::{median, own_time_of};
use crate::triggers::{mixed, organization, webhook};
use hookgate::ids::{OrganizationId, WebhookId};
use hookgate::mirror::CollectionIndexes;
use hookgate::triggers::{TriggerIndex, WorkflowCollection};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread;
use std::time::Duration;
use tokio::time::Instant;

const READERS: [u64; 2] = [0, 1];
/// Lookups in one group: few, so that the names are in the cache like those of a request.
const LOOK_UPS: u64 = 1024;
/// Changes of one batch, and the time from one batch to the next: 2,000 changes a second.
const BATCH: u64 = 20;
const BETWEEN: Duration = Duration::from_millis(10);
/// One workflow of this many changes, and is never looked up.
const CHANGING: u64 = 10;
/// A version of webhooks that does not exist.
const NEVER: u64 = 0xfff;

/// Nanoseconds of CPU time of one lookup.
#[derive(Clone, Copy)]
pub struct Cost {
    pub index: f64,
    pub plain: f64,
    pub ratio: f64,
}

#[derive(Clone, Copy)]
pub struct Case {
    pub is_hit: bool,
    pub is_changing: bool,
}

/// How lookups follow each other.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Each begins when the one before has ended, as if the rest of a request were between them.
    Apart,
    /// The processor may begin the next one while it waits for the memory of the one before.
    InARow,
}

/// Medians over rounds in which the index and the map look up the same keys, apart and in a row,
/// and the number of changes a second.
pub fn measure(index: &mut Index, plain: &Plain, case: Case, rounds: u64) -> ([Cost; 2], f64) {
    let Index { readers, indexes, triggers } = index;
    let (triggers, is_over) = (*triggers, &AtomicBool::new(false));
    let contest = &Contest { index: readers, plain, triggers, is_hit: case.is_hit, rounds };
    let (costs, changes) = thread::scope(|scope| {
        let reader = |thread| move || contest.run(thread);
        let threads = READERS.map(|thread| scope.spawn(reader(thread)));
        let writer = scope.spawn(move || {
            if case.is_changing { keep_changing(indexes, triggers, is_over) } else { 0.0 }
        });
        let costs = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        let costs: Vec<[Cost; 2]> = costs.collect();
        is_over.store(true, Ordering::Relaxed);
        (costs, writer.join().unwrap())
    });
    let medians = [0, 1].map(|pace| {
        let of =
            |pick: fn(&Cost) -> f64| median(costs.iter().map(|both| pick(&both[pace])).collect());
        let (index, plain) = (of(|cost| cost.index), of(|cost| cost.plain));
        Cost { index, plain, ratio: of(|cost| cost.ratio) }
    });
    (medians, changes)
}

struct Contest<'a> {
    index: &'a TriggerIndex,
    plain: &'a Plain,
    triggers: u64,
    is_hit: bool,
    rounds: u64,
}

impl Contest<'_> {
    fn run(&self, thread: u64) -> Vec<[Cost; 2]> {
        let round = |round| {
            let of_pace = |(number, pace)| {
                let turn = (thread * self.rounds + round) * 2 + number;
                let names: Vec<_> = (turn * LOOK_UPS..(turn + 1) * LOOK_UPS)
                    .map(|n| names(mixed(n) % self.triggers, self.is_hit))
                    .collect();
                self.round(&names, pace, round % 2 == 0)
            };
            [(0, Pace::Apart), (1, Pace::InARow)].map(of_pace)
        };
        (0..self.rounds).map(round).collect()
    }

    fn round(&self, names: &[Names], pace: Pace, index_first: bool) -> Cost {
        let expected = if self.is_hit { names.len() } else { 0 };
        let of_index = || {
            time_of(names, pace, expected, |(organization, webhook)| {
                look_up(self.index, organization, webhook)
            })
        };
        let of_plain = || {
            time_of(names, pace, expected, |(organization, webhook)| {
                self.plain.look_up(organization, webhook)
            })
        };
        // The second one finds the names in the cache.
        let (index, plain) = if index_first {
            (of_index(), of_plain())
        } else {
            let plain = of_plain();
            (of_index(), plain)
        };
        let nothing = time_of(names, pace, 0, |_| 0);
        let (index, plain) = (index - nothing, plain - nothing);
        Cost { index, plain, ratio: index / plain }
    }
}

type Names = (OrganizationId, WebhookId);

fn names(n: u64, is_hit: bool) -> Names {
    let n = if n.is_multiple_of(CHANGING) { n + 1 } else { n };
    (organization(n), webhook(n, if is_hit { 0 } else { NEVER }))
}

fn time_of(names: &[Names], pace: Pace, expected: usize, look_up: impl Fn(&Names) -> usize) -> f64 {
    let mut found = 0;
    let time = own_time_of(|| {
        for each in names {
            found += look_up(each);
            if matches!(pace, Pace::Apart) {
                fence(Ordering::SeqCst);
            }
        }
    });
    assert_eq!(found, expected);
    time.as_secs_f64() * 1e9 / names.len() as f64
}

/// Applies changes at an even pace; returns the number of changes a second.
fn keep_changing(
    indexes: &mut CollectionIndexes<WorkflowCollection>,
    triggers: u64,
    is_over: &AtomicBool,
) -> f64 {
    let start = Instant::now();
    let mut batches = 0;
    while !is_over.load(Ordering::Relaxed) {
        let first = batches * BATCH;
        let changing = (first..first + BATCH).map(|n| n * CHANGING % triggers);
        change(indexes, changing, 1 + batches % 1000);
        batches += 1;
        let due = start + BETWEEN * u32::try_from(batches).unwrap();
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    (batches * BATCH) as f64 / start.elapsed().as_secs_f64()
}
