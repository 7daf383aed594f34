//! The cost of following MongoDB, with a mongod of its own: complete loads next to the bare driver,
//! the delay until a change is visible, and the effect of both on requests.
//!
//! ```text
//! cargo bench --bench following                                 100,000 workflows, some four minutes
//! cargo bench --bench following -- --workflows 1000000 --seconds 60    6 GB in mongod: 25 minutes, 10 GB of memory
//! cargo bench --bench following -- --only load                  one part: load, changes or requests
//! ```
//!
//! Each workflow has 20 nodes and 6 KB. mongod, Redis, Hookgate and the load generators share the
//! machine, so the CPU time of each is reported with the load average: with few cores, mongod's own
//! work is the bottleneck. Rounds are interleaved. Loads and changes use Hookgate's own code in
//! this process, on a thread as in the service. Requests go to the program. The run fails if the
//! index differs from what was written.
#![expect(unreachable_pub, reason = "pub marks items for other files of this benchmark")]
#![expect(clippy::print_stdout, reason = "the benchmark prints tables")]
#![expect(clippy::print_stderr, reason = "progress goes to stderr, next to the tables")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed benchmark panics")]

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

/// Gigabytes: a million workflows fit into mongod's cache.
const CACHE: u8 = 8;

/// The request of the command line.
struct Plan {
    workflows: u64,
    /// Duration of each phase that has a rate.
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

/// The runtime of writers and callers. A client belongs to the runtime in which it was created.
fn others() -> &'static Runtime {
    static OTHERS: OnceLock<Runtime> = OnceLock::new();
    OTHERS.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// A runtime like those of the program's threads.
fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
