//! What each organization has in flight.

use crate::ids::OrganizationId;
use dashmap::{DashMap, Entry};
use std::sync::Arc;

/// Requests in flight, and the bytes they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

/// Of every organization that has anything in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight(DashMap<OrganizationId, Amount>);

impl InFlight {
    /// One more request. Comes back with what its organization has then.
    pub(super) fn begin(self: &Arc<Self>, organization: &OrganizationId) -> (Share, Amount) {
        let mut amount = self.0.entry(organization.clone()).or_default();
        amount.requests += 1;
        let organization = organization.clone();
        let share = Share { in_flight: Arc::clone(self), organization, bytes: 0, is_told: false };
        (share, *amount)
    }

    #[cfg(test)]
    pub(super) fn organizations(&self) -> usize {
        self.0.len()
    }
}

/// One request of those that an organization has in flight. Given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    in_flight: Arc<InFlight>,
    organization: OrganizationId,
    bytes: usize,
    /// Whether it was counted as over a limit.
    is_told: bool,
}

impl Share {
    pub(super) fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// Bytes of this request alone.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this was set before.
    pub(super) fn set_told(&mut self) -> bool {
        std::mem::replace(&mut self.is_told, true)
    }

    /// So many bytes more. Comes back with what the organization has then.
    pub(super) fn add(&mut self, bytes: usize) -> Amount {
        self.bytes += bytes;
        self.in_flight.0.get_mut(&self.organization).map_or_else(Amount::default, |mut amount| {
            amount.bytes += bytes;
            *amount
        })
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(mut amount) = self.in_flight.0.get_mut(&self.organization) {
            amount.bytes -= bytes;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut amount) = self.in_flight.0.entry(self.organization.clone()) {
            amount.get_mut().requests -= 1;
            amount.get_mut().bytes -= self.bytes;
            if amount.get().requests == 0 {
                amount.remove();
            }
        }
    }
}
