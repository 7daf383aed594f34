//! The share of the in-flight limits for deliveries that are not verified yet, and a part of it for
//! each client. Deliveries without a credential, however many and from however many addresses,
//! leave the rest of the limits to callers that are known.

use crate::admission::accounts::Amount;
use crate::admission::error::AdmissionError;
use crate::metrics::{DeliveryLimit, Metrics};
use crate::settings::ClientNetwork;
use atomics::in_flight::InFlight;
use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::{Mutex, MutexGuard};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Parts of the map of clients, each with its own lock.
const LOCKS: usize = 64;
const LOCK_MASK: u64 = LOCKS as u64 - 1;

/// A client may use the share divided by this number.
const CLIENT_DIVISOR: usize = 4;

/// The deliveries in flight that are not verified yet.
#[derive(Debug)]
pub(super) struct Unverified {
    /// The share of both limits; a reload does not change it.
    share: f64,
    max_requests: AtomicUsize,
    max_bytes: AtomicUsize,
    in_flight: InFlight,
    clients: Clients,
    metrics: Arc<Metrics>,
}

impl Unverified {
    pub(super) fn new(share: f64, in_flight: Amount, metrics: Arc<Metrics>) -> Self {
        let Amount { requests, bytes } = in_flight.share(share);
        Self {
            share,
            max_requests: AtomicUsize::new(requests),
            max_bytes: AtomicUsize::new(bytes),
            in_flight: InFlight::default(),
            clients: Clients::default(),
            metrics,
        }
    }

    /// Applies new in-flight limits.
    pub(super) fn reload(&self, in_flight: Amount) {
        let Amount { requests, bytes } = in_flight.share(self.share);
        self.max_requests.store(requests, Ordering::Relaxed);
        self.max_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts a delivery, unless that exceeds the share or the part of its client. Without a client
    /// only the share counts.
    pub(super) fn reserve_request(
        self: &Arc<Self>,
        client: Option<IpAddr>,
    ) -> Result<UnverifiedShare, AdmissionError> {
        let max = self.max_requests.load(Ordering::Relaxed);
        let client = client.map(ClientNetwork::from_ip);
        if !client.is_none_or(|client| self.clients.try_add_request(client, part(max))) {
            return Err(self.refuse(DeliveryLimit::UnverifiedClient));
        }
        if !self.in_flight.try_add_request(max) {
            if let Some(client) = client {
                self.clients.release(client, Amount { requests: 1, bytes: 0 });
            }
            return Err(self.refuse(DeliveryLimit::UnverifiedShare));
        }
        Ok(UnverifiedShare { unverified: Arc::clone(self), client, bytes: 0 })
    }

    fn refuse(&self, limit: DeliveryLimit) -> AdmissionError {
        self.metrics.delivery_over_limit(limit).increment(1);
        AdmissionError::Overloaded
    }

    /// What is in flight of one client, or of all.
    #[cfg(test)]
    pub(super) fn in_flight(&self, client: Option<IpAddr>) -> Amount {
        match client {
            None => Amount { requests: self.in_flight.requests(), bytes: self.in_flight.bytes() },
            Some(client) => self.clients.in_flight(ClientNetwork::from_ip(client)),
        }
    }

    /// The number of clients with a delivery in flight.
    #[cfg(test)]
    pub(super) fn clients(&self) -> usize {
        self.clients.parts.iter().map(|part| part.lock().len()).sum()
    }
}

/// The part of one client, at least 1.
fn part(share: usize) -> usize {
    (share / CLIENT_DIVISOR).max(1)
}

/// One delivery in the share of all and in the part of its client. It is released when it is
/// dropped.
#[derive(Debug)]
pub(super) struct UnverifiedShare {
    unverified: Arc<Unverified>,
    client: Option<ClientNetwork>,
    bytes: usize,
}

impl UnverifiedShare {
    /// Reserves `bytes` more. A delivery that holds all bytes of its client, or of the share, is
    /// never rejected there: sending it later would not help.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), AdmissionError> {
        let unverified = &self.unverified;
        let max = unverified.max_bytes.load(Ordering::Relaxed);
        if let Some(client) = self.client
            && !unverified.clients.try_add_bytes(client, bytes, self.bytes, part(max))
        {
            return Err(unverified.refuse(DeliveryLimit::UnverifiedClient));
        }
        if !unverified.in_flight.try_add_bytes(bytes, self.bytes, max) {
            if let Some(client) = self.client {
                unverified.clients.release(client, Amount { requests: 0, bytes });
            }
            return Err(unverified.refuse(DeliveryLimit::UnverifiedShare));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Checks that `bytes` more could be reserved now, and reserves nothing.
    pub(super) fn check(&mut self, bytes: usize) -> Result<(), AdmissionError> {
        self.reserve(bytes)?;
        self.release(bytes);
        Ok(())
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.unverified.in_flight.release_bytes(bytes);
        if let Some(client) = self.client {
            self.unverified.clients.release(client, Amount { requests: 0, bytes });
        }
    }

    #[cfg(test)]
    pub(super) fn is_of(&self, client: Option<IpAddr>) -> bool {
        self.client == client.map(ClientNetwork::from_ip)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for UnverifiedShare {
    fn drop(&mut self) {
        self.unverified.in_flight.release_bytes(self.bytes);
        self.unverified.in_flight.end_request();
        if let Some(client) = self.client {
            self.unverified.clients.release(client, Amount { requests: 1, bytes: self.bytes });
        }
    }
}

/// What each client has in flight. A client without a delivery in flight is not in the map.
#[derive(Debug)]
struct Clients {
    parts: Box<[Mutex<HashMap<ClientNetwork, Amount>>]>,
    /// Randomly seeded, so that nobody can choose addresses of one part.
    hasher: DefaultHashBuilder,
}

impl Default for Clients {
    fn default() -> Self {
        let parts = (0..LOCKS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: DefaultHashBuilder::default() }
    }
}

impl Clients {
    fn part(&self, client: ClientNetwork) -> MutexGuard<'_, HashMap<ClientNetwork, Amount>> {
        let hash = self.hasher.hash_one(client);
        let part = usize::try_from(hash & LOCK_MASK).ok().and_then(|at| self.parts.get(at));
        part.expect("there is a part for every hash").lock()
    }

    fn try_add_request(&self, client: ClientNetwork, max: usize) -> bool {
        let mut part = self.part(client);
        let amount = part.entry(client).or_default();
        let has_room = amount.requests < max;
        amount.requests += usize::from(has_room);
        has_room
    }

    /// Reserves bytes if the client has at most `max` with them, or none but `own`, which are those
    /// of the same delivery.
    fn try_add_bytes(&self, client: ClientNetwork, bytes: usize, own: usize, max: usize) -> bool {
        let mut part = self.part(client);
        let amount = part.entry(client).or_default();
        let reserved = amount.bytes.saturating_add(bytes);
        let has_room = reserved <= max || amount.bytes == own;
        if has_room {
            amount.bytes = reserved;
        }
        has_room
    }

    fn release(&self, client: ClientNetwork, less: Amount) {
        let mut part = self.part(client);
        if let Entry::Occupied(mut entry) = part.entry(client) {
            let amount = entry.get_mut();
            amount.requests -= less.requests;
            amount.bytes -= less.bytes;
            if amount.requests == 0 {
                entry.remove();
            }
        }
    }

    #[cfg(test)]
    fn in_flight(&self, client: ClientNetwork) -> Amount {
        self.part(client).get(&client).copied().unwrap_or_default()
    }
}
