//! CPU time in fractions of a second.
//!
//! A counter of the `metrics` crate is a whole number. `rate` over whole seconds of CPU time shows
//! a small load as 0 and then as a jump.

use rustix::time::{ClockId, clock_gettime};

const START: &str = "\nprocess_cpu_seconds_total ";

/// Replaces the whole seconds of CPU time on a page of metrics.
pub(super) fn in_fractions(mut page: String) -> String {
    if let Some(start) = page.find(START).map(|at| at + START.len())
        && let Some(rest) = page.get(start..)
    {
        let end = start + rest.find('\n').unwrap_or(rest.len());
        let time = clock_gettime(ClockId::ProcessCPUTime);
        page.replace_range(start..end, &format!("{}.{:06}", time.tv_sec, time.tv_nsec / 1000));
    }
    page
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
        assert!(value.parse::<f64>().unwrap() > 0.0 && value.contains('.'), "{value}");
        assert_eq!(in_fractions("a 1\n".to_owned()), "a 1\n");
        assert!(in_fractions(format!("a 1{START}7")).contains('.'));
    }
}
