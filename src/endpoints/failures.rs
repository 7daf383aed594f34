//! The limit on failed verifications of one client address at one endpoint, and on its deliveries to
//! unknown endpoints. It is checked before a body is read, so a flood of wrong signatures costs
//! little more than its heads.
//!
//! Failures are counted in minutes that begin with the first failure of a pair, so at most twice the
//! limit fail within any 60 s that straddle two of them, besides those that were in flight when the
//! limit was reached. What is in flight is bounded by the share of unverified deliveries.
//!
//! IPv6 is counted by /64. A sender with n addresses has n times the limit: the limit protects from
//! a few senders, and the share of unverified deliveries from many. The counts of failures are
//! bounded, and the least recently used go first. Many addresses can make Hookgate forget failures
//! that way, but gain nothing, because each of them is below the limit anyway. Pairs with accepted
//! deliveries are kept apart: only accepted deliveries displace them, and a pair that was displaced
//! is refused only if it also fails.

use crate::endpoints::recent_map::RecentMap;
use crate::ids::{OrganizationId, WebhookId};
use crate::metrics::{DeliveryLimit, Metrics};
use crate::settings::ClientNetwork;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// Maximum pairs of client and endpoint with failures, and likewise with accepted deliveries:
/// together 100,000. Both together take up to 6 MiB.
const MAX_PAIRS: usize = 50_000;

/// The time in which failures are counted.
const MINUTE: u64 = 60_000;

/// How long a pair is never refused after an accepted delivery.
const ACCEPTED_TIME: u64 = 60 * MINUTE;

/// An endpoint, as the limit counts it. Two endpoints have the same key with a probability of
/// 2^-64, and would then share a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointKey(u64);

/// A delivery is refused. One more is allowed after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client address has too many failed deliveries")]
pub struct RetryAfter {
    /// Rounded up, at least 1.
    pub seconds: u64,
}

/// The failures and accepted deliveries of the last time. Times are passed in.
#[derive(Debug)]
pub struct FailedVerifications {
    /// 0: no limit, and nothing is stored.
    per_minute: u32,
    failures: RecentMap<Pair, Failures>,
    /// The time of the last accepted delivery in milliseconds.
    accepted: RecentMap<Pair, u64>,
    /// Randomly seeded, so that nobody can choose endpoints with the same key.
    hasher: RandomState,
    epoch: Instant,
    metrics: Arc<Metrics>,
}

/// A client and an endpoint; `None`: all unknown endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pair {
    client: ClientNetwork,
    endpoint: Option<EndpointKey>,
}

/// The failures of a pair in the minute that began with the first of them.
#[derive(Debug, Clone, Copy)]
struct Failures {
    /// In milliseconds.
    since: u64,
    count: u32,
}

impl Failures {
    fn is_over(self, now: u64) -> bool {
        now >= self.since + MINUTE
    }
}

impl FailedVerifications {
    pub fn new(per_minute: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            per_minute,
            failures: RecentMap::new(MAX_PAIRS),
            accepted: RecentMap::new(MAX_PAIRS),
            hasher: RandomState::new(),
            epoch: Instant::now(),
            metrics,
        }
    }

    /// The key of an endpoint. It differs in every process.
    pub fn endpoint(&self, organization: &OrganizationId, webhook: &WebhookId) -> EndpointKey {
        EndpointKey(self.hasher.hash_one((organization, webhook)))
    }

    /// Admits a delivery, unless its pair has failed too often within a minute and has had no
    /// accepted delivery for an hour. Without a client address every delivery is admitted.
    pub fn admit(
        &self,
        client: Option<IpAddr>,
        endpoint: EndpointKey,
        now: Instant,
    ) -> Result<(), RetryAfter> {
        let Some(pair) = self.pair(client, Some(endpoint)) else { return Ok(()) };
        let now = self.milliseconds(now);
        match self.check(pair, now) {
            Err(retry_after) if !self.was_accepted(pair, now) => {
                Err(self.refuse(DeliveryLimit::FailedVerifications, retry_after))
            }
            _ => Ok(()),
        }
    }

    /// Counts a delivery that no verification of its endpoint has accepted.
    pub fn failed(&self, client: Option<IpAddr>, endpoint: EndpointKey, now: Instant) {
        self.count(self.pair(client, Some(endpoint)), now);
    }

    /// Remembers a delivery that was accepted because it proved a secret. A delivery that was
    /// accepted without a secret must not be reported: everyone could then exempt an address from
    /// the limit.
    pub fn accepted(&self, client: Option<IpAddr>, endpoint: EndpointKey, now: Instant) {
        if let Some(pair) = self.pair(client, Some(endpoint)) {
            self.accepted.update(pair, |_| self.milliseconds(now));
        }
    }

    /// Admits one more delivery to an unknown endpoint.
    pub fn admit_unknown(&self, client: Option<IpAddr>, now: Instant) -> Result<(), RetryAfter> {
        let Some(pair) = self.pair(client, None) else { return Ok(()) };
        self.check(pair, self.milliseconds(now))
            .map_err(|retry_after| self.refuse(DeliveryLimit::UnknownEndpoints, retry_after))
    }

    /// Counts a delivery to an unknown endpoint.
    pub fn unknown(&self, client: Option<IpAddr>, now: Instant) {
        self.count(self.pair(client, None), now);
    }

    /// `None` if nothing is counted.
    fn pair(&self, client: Option<IpAddr>, endpoint: Option<EndpointKey>) -> Option<Pair> {
        let client = client.filter(|_| self.per_minute > 0)?;
        Some(Pair { client: ClientNetwork::from_ip(client), endpoint })
    }

    fn check(&self, pair: Pair, now: u64) -> Result<(), RetryAfter> {
        match self.failures.get(pair) {
            Some(failures) if failures.count >= self.per_minute && !failures.is_over(now) => {
                let left = failures.since + MINUTE - now;
                Err(RetryAfter { seconds: left.div_ceil(1000) })
            }
            _ => Ok(()),
        }
    }

    fn was_accepted(&self, pair: Pair, now: u64) -> bool {
        self.accepted.get(pair).is_some_and(|last| now <= last + ACCEPTED_TIME)
    }

    fn count(&self, pair: Option<Pair>, now: Instant) {
        let Some(pair) = pair else { return };
        let now = self.milliseconds(now);
        self.failures.update(pair, |failures| match failures {
            Some(Failures { since, count }) if !(Failures { since, count }).is_over(now) => {
                Failures { since, count: count.saturating_add(1) }
            }
            _ => Failures { since: now, count: 1 },
        });
    }

    fn refuse(&self, limit: DeliveryLimit, retry_after: RetryAfter) -> RetryAfter {
        self.metrics.delivery_over_limit(limit).increment(1);
        retry_after
    }

    /// Milliseconds since this was created.
    fn milliseconds(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    struct Limit {
        failed: FailedVerifications,
        metrics: Arc<Metrics>,
    }

    fn limit(per_minute: u32) -> Limit {
        let metrics = Metrics::new("", "").unwrap();
        Limit { failed: FailedVerifications::new(per_minute, Arc::clone(&metrics)), metrics }
    }

    impl Limit {
        fn endpoint(&self, webhook: &str) -> EndpointKey {
            let organization = OrganizationId::new("org").unwrap();
            self.failed.endpoint(&organization, &WebhookId::new(webhook).unwrap())
        }

        /// A time after the start.
        fn at(&self, milliseconds: u64) -> Instant {
            self.failed.epoch + Duration::from_millis(milliseconds)
        }

        /// The seconds of a refusal.
        fn wait(&self, client: Option<IpAddr>, endpoint: EndpointKey, at: u64) -> Option<u64> {
            let admitted = self.failed.admit(client, endpoint, self.at(at));
            admitted.err().map(|retry_after| retry_after.seconds)
        }

        fn fail(&self, times: usize, client: Option<IpAddr>, endpoint: EndpointKey, at: u64) {
            (0..times).for_each(|_| self.failed.failed(client, endpoint, self.at(at)));
        }

        fn assert_counted(&self, limit: DeliveryLimit, times: u64) {
            let line = format!(
                "hookgate_deliveries_over_limit_total{{limit=\"{}\"}} {times}\n",
                limit.as_str()
            );
            let page = self.metrics.render();
            assert!(page.contains(&line), "{line} {page}");
        }
    }

    fn client(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_pair_is_refused_until_the_minute_of_its_first_failure_ends() {
        let limit = limit(3);
        let (endpoint, sender) = (limit.endpoint("a"), Some(client("192.0.2.1")));
        limit.fail(2, sender, endpoint, 10_000);
        assert_eq!(limit.wait(sender, endpoint, 10_000), None);
        limit.fail(1, sender, endpoint, 20_000);
        for (at, expected) in [
            (20_000, Some(50)),
            (20_001, Some(50)),
            (69_000, Some(1)),
            (69_999, Some(1)),
            (70_000, None),
        ] {
            assert_eq!(limit.wait(sender, endpoint, at), expected, "{at}");
        }
        assert_eq!(limit.wait(sender, limit.endpoint("b"), 20_000), None, "another endpoint");
        assert_eq!(limit.wait(Some(client("192.0.2.2")), endpoint, 20_000), None, "another client");
        assert_eq!(limit.wait(None, endpoint, 20_000), None, "no client");
        // The next minute begins with the next failure.
        limit.fail(2, sender, endpoint, 75_000);
        assert_eq!(limit.wait(sender, endpoint, 80_000), None);
        limit.fail(1, sender, endpoint, 80_000);
        assert_eq!(limit.wait(sender, endpoint, 80_000), Some(55));
        limit.assert_counted(DeliveryLimit::FailedVerifications, 5);
    }

    #[test]
    fn ipv6_is_counted_by_network_and_mapped_ipv4_as_ipv4() {
        let limit = limit(2);
        let endpoint = limit.endpoint("a");
        limit.fail(1, Some(client("2001:db8:1:2::1")), endpoint, 0);
        limit.fail(1, Some(client("2001:db8:1:2:ffff::2")), endpoint, 0);
        assert!(limit.wait(Some(client("2001:db8:1:2::3")), endpoint, 1).is_some());
        assert_eq!(limit.wait(Some(client("2001:db8:1:3::1")), endpoint, 1), None);
        limit.fail(2, Some(client("::ffff:192.0.2.1")), endpoint, 0);
        assert!(limit.wait(Some(client("192.0.2.1")), endpoint, 1).is_some());
    }

    #[test]
    fn a_pair_with_an_accepted_delivery_is_not_refused_for_an_hour() {
        let limit = limit(1);
        let (endpoint, sender) = (limit.endpoint("a"), Some(client("192.0.2.1")));
        limit.failed.accepted(sender, endpoint, limit.at(0));
        for at in [0, 1_800_000, 3_600_000] {
            limit.fail(5, sender, endpoint, at);
            assert_eq!(limit.wait(sender, endpoint, at), None, "{at}");
        }
        assert!(limit.wait(sender, endpoint, 3_600_001).is_some());
        limit.fail(1, sender, limit.endpoint("b"), 0);
        assert!(limit.wait(sender, limit.endpoint("b"), 1).is_some(), "another endpoint");
    }

    #[test]
    fn unknown_endpoints_refuse_only_further_unknown_ones() {
        let limit = limit(2);
        let (endpoint, sender) = (limit.endpoint("a"), Some(client("192.0.2.1")));
        for _ in 0..2 {
            assert_eq!(limit.failed.admit_unknown(sender, limit.at(0)), Ok(()));
            limit.failed.unknown(sender, limit.at(0));
        }
        let refused = limit.failed.admit_unknown(sender, limit.at(30_500));
        assert_eq!(refused, Err(RetryAfter { seconds: 30 }));
        assert_eq!(limit.wait(sender, endpoint, 1), None);
        assert_eq!(limit.failed.admit_unknown(Some(client("192.0.2.2")), limit.at(0)), Ok(()));
        limit.fail(2, sender, endpoint, 60_000);
        assert_eq!(limit.failed.admit_unknown(sender, limit.at(60_000)), Ok(()));
        limit.assert_counted(DeliveryLimit::UnknownEndpoints, 1);
        limit.assert_counted(DeliveryLimit::FailedVerifications, 0);
    }

    #[test]
    fn a_limit_of_0_stores_and_refuses_nothing() {
        let limit = limit(0);
        let (endpoint, sender) = (limit.endpoint("a"), Some(client("192.0.2.1")));
        limit.fail(1000, sender, endpoint, 0);
        limit.failed.accepted(sender, endpoint, limit.at(0));
        limit.failed.unknown(sender, limit.at(0));
        assert_eq!(limit.wait(sender, endpoint, 1), None);
        assert_eq!(limit.failed.admit_unknown(sender, limit.at(1)), Ok(()));
        assert_eq!((limit.failed.failures.len(), limit.failed.accepted.len()), (0, 0));
    }

    #[test]
    fn a_flood_from_many_addresses_is_bounded_and_displaces_no_accepted_pair() {
        let limit = limit(1);
        let (endpoint, honest) = (limit.endpoint("a"), Some(client("192.0.2.1")));
        limit.failed.accepted(honest, endpoint, limit.at(0));
        limit.fail(1, honest, endpoint, 0);
        // Three times as many networks as are kept, all in one /44.
        for network in 0..150_000_u128 {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + (network << 64));
            limit.fail(1, Some(address.into()), endpoint, 1);
            limit.failed.unknown(Some(address.into()), limit.at(1));
        }
        assert!(limit.failed.failures.len() <= MAX_PAIRS, "{}", limit.failed.failures.len());
        limit.fail(1, honest, endpoint, 2);
        assert_eq!(limit.wait(honest, endpoint, 2), None);
    }

    /// The count is exact if many threads fail at a time.
    #[test]
    fn no_failure_is_lost_between_threads() {
        let limit = limit(4000);
        let (endpoint, sender) = (limit.endpoint("a"), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| limit.fail(1000, sender, endpoint, 0));
            }
        });
        assert!(limit.wait(sender, endpoint, 1).is_some());
    }
}
