//! Instructions of a worker for one request, counted by callgrind and held against a budget: what a change costs shows,
//! whatever else the machine is doing.
//!
//! ```text
//! scripts/instructions             a minute or two, and the release build before it
//! scripts/instructions --update    writes the budget anew
//! ```
//!
//! What is counted is the real program in its release build, over kept connections and with a real Redis; the kernel is
//! not. Neither are its other threads, nor starting: each scenario has been carried out for a while when counting begins.
#![expect(unreachable_pub, reason = "pub tells what is for the others from what is for a file")]
#![expect(clippy::print_stdout, reason = "the table is what it is run for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails says so and ends")]

mod body;
mod budget;
mod callgrind;
mod scenario;

use budget::Budget;
use callgrind::Counted;
use scenario::Scenario;
use std::process::ExitCode;

/// What comes in between by the clock, such as a look at the connection to Redis, only adds: the least counts.
const PASSES: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let counted = Counted::start(scenario::documents()).await;
    let mut counts = Vec::new();
    for scenario in scenario::all() {
        counts.push((scenario.name, least(&scenario, &counted).await));
    }
    let profiles = counted.profiles().display();
    println!("Where they went: callgrind_annotate --threshold=100 {profiles}/SCENARIO\n");
    if std::env::args().any(|argument| argument == "--update") {
        Budget::of(&counts).write();
    }
    if Budget::read().holds(&counts) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Instructions of one request.
async fn least(scenario: &Scenario, counted: &Counted) -> u64 {
    let mut callers = scenario.connect(counted.address()).await;
    scenario.carry_out(&mut callers).await;
    let mut least = u64::MAX;
    for _ in 0..PASSES {
        let jobs = counted.jobs().await;
        counted.begin().await;
        scenario.carry_out(&mut callers).await;
        let instructions = counted.end(scenario.name).await;
        assert_eq!(counted.jobs().await - jobs, scenario.jobs(), "{}", scenario.name);
        least = least.min(instructions / scenario.requests());
    }
    least
}
