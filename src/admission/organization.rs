//! The limits of each organization: requests and jobs per second, and a share of the in-flight
//! limits. They keep an organization that sends too much from displacing the others.

use crate::admission::accounts::{Account, Accounts, Amount};
use crate::admission::at_limit::{AtLimit, OrganizationAtLimit};
use crate::admission::error::{AdmissionError, OverLimit};
use crate::ids::OrganizationId;
use crate::metrics::{Limit, Metrics};
use crate::settings::Section;
use arc_swap::ArcSwap;
use atomics::bucket::{Bucket, Rate};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often jobs are counted and idle accounts are removed.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of accounts, some 200 bytes each. If more organizations have called within a
/// minute, all accounts without a request in flight are removed, which resets their limits.
const MAX_ACCOUNTS: usize = 1 << 18;

/// Maximum organizations that are found at a limit in one second.
const MAX_AT_LIMIT: usize = 100;

/// The `Retry-After` of a request over an in-flight share.
const SHARE_RETRY: Duration = Duration::from_secs(1);

/// The section `[limits.organization]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OrganizationSettings {
    /// The rate of requests; `None`: no limit.
    requests: Option<Rate>,
    /// The rate of the jobs that the requests start; `None`: no limit.
    jobs: Option<Rate>,
    /// The share of `limits.in_flight_requests` and `limits.in_flight_bytes`, above 0; 1: no limit.
    in_flight_share: f64,
    /// Requests over a limit are counted and logged, but not rejected.
    dry_run: bool,
}

impl OrganizationSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut count = |key| {
            let count = section.number(key, 0, 0..=10_000_000);
            u32::try_from(count).ok().and_then(NonZeroU32::new)
        };
        let mut rate = |per_second, burst| {
            let (per_second, burst) = (count(per_second), count(burst));
            per_second.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) })
        };
        let requests = rate("requests_per_second", "burst");
        let jobs = rate("jobs_per_second", "jobs_burst");
        let in_flight_share = section.value("in_flight_share", 0.5);
        if !(in_flight_share > 0.0 && in_flight_share <= 1.0) {
            section.fault("in_flight_share", "must be above 0 and at most 1");
        }
        Self { requests, jobs, in_flight_share, dry_run: section.value("dry_run", false) }
    }
}

/// The limits of organizations and their current use.
#[derive(Debug)]
pub(super) struct Organizations {
    current: ArcSwap<CurrentSettings>,
    usages: Accounts,
    at_limit: AtLimit,
    metrics: Arc<Metrics>,
    epoch: Instant,
    /// The second after the epoch in which a line was last logged, plus one.
    logged: AtomicU64,
}

/// The settings, with the shares computed from the in-flight limits of the process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CurrentSettings {
    settings: OrganizationSettings,
    /// `None`: no limit.
    max_in_flight: Option<Amount>,
}

impl CurrentSettings {
    fn new(settings: OrganizationSettings, in_flight: Amount) -> Self {
        let share = in_flight.share(settings.in_flight_share);
        let max_in_flight = (settings.in_flight_share < 1.0).then_some(share);
        Self { settings, max_in_flight }
    }

    /// The limit that the next request of an organization would exceed.
    fn limit_reached(&self, account: &Account, now: u64) -> Option<Limit> {
        let OrganizationSettings { requests, jobs, .. } = self.settings;
        let is_empty = |bucket: &Bucket, rate: Option<Rate>| {
            rate.is_some_and(|rate| bucket.is_empty(rate, now))
        };
        let in_flight = &account.in_flight;
        let max = self.max_in_flight;
        if max.is_some_and(|max| in_flight.requests() >= max.requests) {
            Some(Limit::InFlight)
        } else if max.is_some_and(|max| in_flight.bytes() >= max.bytes) {
            Some(Limit::InFlightBytes)
        } else if is_empty(&account.request_rate, requests) {
            Some(Limit::Rate)
        } else {
            is_empty(&account.job_rate, jobs).then_some(Limit::Jobs)
        }
    }
}

impl Organizations {
    pub(super) fn new(
        settings: OrganizationSettings,
        in_flight: Amount,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            current: ArcSwap::from_pointee(CurrentSettings::new(settings, in_flight)),
            usages: Accounts::default(),
            at_limit: AtLimit::default(),
            metrics,
            epoch: Instant::now(),
            logged: AtomicU64::new(0),
        }
    }

    /// Applies new limits, and refills all bursts if the limits have changed.
    pub(super) fn reload(&self, settings: OrganizationSettings, in_flight: Amount) {
        let next = CurrentSettings::new(settings, in_flight);
        if **self.current.load() != next {
            self.current.store(Arc::new(next));
            self.usages.reset_rates();
        }
    }

    /// Counts a request for an organization, unless that exceeds its share or rate.
    pub(super) fn reserve_request(
        &self,
        organization: &OrganizationId,
    ) -> Result<OrganizationShare, AdmissionError> {
        let current = **self.current.load();
        let usage = self.usages.get_or_insert(organization);
        let requests = usage.in_flight.add_request();
        let mut share = OrganizationShare { usage, bytes: 0, current, is_reported: false };
        let max = current.max_in_flight;
        let over =
            max.and_then(|max| over_share(Limit::InFlight, requests, max.requests)).or_else(|| {
                let rate = current.settings.requests?;
                let taken = share.usage.request_rate.try_take(rate, 1, self.now());
                taken.err().map(|wait| over_rate(Limit::Rate, rate, wait))
            });
        self.reject_if(over, &mut share)?;
        Ok(share)
    }

    /// Reserves `bytes` more for a request, unless its organization exceeds its share. A request
    /// that holds all bytes of its organization is never rejected: sending it later would not help.
    pub(super) fn reserve_bytes(
        &self,
        share: &mut OrganizationShare,
        bytes: usize,
    ) -> Result<(), AdmissionError> {
        share.bytes += bytes;
        let total = share.usage.in_flight.add_bytes(bytes);
        self.check_bytes(share, share.bytes, total)
    }

    /// Checks that `bytes` more could be reserved now, and reserves nothing.
    pub(super) fn check(
        &self,
        share: &mut OrganizationShare,
        bytes: usize,
    ) -> Result<(), AdmissionError> {
        let total = share.usage.in_flight.bytes() + bytes;
        self.check_bytes(share, share.bytes + bytes, total)
    }

    fn check_bytes(
        &self,
        share: &mut OrganizationShare,
        own: usize,
        total: usize,
    ) -> Result<(), AdmissionError> {
        let max = share.current.max_in_flight.filter(|_| own < total);
        let over = max.and_then(|max| over_share(Limit::InFlightBytes, total, max.bytes));
        self.reject_if(over, share)
    }

    /// Counts the jobs of a request, unless its organization exceeds its job rate.
    pub(super) fn start_jobs(
        &self,
        share: &mut OrganizationShare,
        jobs: usize,
    ) -> Result<(), AdmissionError> {
        let over = share.current.settings.jobs.filter(|_| jobs > 0).and_then(|rate| {
            let taken = share.usage.job_rate.try_take(rate, jobs, self.now());
            taken.err().map(|wait| over_rate(Limit::Jobs, rate, wait))
        });
        self.reject_if(over, share)?;
        share.usage.add_jobs(jobs);
        Ok(())
    }

    #[inline]
    fn reject_if(
        &self,
        over: Option<OverLimit>,
        share: &mut OrganizationShare,
    ) -> Result<(), AdmissionError> {
        over.map_or(Ok(()), |over| self.reject(over, share))
    }

    /// Reports that an organization is over a limit, once a request, and rejects the request unless
    /// `dry_run` is set.
    #[cold]
    fn reject(&self, over: OverLimit, share: &mut OrganizationShare) -> Result<(), AdmissionError> {
        let dry_run = share.current.settings.dry_run;
        if !std::mem::replace(&mut share.is_reported, true) {
            self.report(share.usage.organization(), over, dry_run);
        }
        if dry_run { Ok(()) } else { Err(AdmissionError::OverLimit(over)) }
    }

    fn report(&self, organization: &OrganizationId, over: OverLimit, dry_run: bool) {
        if dry_run {
            self.metrics.over_limit_in_dry_run(over.limit).increment(1);
        }
        let second = self.epoch.elapsed().as_secs() + 1;
        if self.logged.swap(second, Ordering::Relaxed) != second {
            let limit = over.limit.as_str();
            let organization = organization.as_str();
            tracing::warn!(organization, limit, dry_run, "organization is over its limit");
        }
    }

    /// What an organization has in flight.
    #[cfg(test)]
    pub(super) fn in_flight(&self, organization: &OrganizationId) -> Amount {
        let in_flight = &self.usages.get_or_insert(organization).in_flight;
        Amount { requests: in_flight.requests(), bytes: in_flight.bytes() }
    }

    /// Removes accounts as [`Self::maintain`] does, `max` being the most that are kept. Returns how
    /// many are left.
    #[cfg(test)]
    pub(super) fn remove_idle(&self, tick: usize, max: usize) -> usize {
        self.usages.sample(tick, u64::MAX, max);
        self.usages.len()
    }

    /// Nanoseconds since the epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn at_limit(&self, max: usize) -> Vec<OrganizationAtLimit> {
        self.at_limit.list(max)
    }

    /// Remembers the organizations that are at a limit now.
    fn record_at_limit(&self, second: usize) {
        let (current, now) = (**self.current.load(), self.now());
        let reached = |account: &Account| {
            let limit = current.limit_reached(account, now)?;
            Some((account.organization().clone(), limit))
        };
        self.at_limit.record(second, self.usages.filter_map(reached, MAX_AT_LIMIT));
    }

    /// Counts the jobs of all organizations, remembers those at a limit and removes idle accounts,
    /// once a second. Never ends.
    pub(super) async fn maintain(self: Arc<Self>) {
        for second in 1.. {
            tokio::time::sleep(SAMPLE_INTERVAL).await;
            self.record_at_limit(second);
            if self.usages.sample(second, self.now(), MAX_ACCOUNTS) {
                tracing::warn!(
                    "too many organizations to track; resetting all limits except those of organizations with requests in flight"
                );
            }
        }
    }
}

/// One request in the account of its organization. It is released when it is dropped.
#[derive(Debug)]
pub(super) struct OrganizationShare {
    usage: Arc<Account>,
    bytes: usize,
    /// The settings when the request arrived.
    current: CurrentSettings,
    /// Whether the request has been reported as over a limit.
    is_reported: bool,
}

impl OrganizationShare {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.usage.in_flight.release_bytes(bytes);
    }

    #[inline]
    pub(super) fn queue(&self, find: impl FnOnce() -> usize) -> usize {
        self.usage.queue(find)
    }

    /// Whether the organization has started more than twice as many jobs in the last minute as the
    /// others on average.
    pub(super) fn is_heavy(&self) -> bool {
        self.usage.is_heavy()
    }
}

impl Drop for OrganizationShare {
    fn drop(&mut self) {
        self.usage.in_flight.release_bytes(self.bytes);
        self.usage.in_flight.end_request();
    }
}

/// Returns the limit as exceeded if `total` is above the share `max`.
fn over_share(limit: Limit, total: usize, max: usize) -> Option<OverLimit> {
    let over = OverLimit { limit, quota: max, window: None, retry_after: SHARE_RETRY };
    (total > max).then_some(over)
}

fn over_rate(limit: Limit, rate: Rate, retry_after: Duration) -> OverLimit {
    let (quota, window) = rate.quota();
    OverLimit { limit, quota, window: Some(window), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;

    fn organizations(toml: &str) -> Organizations {
        let mut settings = SettingsReader::new(toml.parse().unwrap(), std::iter::empty());
        let read = OrganizationSettings::read(&mut settings.section("limits.organization"));
        assert_eq!(settings.into_faults(), []);
        let in_flight = Amount { requests: 10, bytes: 1000 };
        Organizations::new(read, in_flight, Metrics::new("v", "c").unwrap())
    }

    fn id(number: usize) -> OrganizationId {
        OrganizationId::new(&format!("org_{number}")).unwrap()
    }

    fn exceeded<T>(result: &Result<T, AdmissionError>) -> (Limit, usize) {
        match result {
            Err(AdmissionError::OverLimit(over)) => (over.limit, over.quota),
            _ => panic!("it was admitted, or rejected for another reason"),
        }
    }

    #[test]
    fn a_share_counts_until_it_is_dropped() {
        let all = organizations("[limits.organization]\nin_flight_share = 0.25");
        let mut held = [all.reserve_request(&id(1)).unwrap(), all.reserve_request(&id(1)).unwrap()];
        assert_eq!(exceeded(&all.reserve_request(&id(1))), (Limit::InFlight, 2));
        let mut other = all.reserve_request(&id(2)).unwrap();
        all.reserve_bytes(&mut held[0], 200).unwrap();
        all.reserve_bytes(&mut held[1], 50).unwrap();
        all.reserve_bytes(&mut other, 250).unwrap();
        assert_eq!(exceeded(&all.check(&mut held[1], 1)), (Limit::InFlightBytes, 250));
        held[0].release(10);
        all.check(&mut held[1], 10).unwrap();
        all.reserve_bytes(&mut held[1], 10).unwrap();
        assert_eq!(exceeded(&all.reserve_bytes(&mut held[1], 1)), (Limit::InFlightBytes, 250));
        all.reserve_bytes(&mut other, 500).expect("it holds all bytes of its organization");
        drop(held);
        all.reserve_request(&id(1)).expect("the dropped shares were released");
    }

    #[test]
    fn an_organization_is_at_a_limit_when_its_next_request_would_exceed_it() {
        let limits =
            "requests_per_second = 1\nburst = 2\njobs_per_second = 1\nin_flight_share = 0.4";
        let all = organizations(&format!("[limits.organization]\n{limits}"));
        let held: Vec<_> =
            (1..=4).map(|number| all.reserve_request(&id(number)).unwrap()).collect();
        let mut rest = held.into_iter();
        let [mut busy, mut full, mut starting] = [(); 3].map(|()| rest.next().unwrap());
        all.reserve_bytes(&mut full, 400).unwrap();
        all.start_jobs(&mut starting, 1).unwrap();
        let more: Vec<_> = (0..3).filter_map(|_| all.reserve_request(&id(1)).ok()).collect();
        assert_eq!(more.len(), 1);
        all.record_at_limit(1);
        let found = all.at_limit(9).into_iter().map(|each| (each.organization, each.limit));
        let expected = [(id(1), Limit::Rate), (id(2), Limit::InFlightBytes), (id(3), Limit::Jobs)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        busy.release(0);
    }

    #[test]
    fn a_request_counts_as_many_times_as_it_has_jobs() {
        let all = organizations("[limits.organization]\njobs_per_second = 1\njobs_burst = 10");
        let mut share = all.reserve_request(&id(1)).unwrap();
        all.start_jobs(&mut share, 4096).expect("the bucket was full");
        assert_eq!(exceeded(&all.start_jobs(&mut share, 1)), (Limit::Jobs, 10));
        all.start_jobs(&mut share, 0).expect("it starts no job");
        all.start_jobs(&mut all.reserve_request(&id(2)).unwrap(), 10)
            .expect("another organization");
        let without = organizations("").current.load().settings;
        all.reload(without, Amount { requests: 10, bytes: 1000 });
        all.start_jobs(&mut all.reserve_request(&id(1)).unwrap(), 4096).unwrap();
    }
}
