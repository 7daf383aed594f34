//! Instructions of a worker for one request, counted by callgrind and compared with a budget. They
//! show the cost of a change independently of other load on the machine.
//!
//! ```text
//! scripts/instructions             a minute or two, and the release build before it
//! scripts/instructions --update    writes a new budget
//! ```
//!
//! Counted is the real program in its release build, over kept connections and with a real Redis,
//! but not the kernel. Its other threads and its start do not count either: each scenario runs for
//! a while before counting begins.
#![expect(unreachable_pub, reason = "pub marks items for other files of this benchmark")]
#![expect(clippy::print_stdout, reason = "the benchmark prints a table")]
#![expect(clippy::unwrap_used, reason = "a failed benchmark panics")]

mod body;
mod budget;
mod callgrind;
mod scenario;

use budget::Budget;
use callgrind::Counted;
use scenario::Scenario;
use std::process::ExitCode;

/// Timed events such as a health check of Redis only add instructions, so the lowest count is used.
const PASSES: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut counted = Counted::start(scenario::documents()).await;
    let mut counts = Vec::new();
    for scenario in scenario::all() {
        counted.use_template(scenario.template).await;
        counts.push((scenario.name, least(&scenario, &counted).await));
    }
    let profiles = counted.profiles().display();
    println!("Where they went: callgrind_annotate --threshold=100 {profiles}/SCENARIO\n");
    if std::env::args().any(|argument| argument == "--update") {
        Budget::of(&counts).write();
    }
    if Budget::read().holds(&counts) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Instructions of one request: the lowest of several passes.
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
