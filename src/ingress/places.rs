//! Places for connections: how many there are, who has one, and who gives it up for a new connection.
//!
//! Silent connections cost a caller next to nothing and would otherwise keep everybody else out for as long as their
//! time limits. So when places run out, the connection that has been without a request for longest is closed.

use super::activity::Activity;
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// How long a connection keeps its place after it was opened or answered: a request is on its way, or the answer is.
const GRACE: Duration = Duration::from_millis(500);

/// How long to wait for a place before another connection is closed.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections that are chosen in one look at all of them.
const CHOSEN: usize = 64;

/// The places of the process.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    /// 0: no bound.
    per_address: usize,
    tenants: Mutex<Tenants>,
    metrics: Arc<Metrics>,
}

/// Those who have a place.
#[derive(Debug, Default)]
struct Tenants {
    last_key: u64,
    all: HashMap<u64, Tenant>,
    /// How many connections an address has, where there is a bound.
    of_address: HashMap<Address, usize>,
    /// To be closed next, the last one first, if nothing has come of them since.
    chosen: Vec<(Instant, u64)>,
}

#[derive(Debug)]
struct Tenant {
    activity: Arc<Activity>,
    /// `None` until its task has begun.
    task: Option<AbortHandle>,
}

impl Places {
    pub fn new(count: usize, per_address: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count));
        Arc::new(Self { free, per_address, tenants: Mutex::default(), metrics })
    }

    /// Waits for a place; `None` if the address has as many as it may.
    pub(super) async fn take(
        self: &Arc<Self>,
        address: IpAddr,
        activity: &Arc<Activity>,
    ) -> Option<Place> {
        let share = match self.per_address {
            0 => None,
            _ => Some(self.share(Address::of(address))?),
        };
        let permit = self.permit().await;
        self.metrics.connections.open.increment(1.0);
        let mut tenants = self.tenants();
        tenants.last_key += 1;
        let key = tenants.last_key;
        tenants.all.insert(key, Tenant { activity: Arc::clone(activity), task: None });
        drop(tenants);
        Some(Place { places: Arc::clone(self), key, _share: share, _permit: permit })
    }

    /// Says which task is to be stopped when the place is needed.
    pub(super) fn attach(&self, key: u64, task: AbortHandle) {
        if let Some(tenant) = self.tenants().all.get_mut(&key) {
            tenant.task = Some(task);
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return permit;
            }
            if self.tenants().close_longest_idle() {
                self.metrics.connections.evicted.increment(1);
            }
            // Beyond the bound one connection per worker waits here and the rest in the kernel.
            let waiting = timeout(PAUSE, Arc::clone(&self.free).acquire_owned());
            if let Ok(permit) = waiting.await {
                return permit.expect("the semaphore is never closed");
            }
        }
    }

    fn share(self: &Arc<Self>, address: Address) -> Option<Share> {
        let mut tenants = self.tenants();
        let count = tenants.of_address.entry(address).or_default();
        if *count >= self.per_address {
            self.metrics.connections.refused.increment(1);
            return None;
        }
        *count += 1;
        Some(Share { places: Arc::clone(self), address })
    }

    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenants {
    /// Answers whether there was one.
    fn close_longest_idle(&mut self) -> bool {
        if self.chosen.is_empty() {
            self.choose();
        }
        while let Some((since, key)) = self.chosen.pop() {
            let tenant = self.all.get(&key);
            let Some(Tenant { activity, task: Some(task) }) = tenant else { continue };
            if activity.evict(since) {
                task.abort();
                return true;
            }
        }
        false
    }

    /// All are looked at for many at once, so that a flood of new connections does not have all looked at for each.
    fn choose(&mut self) {
        let idle_since = Instant::now() - GRACE;
        let idle = self.all.iter().filter_map(|(key, tenant)| {
            let since = tenant.activity.idle_since()?;
            (since <= idle_since).then_some((since, *key))
        });
        let mut idle: Vec<_> = idle.collect();
        if idle.len() > CHOSEN {
            idle.select_nth_unstable(CHOSEN);
            idle.truncate(CHOSEN);
        }
        idle.sort_unstable_by(|one, other| other.cmp(one));
        self.chosen = idle;
    }
}

/// A place, for as long as a connection is there: it is given back however its task ends.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    key: u64,
    _share: Option<Share>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn key(&self) -> u64 {
        self.key
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.tenants().all.remove(&self.key);
        self.places.metrics.connections.open.decrement(1.0);
    }
}

/// One of the connections of an address.
#[derive(Debug)]
struct Share {
    places: Arc<Places>,
    address: Address,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut tenants = self.places.tenants();
        if let Some(count) = tenants.of_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                tenants.of_address.remove(&self.address);
            }
        }
    }
}

/// Whom connections are counted together for. A network of IPv6 that a customer is given is one: it has 2^64 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6([u16; 4]),
}

impl Address {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [first, second, third, fourth, ..] = address.segments();
                Self::V6([first, second, third, fourth])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_one_is_of_ipv4() {
        let of = |text: &str| Address::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
    }
}
