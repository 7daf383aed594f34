//! What happened in a simulation, for comparing two runs and for people.

use std::fmt;
use tokio::time::Instant;

/// A number that differs between different histories, and the history itself if it is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    begin: Option<Instant>,
    digest: u64,
    steps: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(keeps_lines: bool) -> Self {
        Self { lines: keeps_lines.then(Vec::new), begin: Some(Instant::now()), ..Self::default() }
    }

    pub(super) fn add(&mut self, what: &'static str, value: u64) {
        let Some(begin) = self.begin else { return };
        let time = begin.elapsed();
        self.steps += 1;
        for part in [what.len() as u64, value, time.subsec_nanos().into(), time.as_secs()] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:10.6} {what} {value}", time.as_secs_f64()));
        }
    }

    /// Identifies the history.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.digest, self.steps)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().flatten().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
