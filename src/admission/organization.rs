//! What one organization may take: requests a second, and a share of what is in flight. So one that sends too much
//! leaves the others what is theirs.

use super::NoRoom;
use super::share::{Amount, InFlight, Share};
use crate::ids::OrganizationId;
use crate::metrics::{Limit, Metrics};
use crate::settings::Section;
use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often organizations are forgotten that have all of their burst again.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// Organizations that are remembered, of some 100 bytes each. Where more than these have called within moments, all of
/// them begin anew.
const REMEMBERED: usize = 1 << 18;

/// After how long there is room again in an organization's share.
const SHARE_RETRY: Duration = Duration::from_secs(1);

/// The section `[limits.organization]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OrganizationSettings {
    /// `None`: no limit.
    rate: Option<Rate>,
    /// Of `limits.in_flight_requests` and `limits.in_flight_bytes`, above 0; 1: no limit.
    in_flight_share: f64,
    /// What is over a limit is counted and logged, and goes on.
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl OrganizationSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut count = |key| {
            let count = section.number(key, 0, 0..=10_000_000);
            u32::try_from(count).ok().and_then(NonZeroU32::new)
        };
        let (per_second, burst) = (count("requests_per_second"), count("burst"));
        let in_flight_share = section.value("in_flight_share", 1.0);
        if !(in_flight_share > 0.0 && in_flight_share <= 1.0) {
            section.fault("in_flight_share", "not above 0 and at most 1");
        }
        Self {
            rate: per_second
                .map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) }),
            in_flight_share,
            dry_run: section.value("dry_run", false),
        }
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
    /// Requests within the window, or requests or bytes in flight.
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
    in_flight: Arc<InFlight>,
    metrics: Arc<Metrics>,
    epoch: Instant,
    /// Seconds after the epoch in which an organization was last logged, plus one.
    logged: AtomicU64,
}

#[derive(Debug)]
struct Current {
    settings: OrganizationSettings,
    /// `None`: no limit.
    most_in_flight: Option<Amount>,
    rate: Option<(Rate, DefaultKeyedRateLimiter<OrganizationId>)>,
}

impl Current {
    fn new(settings: OrganizationSettings, in_flight: Amount) -> Self {
        let share = Amount {
            requests: settings.share_of(in_flight.requests),
            bytes: settings.share_of(in_flight.bytes),
        };
        Self::anew(settings, (settings.in_flight_share < 1.0).then_some(share))
    }

    /// Every organization has all of its burst.
    fn anew(settings: OrganizationSettings, most_in_flight: Option<Amount>) -> Self {
        let limiter = |rate: Rate| {
            let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
            (rate, RateLimiter::dashmap(quota))
        };
        Self { settings, most_in_flight, rate: settings.rate.map(limiter) }
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
            in_flight: Arc::default(),
            metrics,
            epoch: Instant::now(),
            logged: AtomicU64::new(0),
        }
    }

    /// These limits from now on, and every burst anew, if they are others.
    pub(super) fn reload(&self, settings: OrganizationSettings, in_flight: Amount) {
        let next = Current::new(settings, in_flight);
        let current = self.current.load();
        if (current.settings, current.most_in_flight) != (settings, next.most_in_flight) {
            self.current.store(Arc::new(next));
        }
    }

    /// Takes one request for an organization, unless that would be one too many. The share is `None` where it has no
    /// limit.
    pub(super) fn take(&self, organization: &OrganizationId) -> Result<Option<Share>, NoRoom> {
        let current = self.current.load();
        let (mut share, over) = match current.most_in_flight {
            None => (None, None),
            Some(most) => {
                let (share, taken) = self.in_flight.begin(organization);
                (Some(share), in_flight(Limit::InFlight, taken.requests, most.requests))
            }
        };
        let over =
            over.or_else(|| current.rate.as_ref().and_then(|rate| over_rate(rate, organization)));
        if let Some(over) = over {
            self.tell(organization, over, current.settings.dry_run);
            if !current.settings.dry_run {
                return Err(NoRoom::OverLimit(over));
            }
            share.as_mut().map(Share::set_told);
        }
        Ok(share)
    }

    /// Takes so many bytes more for a request, unless its organization would have too much. A request that has all of
    /// its organization's bytes is never refused: it could not be sent later either.
    pub(super) fn hold(&self, share: &mut Share, bytes: usize) -> Result<(), NoRoom> {
        let current = self.current.load();
        let taken = share.add(bytes).bytes;
        let Some(most) = current.most_in_flight.filter(|_| share.bytes() < taken) else {
            return Ok(());
        };
        let Some(over) = in_flight(Limit::InFlightBytes, taken, most.bytes) else { return Ok(()) };
        if !share.set_told() {
            self.tell(share.organization(), over, current.settings.dry_run);
        }
        if current.settings.dry_run { Ok(()) } else { Err(NoRoom::OverLimit(over)) }
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

    /// Forgets organizations of which there is nothing to be known. Never ends.
    pub(super) async fn prune(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PRUNE_INTERVAL).await;
            self.prune_once(REMEMBERED);
        }
    }

    fn prune_once(&self, most: usize) {
        let current = self.current.load();
        let Some((_, limiter)) = &current.rate else { return };
        limiter.retain_recent();
        limiter.shrink_to_fit();
        if limiter.len() > most {
            tracing::warn!("too many organizations call to remember how much: all begin anew");
            // Nobody else stores: limits are read again on the thread that prunes.
            let anew = Current::anew(current.settings, current.most_in_flight);
            self.current.store(Arc::new(anew));
        }
    }
}

/// Whether so much in flight is too much.
fn in_flight(limit: Limit, taken: usize, most: usize) -> Option<OverLimit> {
    let over = OverLimit { limit, quota: most, window: None, retry_after: SHARE_RETRY };
    (taken > most).then_some(over)
}

fn over_rate(
    (rate, limiter): &(Rate, DefaultKeyedRateLimiter<OrganizationId>),
    organization: &OrganizationId,
) -> Option<OverLimit> {
    let not_until = limiter.check_key(organization).err()?;
    let (per_second, burst) = (rate.per_second.get(), rate.burst.get());
    // Windows are whole seconds: a burst that does not fill them would tell another rate.
    let (quota, window) = match burst / per_second {
        window if window > 0 && burst.is_multiple_of(per_second) => (burst, window),
        _ => (per_second, 1),
    };
    Some(OverLimit {
        limit: Limit::Rate,
        quota: usize::try_from(quota).unwrap_or(usize::MAX),
        window: Some(Duration::from_secs(window.into())),
        retry_after: not_until.wait_time_from(DefaultClock::default().now()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn organizations(text: &str) -> Arc<Organizations> {
        let mut settings = Settings::new(text.parse().unwrap(), std::iter::empty());
        let read = OrganizationSettings::read(&mut settings.section("limits.organization"));
        assert_eq!(settings.into_faults(), []);
        let most = Amount { requests: 10, bytes: 1000 };
        Arc::new(Organizations::new(read, most, Metrics::new("v", "c").unwrap()))
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
    fn a_share_is_counted_while_it_is_held_and_forgotten_behind_it() {
        let all = organizations("[limits.organization]\nin_flight_share = 0.25");
        let mut held = [all.take(&id(1)).unwrap(), all.take(&id(1)).unwrap()].map(Option::unwrap);
        assert_eq!(refused(&all.take(&id(1))), (Limit::InFlight, 2));
        let mut other = all.take(&id(2)).unwrap().unwrap();
        all.hold(&mut held[0], 200).unwrap();
        all.hold(&mut held[1], 50).unwrap();
        all.hold(&mut other, 250).unwrap();
        held[0].give_back(10);
        all.hold(&mut held[1], 10).unwrap();
        assert_eq!(refused(&all.hold(&mut held[1], 1)), (Limit::InFlightBytes, 250));
        all.hold(&mut other, 500).expect("nobody else of its organization has anything");
        drop(other);
        assert_eq!(all.in_flight.organizations(), 1);
        drop(held);
        assert_eq!(all.in_flight.organizations(), 0);
    }

    #[test]
    fn those_who_have_not_called_for_a_while_are_forgotten_and_too_many_as_well() {
        let all = organizations("[limits.organization]\nrequests_per_second = 1\nburst = 2");
        let known = || all.current.load().rate.as_ref().unwrap().1.len();
        for number in 0..100 {
            all.take(&id(number)).unwrap();
        }
        all.prune_once(100);
        assert_eq!(known(), 100);
        all.prune_once(99);
        assert_eq!(known(), 0);
        let fast = organizations("[limits.organization]\nrequests_per_second = 10000000");
        fast.take(&id(1)).unwrap();
        std::iter::repeat_n((), 1000).for_each(|()| fast.prune_once(100));
        assert_eq!(fast.current.load().rate.as_ref().unwrap().1.len(), 0);
    }
}
