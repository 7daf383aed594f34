//! The budget of instructions for a request.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// The share of the budget by which a count may differ in either direction. Beyond it the budget is
/// wrong, even if it is too high.
const TOLERANCE: f64 = 0.03;

/// The same where requests share calls to Redis: timing decides how many share one.
const TOLERANCE_IN_BATCHES: f64 = 0.15;
const IN_BATCHES: &str = "sixteen_callers";

/// Instructions of a request in each scenario, and the environment in which they were counted.
#[derive(serde::Deserialize)]
pub struct Budget {
    instructions: BTreeMap<String, u64>,
    counted_with: BTreeMap<String, String>,
}

impl Budget {
    pub fn of(counts: &[(&str, u64)]) -> Self {
        let instructions = counts.iter().map(|(name, count)| ((*name).to_owned(), *count));
        Self { instructions: instructions.collect(), counted_with: circumstances() }
    }

    pub fn read() -> Self {
        toml::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap()
    }

    pub fn write(&self) {
        let mut text = "# Written by scripts/instructions --update.\n\n[instructions]\n".to_owned();
        for (name, count) in &self.instructions {
            writeln!(text, "{name} = {count}").unwrap();
        }
        text.push_str("\n[counted_with]\n");
        for (name, version) in &self.counted_with {
            writeln!(text, "{name} = {version:?}").unwrap();
        }
        std::fs::write(file(), text).unwrap();
    }

    /// Prints counts next to the budget, and what to do if they exceed it.
    pub fn holds(&self, counts: &[(&str, u64)]) -> bool {
        println!("| instructions of a request | budget | counted | |\n|---|--:|--:|--:|");
        let mut holds = counts.len() == self.instructions.len();
        for (name, count) in counts {
            let budget = self.instructions.get(*name).copied().unwrap_or_default();
            let off = *count as f64 / budget as f64 - 1.0;
            println!("| {name} | {budget} | {count} | {:+.1} % |", off * 100.0);
            holds &= off.abs() <= tolerance(name);
        }
        if holds {
            return true;
        }
        self.explain();
        // In another environment the same source may compile to other instructions, so a comparison
        // means nothing.
        self.counted_with != circumstances()
    }

    fn explain(&self) {
        println!(
            "\nOff by more than {} % ({} % for {IN_BATCHES}). If that is what the change is worth, or has saved, scripts/instructions --update \
             writes the budget anew.",
            TOLERANCE * 100.0,
            TOLERANCE_IN_BATCHES * 100.0
        );
        for (name, here) in circumstances() {
            let there = self.counted_with.get(&name).cloned().unwrap_or_default();
            if here != there {
                println!(
                    "The budget was counted with {there}, and here is {here}: that alone may be the reason, and it \
                     does not bind here. Write it anew without the change first."
                );
            }
        }
    }
}

fn tolerance(scenario: &str) -> f64 {
    if scenario == IN_BATCHES { TOLERANCE_IN_BATCHES } else { TOLERANCE }
}

/// Besides the source, these decide on the code and on the variant of it that runs.
fn circumstances() -> BTreeMap<String, String> {
    let versions = ["rustc", "cc", "ldd", "valgrind"].map(|name| {
        let output = Command::new(name).arg("--version").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (name.to_owned(), text.lines().next().unwrap_or_default().to_owned())
    });
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or_else(String::new, |(_, model)| model.to_owned());
    versions.into_iter().chain([("processor".to_owned(), model)]).collect()
}

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/budget.toml"))
}
