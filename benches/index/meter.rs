//! CPU time, which other load on the machine hardly disturbs, and memory.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

/// CPU time that this thread spends on `work`.
pub fn own_time_of(work: impl FnOnce()) -> Duration {
    let before = own_time();
    work();
    own_time().saturating_sub(before)
}

fn own_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.try_into().unwrap(), tv_nsec.try_into().unwrap())
}

/// Bytes of memory that the process has from the kernel.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
