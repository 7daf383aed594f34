//! The slots for connections (`server.max_connections`): which connection has one, and which one
//! is evicted for a new connection.
//!
//! A silent connection costs its caller almost nothing. Without eviction, silent connections could
//! keep all other callers out until their time limits. So if no slot is free, the connection that
//! has been idle for longest is closed.

use crate::http::activity::Activity;
use crate::http::peer::Peer;
use crate::metrics::Metrics;
use crate::settings::ClientNetwork;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// How long a connection cannot be evicted after its opening or its last answer: a request or the
/// answer may still be on the wire.
const PROTECTED_TIME: Duration = Duration::from_millis(500);

/// How long to wait for a free slot before another connection is evicted.
const EVICTION_DELAY: Duration = Duration::from_millis(20);

/// Maximum connections that one scan of all connections selects for eviction.
const MAX_CANDIDATES: usize = 64;

/// The slots for connections of the process.
#[derive(Debug)]
pub struct ConnectionSlots {
    free: Arc<Semaphore>,
    /// Maximum connections of one client network; 0: no bound.
    per_address: usize,
    holders: Mutex<SlotHolders>,
    metrics: Arc<Metrics>,
}

/// The connections that have a slot.
#[derive(Debug, Default)]
struct SlotHolders {
    last_key: u64,
    all: HashMap<u64, SlotHolder>,
    /// The number of connections of each client network, if that is bounded.
    by_network: HashMap<ClientNetwork, usize>,
    /// Connections to evict next, the last one first, and when each became idle. One that has begun
    /// a request since then is skipped.
    candidates: Vec<(Instant, u64)>,
}

#[derive(Debug)]
struct SlotHolder {
    activity: Arc<Activity>,
    /// `None` until the task is attached.
    task: Option<AbortHandle>,
}

impl ConnectionSlots {
    pub fn new(count: usize, per_address: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count));
        Arc::new(Self { free, per_address, holders: Mutex::default(), metrics })
    }

    /// Waits for a slot.
    pub(crate) async fn acquire(self: &Arc<Self>, activity: &Arc<Activity>) -> ConnectionGuard {
        let permit = self.permit().await;
        self.metrics.connections.open.increment(1.0);
        let mut holders = self.holders();
        holders.last_key += 1;
        let key = holders.last_key;
        holders.all.insert(key, SlotHolder { activity: Arc::clone(activity), task: None });
        drop(holders);
        ConnectionGuard { slots: Arc::clone(self), key, _permit: permit }
    }

    /// Counts a connection for its client network; `Err` if the network has reached its bound. A
    /// peer without an address is not counted.
    pub(crate) fn share(
        self: &Arc<Self>,
        peer: Peer,
    ) -> Result<Option<NetworkShare>, NetworkIsFull> {
        match peer.ip() {
            Some(address) if self.per_address > 0 => {
                self.share_of(ClientNetwork::from_ip(address)).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Sets the task to abort if the connection is evicted.
    pub(crate) fn attach(&self, key: u64, task: AbortHandle) {
        if let Some(holder) = self.holders().all.get_mut(&key) {
            holder.task = Some(task);
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return permit;
            }
            if self.holders().evict_longest_idle() {
                self.metrics.connections.evicted.increment(1);
            }
            // Beyond the bound, one connection per worker waits here; the others wait in the
            // kernel.
            let waiting = timeout(EVICTION_DELAY, Arc::clone(&self.free).acquire_owned());
            if let Ok(permit) = waiting.await {
                return permit.expect("the semaphore is never closed");
            }
        }
    }

    fn share_of(self: &Arc<Self>, network: ClientNetwork) -> Result<NetworkShare, NetworkIsFull> {
        let mut holders = self.holders();
        let count = holders.by_network.entry(network).or_default();
        if *count >= self.per_address {
            self.metrics.connections.refused.increment(1);
            return Err(NetworkIsFull);
        }
        *count += 1;
        Ok(NetworkShare { slots: Arc::clone(self), network })
    }

    fn holders(&self) -> MutexGuard<'_, SlotHolders> {
        self.holders.lock()
    }
}

impl SlotHolders {
    /// Returns whether a connection was evicted.
    fn evict_longest_idle(&mut self) -> bool {
        if self.candidates.is_empty() {
            self.select_candidates();
        }
        while let Some((since, key)) = self.candidates.pop() {
            let holder = self.all.get(&key);
            let Some(SlotHolder { activity, task: Some(task) }) = holder else { continue };
            if activity.evict(since) {
                task.abort();
                return true;
            }
        }
        false
    }

    /// Selects many candidates in one scan, so that a flood of new connections does not cause a
    /// scan for each.
    fn select_candidates(&mut self) {
        let latest = Instant::now() - PROTECTED_TIME;
        let idle = self.all.iter().filter_map(|(key, holder)| {
            let since = holder.activity.idle_since()?;
            (since <= latest).then_some((since, *key))
        });
        let mut idle: Vec<_> = idle.collect();
        if idle.len() > MAX_CANDIDATES {
            idle.select_nth_unstable(MAX_CANDIDATES);
            idle.truncate(MAX_CANDIDATES);
        }
        idle.sort_unstable_by(|one, other| other.cmp(one));
        self.candidates = idle;
    }
}

/// The slot of a connection. It is released when the guard is dropped, however the task ends.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    slots: Arc<ConnectionSlots>,
    key: u64,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionGuard {
    pub(crate) fn key(&self) -> u64 {
        self.key
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.slots.holders().all.remove(&self.key);
        self.slots.metrics.connections.open.decrement(1.0);
    }
}

/// A client network has as many connections as one may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkIsFull;

/// One connection in the count of its client network. Subtracted when it is dropped.
#[derive(Debug)]
pub(crate) struct NetworkShare {
    slots: Arc<ConnectionSlots>,
    network: ClientNetwork,
}

impl Drop for NetworkShare {
    fn drop(&mut self) {
        let mut holders = self.slots.holders();
        if let Some(count) = holders.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                holders.by_network.remove(&self.network);
            }
        }
    }
}
