//! What one organization may take: requests and jobs a second, and a share of what is in flight. So one that sends too
//! much leaves the others what is theirs.

use super::NoRoom;
use super::account::{Account, Accounts, Amount};
use super::bucket::Rate;
use crate::ids::OrganizationId;
use crate::metrics::{Limit, Metrics};
use crate::settings::Section;
use arc_swap::ArcSwap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often jobs are counted, and organizations forgotten that have all of their bursts again.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Organizations that are remembered, of some 200 bytes each. Where more than these have called within a minute, all of
/// them begin anew.
const REMEMBERED: usize = 1 << 18;

/// After how long there is room again in an organization's share.
const SHARE_RETRY: Duration = Duration::from_secs(1);

/// The section `[limits.organization]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OrganizationSettings {
    /// Of requests; `None`: no limit.
    requests: Option<Rate>,
    /// Of the jobs that they start; likewise.
    jobs: Option<Rate>,
    /// Of `limits.in_flight_requests` and `limits.in_flight_bytes`, above 0; 1: no limit.
    in_flight_share: f64,
    /// What is over a limit is counted and logged, and goes on.
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
            section.fault("in_flight_share", "not above 0 and at most 1");
        }
        Self { requests, jobs, in_flight_share, dry_run: section.value("dry_run", false) }
    }

    /// What one organization may have of so much, at least 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of what is far below 2^52"
    )]
    pub(super) fn share_of(&self, all: usize) -> usize {
        ((all as f64 * self.in_flight_share) as usize).max(1)
    }
}

/// An organization has what it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the organization is over its limit")]
pub struct OverLimit {
    pub limit: Limit,
    /// Requests or jobs within the window, or requests or bytes in flight.
    pub quota: usize,
    /// In which the quota is there anew; of a limit on what is in flight there is none.
    pub window: Option<Duration>,
    pub retry_after: Duration,
}

impl OverLimit {
    /// Whole seconds, at least one, behind which there is room.
    pub fn retry_after_seconds(&self) -> u64 {
        let has_part = self.retry_after.subsec_nanos() > 0;
        (self.retry_after.as_secs() + u64::from(has_part)).max(1)
    }
}

/// What organizations may take and what they have taken.
#[derive(Debug)]
pub(super) struct Organizations {
    current: ArcSwap<Current>,
    accounts: Accounts,
    metrics: Arc<Metrics>,
    epoch: Instant,
    /// Seconds after the epoch in which an organization was last logged, plus one.
    logged: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Current {
    settings: OrganizationSettings,
    /// `None`: no limit.
    most_in_flight: Option<Amount>,
}

impl Current {
    fn new(settings: OrganizationSettings, in_flight: Amount) -> Self {
        let share = Amount {
            requests: settings.share_of(in_flight.requests),
            bytes: settings.share_of(in_flight.bytes),
        };
        let most_in_flight = (settings.in_flight_share < 1.0).then_some(share);
        Self { settings, most_in_flight }
    }
}

impl Organizations {
    pub(super) fn new(
        settings: OrganizationSettings,
        in_flight: Amount,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            current: ArcSwap::from_pointee(Current::new(settings, in_flight)),
            accounts: Accounts::default(),
            metrics,
            epoch: Instant::now(),
            logged: AtomicU64::new(0),
        }
    }

    /// These limits from now on, and every burst anew, if they are others.
    pub(super) fn reload(&self, settings: OrganizationSettings, in_flight: Amount) {
        let next = Current::new(settings, in_flight);
        if **self.current.load() != next {
            self.current.store(Arc::new(next));
            self.accounts.reset_rates();
        }
    }

    /// Takes one request for an organization, unless that would be one too many.
    pub(super) fn take(&self, organization: &OrganizationId) -> Result<Share, NoRoom> {
        let current = **self.current.load();
        let account = self.accounts.of(organization);
        let requests = account.add_request();
        let mut share = Share { account, bytes: 0, current, is_told: false };
        let most = current.most_in_flight;
        let over = most
            .and_then(|most| over_share(Limit::InFlight, requests, most.requests))
            .or_else(|| {
                let rate = current.settings.requests?;
                let taken = share.account.request_rate.take(rate, 1, self.now());
                taken.err().map(|wait| over_rate(Limit::Rate, rate, wait))
            });
        self.refuse_if(over, &mut share)?;
        Ok(share)
    }

    /// Takes so many bytes more for a request, unless its organization would have too much. A request that has all of
    /// its organization's bytes is never refused: it could not be sent later either.
    pub(super) fn hold(&self, share: &mut Share, bytes: usize) -> Result<(), NoRoom> {
        share.bytes += bytes;
        let taken = share.account.add_bytes(bytes);
        self.check_bytes(share, share.bytes, taken)
    }

    /// Refuses what could not be held now.
    pub(super) fn check(&self, share: &mut Share, bytes: usize) -> Result<(), NoRoom> {
        let taken = share.account.bytes() + bytes;
        self.check_bytes(share, share.bytes + bytes, taken)
    }

    fn check_bytes(&self, share: &mut Share, own: usize, taken: usize) -> Result<(), NoRoom> {
        let most = share.current.most_in_flight.filter(|_| own < taken);
        let over = most.and_then(|most| over_share(Limit::InFlightBytes, taken, most.bytes));
        self.refuse_if(over, share)
    }

    /// Takes so many jobs for a request, unless its organization has started too many lately.
    pub(super) fn start_jobs(&self, share: &mut Share, jobs: usize) -> Result<(), NoRoom> {
        let over = share.current.settings.jobs.filter(|_| jobs > 0).and_then(|rate| {
            let taken = share.account.job_rate.take(rate, jobs, self.now());
            taken.err().map(|wait| over_rate(Limit::Jobs, rate, wait))
        });
        self.refuse_if(over, share)?;
        share.account.add_jobs(jobs);
        Ok(())
    }

    #[inline]
    fn refuse_if(&self, over: Option<OverLimit>, share: &mut Share) -> Result<(), NoRoom> {
        over.map_or(Ok(()), |over| self.refuse(over, share))
    }

    /// Says that an organization is over a limit, once for a request, and refuses it unless that is a dry run.
    #[cold]
    fn refuse(&self, over: OverLimit, share: &mut Share) -> Result<(), NoRoom> {
        let dry_run = share.current.settings.dry_run;
        if !std::mem::replace(&mut share.is_told, true) {
            self.tell(share.account.organization(), over, dry_run);
        }
        if dry_run { Ok(()) } else { Err(NoRoom::OverLimit(over)) }
    }

    fn tell(&self, organization: &OrganizationId, over: OverLimit, dry_run: bool) {
        if dry_run {
            self.metrics.over_limit_in_dry_run(over.limit).increment(1);
        }
        let second = self.epoch.elapsed().as_secs() + 1;
        if self.logged.swap(second, Ordering::Relaxed) != second {
            let limit = over.limit.word();
            let organization = organization.as_str();
            tracing::warn!(organization, limit, dry_run, "organization is over its limit");
        }
    }

    /// Nanoseconds since the epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts the jobs of all organizations and forgets those of which there is nothing to be known, once a second.
    /// Never ends.
    pub(super) async fn look_after(self: Arc<Self>) {
        for look in 1.. {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if self.accounts.look(look, self.now(), REMEMBERED) {
                tracing::warn!(
                    "too many organizations to track; resetting all limits except those of organizations with requests in flight"
                );
            }
        }
    }
}

/// One request of those that an organization has in flight. Given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    account: Arc<Account>,
    bytes: usize,
    /// As it was when the request came.
    current: Current,
    /// Whether it was counted as over a limit.
    is_told: bool,
}

impl Share {
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.account.give_back(bytes);
    }

    /// Whether its organization has started over twice as many jobs within a minute as the others on average.
    pub(super) fn is_heavy(&self) -> bool {
        self.account.is_heavy()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.account.end_request(self.bytes);
    }
}

/// Whether so much in flight is too much.
fn over_share(limit: Limit, taken: usize, most: usize) -> Option<OverLimit> {
    let over = OverLimit { limit, quota: most, window: None, retry_after: SHARE_RETRY };
    (taken > most).then_some(over)
}

fn over_rate(limit: Limit, rate: Rate, retry_after: Duration) -> OverLimit {
    let (quota, window) = rate.quota();
    OverLimit { limit, quota, window: Some(window), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn organizations(text: &str) -> Organizations {
        let mut settings = Settings::new(text.parse().unwrap(), std::iter::empty());
        let read = OrganizationSettings::read(&mut settings.section("limits.organization"));
        assert_eq!(settings.into_faults(), []);
        let most = Amount { requests: 10, bytes: 1000 };
        Organizations::new(read, most, Metrics::new("v", "c").unwrap())
    }

    fn id(number: usize) -> OrganizationId {
        OrganizationId::new(&format!("org_{number}")).unwrap()
    }

    fn refused<T>(taken: &Result<T, NoRoom>) -> (Limit, usize) {
        match taken {
            Err(NoRoom::OverLimit(over)) => (over.limit, over.quota),
            _ => panic!("it was taken, or refused for another reason"),
        }
    }

    #[test]
    fn a_share_is_counted_while_it_is_held() {
        let all = organizations("[limits.organization]\nin_flight_share = 0.25");
        let mut held = [all.take(&id(1)).unwrap(), all.take(&id(1)).unwrap()];
        assert_eq!(refused(&all.take(&id(1))), (Limit::InFlight, 2));
        let mut other = all.take(&id(2)).unwrap();
        all.hold(&mut held[0], 200).unwrap();
        all.hold(&mut held[1], 50).unwrap();
        all.hold(&mut other, 250).unwrap();
        assert_eq!(refused(&all.check(&mut held[1], 1)), (Limit::InFlightBytes, 250));
        held[0].give_back(10);
        all.check(&mut held[1], 10).unwrap();
        all.hold(&mut held[1], 10).unwrap();
        assert_eq!(refused(&all.hold(&mut held[1], 1)), (Limit::InFlightBytes, 250));
        all.hold(&mut other, 500).expect("nobody else of its organization has anything");
        drop(held);
        all.take(&id(1)).expect("what was held has been given back");
    }

    #[test]
    fn one_request_with_many_jobs_weighs_as_much_as_many() {
        let all = organizations("[limits.organization]\njobs_per_second = 1\njobs_burst = 10");
        let mut share = all.take(&id(1)).unwrap();
        all.start_jobs(&mut share, 4096).expect("the bucket was full");
        assert_eq!(refused(&all.start_jobs(&mut share, 1)), (Limit::Jobs, 10));
        all.start_jobs(&mut share, 0).expect("nothing is started");
        all.start_jobs(&mut all.take(&id(2)).unwrap(), 10).expect("another organization");
        let without = organizations("").current.load().settings;
        all.reload(without, Amount { requests: 10, bytes: 1000 });
        all.start_jobs(&mut all.take(&id(1)).unwrap(), 4096).unwrap();
    }
}
