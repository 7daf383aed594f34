//! The limit on failed verifications of one client address at one endpoint, and on its deliveries to
//! unknown endpoints. It is checked before a body is read, so a flood of wrong signatures costs
//! little more than its heads.
//!
//! Failures are counted in minutes that begin with the first failure of a pair, so at most twice the
//! limit fail within any 60 s that straddle two of them, besides those that were in flight when the
//! limit was reached. What is in flight is bounded by the share of unverified deliveries.
//!
//! IPv6 is counted by /64. Whoever has n addresses has n times the limit: the limit protects from a
//! few senders, and the share of unverified deliveries from many. The counts of failures are bounded
//! and the least recently used go first, so many addresses can only make Hookgate forget failures,
//! which many addresses do not need. Pairs with accepted deliveries are kept apart: only accepted
//! deliveries displace them, and a pair that was displaced is refused only if it also fails.

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
