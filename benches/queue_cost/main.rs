//! The cost of a job for Redis and for its producer: Hookgate against the official libraries and
//! against the bare commands of a job, in one run, with the same jobs, for several sizes of data.
//!
//! ```text
//! cargo bench --bench queue_cost               minutes, and the build before it
//! cargo bench --bench queue_cost -- --quick    half a minute, and less exact
//! ```
//!
//! It needs `redis-server`, and `node` with `tests/bullmq` (`scripts/setup test`). Costs are CPU
//! time and not elapsed time, so that other load on the machine disturbs little. They are medians
//! over rounds in which every producer has its turn, so that drift affects all alike.
//!
//! With few jobs in a call, most of the cost is that of system calls. It depends on how often Redis
//! finds the next call already there, so these rows vary. The run fails if the jobs in Redis differ
//! from those that were sent.
#![expect(unreachable_pub, reason = "pub marks items for other files of this benchmark")]
#![expect(clippy::print_stdout, reason = "the benchmark prints a table")]
#![expect(clippy::print_stderr, reason = "progress goes to stderr, next to the table")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed benchmark panics"
)]

mod bare;
mod jobs;
mod meter;
mod node;
mod official;
mod ours;
mod report;

use jobs::Jobs;
use meter::Meter;
use report::Report;

/// Bytes of the data of a job.
const SIZES: [usize; 5] = [300, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// Bytes of the data of all jobs of a size at most; both Node and Redis hold them in memory.
const MOST_BYTES: usize = 128 << 20;
/// Bytes of the data of one call or write at most.
const MOST_BATCH_BYTES: usize = 16 << 20;
/// The name of the jobs in Hookgate's default configuration.
const NAME: &str = "workflow";
/// Requests in one call to Redis.
const BATCHES: [usize; 4] = [1, 16, 64, 256];
/// Callers that each wait for their job before they add the next, so that calls are pipelined.
const CALLERS: usize = 256;
/// Jobs of one `addBulk`.
const BULK: usize = 256;
/// Jobs that a fresh producer adds before it is measured.
const WARM_UP: usize = 2048;

/// The producer of the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Producer {
    Ours { batch: usize, events: bool },
    Bare { batch: usize },
    Node(How),
    Official(How),
}

/// The call of the official library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Add { callers: usize },
    AddBulk { size: usize },
}

/// The reference for Redis' cost.
const QUEUE_ADD: Producer = Producer::Node(How::Add { callers: CALLERS });
/// The reference for the producer's cost.
const OFFICIAL_ADD: Producer = Producer::Official(How::Add { callers: CALLERS });

/// The producers for a size. The first size has all, the others those that the size matters for.
fn producers(data_bytes: usize) -> Vec<Producer> {
    let ours = |events| BATCHES.map(|batch| Producer::Ours { batch, events });
    let bare = BATCHES.map(|batch| Producer::Bare { batch });
    if data_bytes > SIZES[0] {
        return [ours(true).as_slice(), bare.as_slice(), &[QUEUE_ADD, OFFICIAL_ADD]].concat();
    }
    let others = [
        Producer::Node(How::Add { callers: 1 }),
        QUEUE_ADD,
        Producer::Node(How::AddBulk { size: BULK }),
        OFFICIAL_ADD,
        Producer::Official(How::AddBulk { size: BULK }),
    ];
    [ours(true).as_slice(), ours(false).as_slice(), bare.as_slice(), others.as_slice()].concat()
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, count) = if is_quick { (3, 4096) } else { (7, 16_384) };
    for data_bytes in SIZES {
        measure(rounds, count.min(MOST_BYTES / data_bytes), data_bytes);
    }
}

fn measure(rounds: usize, count: usize, data_bytes: usize) {
    let runtime = new_runtime();
    let redis = runtime.block_on(testkit::Redis::start());
    let mut meter = Meter::connect(&redis.url());
    let jobs = Jobs::new(count, data_bytes);
    let options = runtime.block_on(ours::stored_options(&redis.url(), &jobs, &mut meter));
    let mut node = node::Node::start(&redis.url(), &jobs, &options);

    let producers = producers(data_bytes);
    let mut report = Report::new(&producers);
    for round in 0..rounds {
        // The order rotates, so that no producer always follows the same one.
        for turn in 0..producers.len() {
            let index = (turn + round) % producers.len();
            let cost = match producers[index] {
                Producer::Ours { batch, events } => {
                    ours::measure(&redis.url(), &jobs, batch, events, &mut meter)
                }
                Producer::Bare { batch } => {
                    bare::measure(&redis.url(), &jobs, &options, batch, &mut meter)
                }
                Producer::Official(how) => {
                    official::measure(&redis.url(), &jobs, &options, how, &mut meter)
                }
                Producer::Node(how) => node.measure(&jobs, how, &mut meter),
            };
            report.add(index, cost);
        }
        eprintln!("{data_bytes} bytes, round {} of {rounds}", round + 1);
    }
    println!("{}", report.to_markdown(&jobs, &meter.version(), node.versions()));
}

fn new_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
