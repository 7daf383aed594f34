//! Elapsed time, CPU time of whole processes, and summaries of many measurements.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// Elapsed time, and CPU time of this process and of others, since its start.
pub struct Clock {
    started: Instant,
    others: Vec<u32>,
    before: Vec<f64>,
}

impl Clock {
    pub fn start(others: &[u32]) -> Self {
        Self { started: Instant::now(), others: others.to_vec(), before: spent(others) }
    }

    /// Seconds: elapsed, CPU time of this process, and CPU time of each of the others.
    pub fn stop(self) -> Vec<f64> {
        let wall = self.started.elapsed().as_secs_f64();
        let after = spent(&self.others);
        let used = after.iter().zip(&self.before).map(|(after, before)| after - before);
        std::iter::once(wall).chain(used).collect()
    }
}

fn spent(others: &[u32]) -> Vec<f64> {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    let own = Duration::new(tv_sec.try_into().unwrap(), tv_nsec.try_into().unwrap());
    std::iter::once(own.as_secs_f64()).chain(others.iter().map(|pid| spent_by(*pid))).collect()
}

fn spent_by(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which may hold anything, user and system time are the 12th and the 13th
    // field.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Load average of the last minute.
pub fn load_average() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap();
    all.split(' ').next().unwrap().to_owned()
}

pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 500)
}

/// The value that `thousandths` of a thousand values do not exceed.
pub fn quantile(mut values: Vec<f64>, thousandths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = values.len() * thousandths / 1000;
    values[place.min(values.len() - 1)]
}
