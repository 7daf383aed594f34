//! The cost of the index of triggers, in one run: lookups compared with a plain `HashMap` of the
//! same keys and hasher, memory compared with the bytes of the names in it, changes, and loads.
//!
//! ```text
//! cargo bench --bench index              some minutes, 1,000 to 1,000,000 triggers
//! cargo bench --bench index -- --full    also 5,000,000, which needs 3 GB of memory
//! cargo bench --bench index -- --turns   only the delay of other tasks while a load is put in place
//! ```
//!
//! Costs are CPU time and not elapsed time, so that other load on the machine disturbs little. They
//! include the counting of allocated bytes. A lookup reads the workflow and its nodes, and the
//! names that it looks up are in the cache, like those of a request. It begins when the one before
//! has ended; for the last column the processor may begin it while it waits for the memory of the
//! one before. Names count as the strings that they encode. The run fails if a lookup has a wrong
//! result.
#![expect(unreachable_pub, reason = "pub marks items for other files of this benchmark")]
#![expect(clippy::print_stdout, reason = "the benchmark prints a table")]
#![expect(clippy::print_stderr, reason = "progress goes to stderr, next to the table")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed benchmark panics")]

mod contenders;
mod extremes;
mod lookup;
mod meter;
mod triggers;
mod turns;

use cap::Cap;
use contenders::{Index, Plain, change};
use lookup::Case;
use meter::{median, resident};
use mimalloc::MiMalloc;
use triggers::TEXT_BYTES;

/// The allocator of the program, which also counts the allocated bytes.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

const SIZES: [u64; 4] = [1000, 100_000, 1_000_000, 5_000_000];
const MILLION: u64 = 1_000_000;
const ROUNDS: u64 = 500;

/// Bytes of all names of a million triggers.
const NAMES: f64 = MILLION as f64 * TEXT_BYTES as f64;

fn main() {
    let is_asked = |word: &str| std::env::args().any(|argument| argument == word);
    println!("CPU time; Hookgate {}.\n", hookgate::BUILD);
    if is_asked("--turns") {
        return turns::print();
    }
    // Loads come first, because the peak of allocated bytes is that of the whole run.
    let (mut index, memory) = loads();
    changes(&mut index);
    memory.print(resident());
    extremes(&mut index);
    drop(index);
    turns::print();
    look_ups(if is_asked("--full") { &SIZES } else { &SIZES[..3] });
}

/// Allocated bytes.
struct Memory {
    before: usize,
    resident_before: usize,
    loaded: usize,
    most_in_load: usize,
    most_in_reload: usize,
}

fn loads() -> (Index, Memory) {
    let (before, resident_before) = (ALLOCATOR.allocated(), resident());
    let mut index = Index::empty();
    let first = index.load(MILLION).as_secs_f64();
    let (loaded, most_in_load) =
        (ALLOCATOR.allocated() - before, ALLOCATOR.max_allocated() - before);
    let again = index.load(MILLION).as_secs_f64();
    let most_in_reload = ALLOCATOR.max_allocated() - before;
    println!("| load of 1,000,000 records | s |\n|---|--:|");
    println!("| into an empty index | {first:.2} |\n| beside one in use | {again:.2} |\n");
    (index, Memory { before, resident_before, loaded, most_in_load, most_in_reload })
}

fn changes(index: &mut Index) {
    println!("| changes in one batch | µs for one change |\n|--:|--:|");
    let mut next = 0;
    for (batch, rounds) in [(1, 5000), (100, 200), (1000, 50)] {
        let mut round = |_| {
            let workflows = (next..next + batch).map(|n| triggers::mixed(n) % index.triggers);
            next += batch;
            change(&mut index.indexes, workflows, next).as_secs_f64() * 1e6 / batch as f64
        };
        println!("| {batch} | {:.1} |", median((0..rounds).map(&mut round).collect()));
    }
}

fn extremes(index: &mut Index) {
    let [put, removed] = extremes::many_webhooks(index);
    let [one, thousand] = extremes::many_workflows(index);
    println!("\n| extremes | ms |\n|---|--:|");
    println!(
        "| a workflow with 100,000 webhooks is put | {put:.0} |\n| and removed | {removed:.0} |"
    );
    println!("| one of 100,000 workflows with the same webhook is put | {one:.1} |");
    println!("| 1,000 of them in one batch | {thousand:.0} |");
}

impl Memory {
    /// Resident memory is measured after the allocator has had time to return what it does not
    /// need.
    fn print(&self, resident: usize) {
        println!(
            "\n| memory at 1,000,000 triggers | bytes for one | of its names ({TEXT_BYTES} bytes) | of what is \
             allocated |\n|---|--:|--:|--:|"
        );
        let row = |what: &str, bytes: usize| {
            let bytes = bytes as f64;
            let (of_names, of_loaded) = (bytes / NAMES, bytes / self.loaded as f64);
            println!("| {what} | {:.0} | {of_names:.2} | {of_loaded:.2} |", bytes / MILLION as f64);
        };
        row("allocated, the writer's map included", self.loaded);
        row("at most during the first load", self.most_in_load);
        row("at most during a reload", self.most_in_reload);
        row("allocated after reload and changes", ALLOCATOR.allocated() - self.before);
        row("resident then", resident - self.resident_before);
        let (before, _plain) = (ALLOCATOR.allocated(), Plain::new(MILLION));
        row("plain `HashMap`, allocated", ALLOCATOR.allocated() - before);
    }
}

fn look_ups(sizes: &[u64]) {
    println!(
        "\n| triggers | lookup | changes a second | index, ns | `HashMap`, ns | ratio | ratio in a row |\n\
         |--:|---|--:|--:|--:|--:|--:|"
    );
    for &size in sizes {
        let mut index = Index::empty();
        index.load(size);
        let plain = Plain::new(size);
        for (is_changing, is_hit) in [(false, true), (false, false), (true, true), (true, false)] {
            let case = Case { is_hit, is_changing };
            let ([apart, row], changes) = lookup::measure(&mut index, &plain, case, ROUNDS);
            let what = if is_hit { "hit" } else { "miss" };
            println!(
                "| {size} | {what} | {changes:.0} | {:.0} | {:.0} | {:.2} | {:.2} |",
                apart.index, apart.plain, apart.ratio, row.ratio
            );
        }
        eprintln!("{size} triggers measured");
    }
}
