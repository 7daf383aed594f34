//! The last minutes of the counters, in steps of some seconds.

use crate::admin::status::totals::Totals;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// The length of a step.
pub(super) const STEP: Duration = Duration::from_secs(10);

/// Maximum steps: a quarter of an hour.
pub(super) const MAX_STEPS: usize = 90;

/// The counters at the ends of the last steps.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<(Instant, Totals)>>);

/// What was counted since the beginning of the history, and in each of its steps.
#[derive(Debug, serde::Serialize)]
pub(super) struct HistoryReport {
    /// The span of all steps and of the time since the last one.
    pub(super) seconds: f64,
    /// The requests of that span, by code. Codes without a request are left out.
    pub(super) requests: BTreeMap<&'static str, u64>,
    pub(super) jobs: u64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    pub(super) steps: Steps,
}

/// The steps that have ended, as columns of equal length, the oldest step first.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Steps {
    /// How long ago each step ended.
    pub(super) age_seconds: Vec<f64>,
    pub(super) length_seconds: Vec<f64>,
    /// The requests by code. Codes without a request in any step are left out.
    pub(super) requests: BTreeMap<&'static str, Vec<u64>>,
    pub(super) jobs: Vec<u64>,
    /// Null for a step without a request.
    pub(super) p50_seconds: Vec<Option<f64>>,
    pub(super) p99_seconds: Vec<Option<f64>>,
}

impl History {
    /// Ends a step.
    pub(super) fn record(&self, at: Instant, totals: Totals) {
        let mut samples = self.0.lock();
        if samples.len() > MAX_STEPS {
            samples.pop_front();
        }
        samples.push_back((at, totals));
    }

    /// The history at this moment, when the counters are `totals`.
    pub(super) fn report(&self, now: Instant, totals: &Totals) -> HistoryReport {
        let samples = self.0.lock();
        let (begin, first) = samples.front().cloned().unwrap_or_else(|| (now, totals.clone()));
        let all = totals.since(&first);
        let requests = all.requests().filter(|(_, count)| *count > 0).collect();
        HistoryReport {
            seconds: seconds(now.saturating_duration_since(begin)),
            jobs: all.jobs,
            p50_seconds: all.quantile(0.5),
            p99_seconds: all.quantile(0.99),
            requests,
            steps: steps(&samples, now),
        }
    }
}

fn steps(samples: &VecDeque<(Instant, Totals)>, now: Instant) -> Steps {
    let mut steps = Steps::default();
    let pairs = samples.iter().zip(samples.iter().skip(1));
    for (done, ((begin, before), (end, after))) in pairs.enumerate() {
        let within = after.since(before);
        steps.age_seconds.push(seconds(now.saturating_duration_since(*end)));
        steps.length_seconds.push(seconds(end.saturating_duration_since(*begin)));
        steps.jobs.push(within.jobs);
        steps.p50_seconds.push(within.quantile(0.5));
        steps.p99_seconds.push(within.quantile(0.99));
        for (code, count) in within.requests() {
            if count > 0 {
                let column = steps.requests.entry(code).or_default();
                column.resize(done, 0);
                column.push(count);
            }
        }
    }
    let length = steps.jobs.len();
    steps.requests.values_mut().for_each(|column| column.resize(length, 0));
    steps
}

/// Seconds to the millisecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::exposition::Exposition;

    fn totals(accepted: u64, not_found: u64) -> Totals {
        let page = format!(
            "hookgate_requests_total{{code=\"accepted\"}} {accepted}\n\
             hookgate_requests_total{{code=\"not_found\"}} {not_found}\n\
             hookgate_jobs_enqueued_total{{queue=\"q\"}} {accepted}\n"
        );
        Totals::read(&Exposition::read(&page))
    }

    #[test]
    fn steps_are_columns_of_equal_length() {
        let history = History::default();
        let start = Instant::now();
        for (step, sample) in [(0, (0, 0)), (1, (5, 0)), (2, (5, 2)), (3, (9, 2))] {
            history.record(start + STEP * step, totals(sample.0, sample.1));
        }
        let report = history.report(start + STEP * 3 + STEP / 2, &totals(10, 2));
        assert_eq!(report.requests, BTreeMap::from([("accepted", 10), ("not_found", 2)]));
        assert_eq!((report.jobs, report.seconds), (10, 35.0));
        let Steps { age_seconds, length_seconds, requests, jobs, .. } = report.steps;
        assert_eq!(age_seconds, [25.0, 15.0, 5.0]);
        assert_eq!(length_seconds, [10.0; 3]);
        assert_eq!(jobs, [5, 0, 4]);
        let expected = [("accepted", vec![5, 0, 4]), ("not_found", vec![0, 2, 0])];
        assert_eq!(requests, BTreeMap::from(expected));
    }

    #[test]
    fn old_steps_are_forgotten() {
        let history = History::default();
        let start = Instant::now();
        for step in 0..500 {
            history.record(start + STEP * step, totals(u64::from(step), 0));
        }
        let report = history.report(start + STEP * 499, &totals(499, 0));
        assert_eq!(report.steps.jobs.len(), MAX_STEPS);
        assert_eq!(report.requests.get("accepted"), Some(&90));
        let empty = History::default().report(start, &totals(3, 0));
        assert!(empty.requests.is_empty() && empty.steps.jobs.is_empty());
    }
}
