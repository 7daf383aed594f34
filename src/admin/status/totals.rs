//! The counters since the start at one moment, and what lies between two moments.

use crate::admin::status::exposition::{Exposition, Series};
use crate::metrics::Outcome;

/// The counters of requests and jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Totals {
    /// By [`Outcome`], in its order.
    requests: Vec<u64>,
    pub(super) jobs: u64,
    durations: Vec<Bucket>,
}

/// A bucket of a histogram: the requests that took at most `seconds`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    seconds: f64,
    requests: u64,
}

impl Totals {
    pub(super) fn read(page: &Exposition<'_>) -> Self {
        let of_code = |code: &&str| page.count("hookgate_requests_total", &[("code", code)]);
        let bucket = |series: &Series<'_>| {
            let seconds = series.label("le")?.parse().ok()?;
            Some(Bucket { seconds, requests: series.count()? })
        };
        let jobs = page.all("hookgate_jobs_enqueued_total").iter();
        Self {
            requests: Outcome::WORDS.iter().map(|code| of_code(code).unwrap_or(0)).collect(),
            jobs: jobs.filter_map(Series::count).sum(),
            durations: page
                .all("hookgate_request_duration_seconds_bucket")
                .iter()
                .filter_map(bucket)
                .collect(),
        }
    }

    /// What has been counted after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |at: usize| earlier.requests.get(at).copied().unwrap_or(0);
        let in_bucket = |at: usize| earlier.durations.get(at).map_or(0, |bucket| bucket.requests);
        let requests = self.requests.iter().enumerate();
        let durations = self.durations.iter().enumerate();
        Self {
            requests: requests.map(|(at, count)| count.saturating_sub(before(at))).collect(),
            jobs: self.jobs.saturating_sub(earlier.jobs),
            durations: durations
                .map(|(at, bucket)| Bucket {
                    requests: bucket.requests.saturating_sub(in_bucket(at)),
                    ..*bucket
                })
                .collect(),
        }
    }

    /// The requests of each code.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::WORDS.iter().copied().zip(self.requests.iter().copied())
    }

    /// The duration that this share of requests does not exceed, in seconds: interpolated within
    /// its bucket, as `histogram_quantile` of Prometheus does. `None` without a request. Above the
    /// longest bucket it is the bound of that bucket.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.durations.last()?.requests;
        if all == 0 {
            return None;
        }
        let rank = share * all as f64;
        let mut below = Bucket { seconds: 0.0, requests: 0 };
        for bucket in &self.durations {
            if bucket.requests as f64 >= rank && bucket.requests > below.requests {
                if bucket.seconds.is_infinite() {
                    return Some(below.seconds);
                }
                let within = (bucket.requests - below.requests) as f64;
                let part = (rank - below.requests as f64) / within;
                return Some(below.seconds + (bucket.seconds - below.seconds) * part);
            }
            below = *bucket;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(buckets: &[(&str, u64)], accepted: u64, jobs: u64) -> Totals {
        let bucket = |(le, count): &(&str, u64)| {
            format!("hookgate_request_duration_seconds_bucket{{le=\"{le}\"}} {count}\n")
        };
        let page: String = buckets.iter().map(bucket).collect();
        let counts = format!(
            "hookgate_requests_total{{code=\"accepted\"}} {accepted}\n\
             hookgate_jobs_enqueued_total{{queue=\"a\"}} {jobs}\n\
             hookgate_jobs_enqueued_total{{queue=\"b\"}} 1\n"
        );
        Totals::read(&Exposition::read(&(page + &counts)))
    }

    fn accepted(totals: &Totals) -> Option<u64> {
        totals.requests().find(|(code, _)| *code == "accepted").map(|(_, count)| count)
    }

    #[test]
    fn a_difference_has_what_came_later() {
        let first = totals(&[("1", 1), ("2", 2), ("+Inf", 2)], 2, 10);
        let second = totals(&[("1", 1), ("2", 12), ("+Inf", 12)], 12, 15);
        let between = second.since(&first);
        assert_eq!((accepted(&between), between.jobs), (Some(10), 5));
        assert_eq!(between.quantile(0.5), Some(1.5));
        assert_eq!(second.since(&Totals::default()), second);
        assert_eq!(first.since(&second).jobs, 0, "never negative");
    }

    #[test]
    fn a_quantile_is_interpolated_within_its_bucket() {
        let all = totals(&[("1", 50), ("2", 100), ("4", 100), ("+Inf", 100)], 0, 0);
        let expected = [Some(0.5), Some(1.0), Some(1.5), Some(2.0)];
        assert_eq!([0.25, 0.5, 0.75, 1.0].map(|share| all.quantile(share)), expected);
        let slow = totals(&[("1", 0), ("10", 0), ("+Inf", 3)], 0, 0);
        assert_eq!(slow.quantile(0.99), Some(10.0));
        assert_eq!(totals(&[("1", 0), ("+Inf", 0)], 0, 0).quantile(0.5), None);
        assert_eq!(Totals::default().quantile(0.5), None);
    }
}
