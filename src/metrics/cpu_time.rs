//! CPU time in fractions of a second.
//!
//! A counter of the `metrics` crate is a whole number. `rate` over whole seconds of CPU time shows
//! a small load as 0 and then as a jump.

const START: &str = "\nprocess_cpu_seconds_total ";

/// Ticks a second in `/proc`, on every architecture that Hookgate is built for.
const TICKS_PER_SECOND: u64 = 100;

/// Positions of `utime` and `stime` among the fields after the name of the program (proc(5)).
const TIMES: [usize; 2] = [11, 12];

/// Replaces the whole seconds of CPU time on a page of metrics.
pub(super) fn in_fractions(mut page: String) -> String {
    if let Some(start) = page.find(START).map(|at| at + START.len())
        && let Some(rest) = page.get(start..)
        && let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some(ticks) = ticks(&stat)
    {
        let end = start + rest.find('\n').unwrap_or(rest.len());
        let (seconds, rest) = (ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND);
        page.replace_range(start..end, &format!("{seconds}.{rest:02}"));
    }
    page
}

/// The ticks that the process has used. The name of the program may contain spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    TIMES.iter().map(|position| fields.get(*position)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_is_replaced() {
        let page = in_fractions("a 1\nprocess_cpu_seconds_total 7\nb 2\n".to_owned());
        let (before, rest) = page.split_once(START).unwrap();
        let (value, after) = rest.split_once('\n').unwrap();
        assert_eq!((before, after), ("a 1", "b 2\n"));
        assert!(value.parse::<f64>().is_ok() && value.contains('.'), "{value}");
        assert_eq!(in_fractions("a 1\n".to_owned()), "a 1\n");
        assert!(in_fractions(format!("a 1{START}7")).contains('.'));
    }

    #[test]
    fn user_and_system_time_count() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 8 0 1 1";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
