//! What following MongoDB costs, against a mongod of its own: complete loads beside the bare driver, how soon a change is
//! seen, and what both do to requests.
//!
//! ```text
//! cargo bench --bench following                                 100,000 workflows, some four minutes
//! cargo bench --bench following -- --workflows 1000000 --seconds 60    6 GB in mongod: 25 minutes, 10 GB of memory
//! cargo bench --bench following -- --only load                  one part: load, changes or requests
//! ```
//!
//! Each workflow has 20 nodes and 6 KB. mongod, Redis, Hookgate and those who make the load share the machine; the CPU
//! time of each is told, and the load average: with few cores mongod's own work is what stands in the way. Rounds are
//! interleaved. Loads and changes go through Hookgate's own code in this process, on a thread as it has in the service;
//! requests go through the program. The run fails if the index is not what was written.
#![expect(unreachable_pub, reason = "pub tells what is for the others from what is for a file")]
#![expect(clippy::print_stdout, reason = "the tables are what it is run for")]
#![expect(clippy::print_stderr, reason = "progress goes past the tables")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that fails says so and ends"
)]

mod changes;
mod collection;
mod follower;
mod load;
mod meter;
mod requests;

use collection::Workflows;
use mimalloc::MiMalloc;
use std::sync::OnceLock;
use std::time::Duration;
use testkit::Mongo;
use tokio::runtime::Runtime;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Gigabytes: what a million workflows take in memory is for mongod's cache alone.
const CACHE: u8 = 8;

/// What is asked for on the command line.
struct Plan {
    workflows: u64,
    /// Of each phase that goes on at a rate.
    seconds: Duration,
    rounds: usize,
    only: Option<String>,
}

impl Plan {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let place = arguments.iter().position(|argument| argument == name)?;
            arguments.get(place + 1).cloned()
        };
        let number = |name, default| value(name).map_or(default, |text| text.parse().unwrap());
        Self {
            workflows: number("--workflows", 100_000),
            seconds: Duration::from_secs(number("--seconds", 15)),
            rounds: usize::try_from(number("--rounds", 3)).unwrap(),
            only: value("--only"),
        }
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

fn main() {
    let plan = Plan::read();
    println!("{} workflows; Hookgate {}.", plan.workflows, hookgate::BUILD);
    let mongo = others().block_on(Mongo::start_with_cache(CACHE));
    let workflows = others().block_on(Workflows::fill(&mongo, plan.workflows));
    eprintln!("{} workflows written", plan.workflows);
    if plan.has("load") {
        load::measure(&mongo, &workflows, plan.rounds);
    }
    if plan.has("changes") {
        changes::measure(&mongo, &workflows, plan.seconds, plan.rounds);
    }
    if plan.has("requests") {
        requests::measure(&mongo, &workflows, plan.seconds, plan.rounds);
    }
}

/// Of those who write and call. Clients live in the runtime in which they were made.
fn others() -> &'static Runtime {
    static OTHERS: OnceLock<Runtime> = OnceLock::new();
    OTHERS.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// As each thread of the program has one.
fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
