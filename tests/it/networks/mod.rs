//! Hookgates, Redis with Sentinels, and MongoDB, each with an address of its own in a real network
//! of which parts are cut off from each other, under load.
//!
//! A router drops packets silently, in one direction or both, as a broken switch or a wrong rule of
//! a firewall does: connections stay open, and nothing says why there is no answer. Every answer is
//! compared with the jobs in Redis by [`history`], which also tells apart what Redis itself loses:
//! jobs that a primary has acknowledged before it was demoted.
//!
//! Needs root, or `sudo` without a password, and is skipped without. The long form is
//!
//! ```sh
//! NETWORKS_ROUNDS=10 cargo test --test it networks:: -- --nocapture
//! ```
//!
//! It prints the counts of every test.
#![expect(clippy::indexing_slicing, reason = "a test panics")]
#![expect(clippy::print_stdout, reason = "a long run prints its counts")]

mod asymmetric;
mod cuts;
mod history;
mod load;
mod loss;
mod mongodb;
mod old_primary;
mod sentinel;
mod shards;
mod site;
mod split_brain;
mod witness;

use history::Verdict;
use load::Load;
use site::{Layout, Site};
use testkit::network::{Network, as_root, skip};
use testkit::size::from_environment;
use tokio::time::Instant;

/// How often a fault comes and goes.
fn rounds() -> u32 {
    from_environment("NETWORKS_ROUNDS", 1)
}

/// The number of answers that show that a state lasts.
fn some() -> usize {
    from_environment("NETWORKS_REQUESTS", 20)
}

/// Runs a test, which is a closure in its function, on a site of its own. The thread of the test is
/// on a node from which everything is reached all the time.
fn run<F>(layout: Layout, test: F)
where
    F: AsyncFnOnce(&mut Site) + Send + 'static,
{
    let name = std::any::type_name::<F>();
    let name = name.strip_prefix("it::").and_then(|name| name.strip_suffix("::{{closure}}"));
    let name = name.expect("a closure in a test").to_owned();
    as_root(&name.clone(), || {
        let network = match Network::new(&layout.nodes()) {
            Ok(network) => network,
            Err(why) => return skip(&name, &why),
        };
        // The thread that runs this may run other tests later.
        let thread = std::thread::Builder::new().name(name.clone());
        let thread = thread.spawn(move || {
            network.node(site::OBSERVER).enter();
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let started_at = Instant::now();
                let mut site = Site::start(layout, network).await;
                println!("{name}: started after {:.1?}", started_at.elapsed());
                test(&mut site).await;
                println!("{name}: ended after {:.1?}", started_at.elapsed());
            });
        });
        if let Err(panic) = thread.expect("a thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Lets every caller finish, and compares the answers with the jobs in Redis.
async fn judged(site: &Site, load: Load) -> Verdict {
    for hookgate in &site.hookgates {
        hookgate.ready().await;
    }
    let requests = load.stop().await;
    let (jobs, seen) = site.jobs().await;
    let verdict = Verdict::new(&requests, &jobs, &seen);
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{test}: {verdict}; {} packets dropped", site.network.dropped());
    verdict.assert_sound();
    assert!(site.network.dropped() > 0, "nothing was cut off");
    verdict
}
