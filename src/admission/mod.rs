//! How much may be in flight in the whole process: requests, and the bytes they hold.
//!
//! Plain atomics, and short locks where an organization has a limit: nothing here waits for a request. A refusal is a
//! value, and what was taken is given back when the [`Permit`] is dropped, wherever the request has got to by then.

mod organization;
mod share;

use crate::ids::OrganizationId;
use crate::metrics::Metrics;
use crate::settings::Section;
pub use organization::OverLimit;
use organization::{OrganizationSettings, Organizations};
use share::{Amount, Share};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The section `[limits]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionSettings {
    /// Requests in flight, 1 to 1,000,000.
    pub in_flight_requests: usize,
    /// Bytes held for them, 64 KiB to 64 GiB: bodies, and the jobs made of them.
    pub in_flight_bytes: usize,
    /// Of one organization.
    organization: OrganizationSettings,
}

impl AdmissionSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            in_flight_requests: section.count("in_flight_requests", 10_000, 1..=1_000_000),
            in_flight_bytes: section.size("in_flight_bytes", "256MiB", (64 << 10)..=(64 << 30)),
            organization: OrganizationSettings::read(&mut section.section("organization")),
        }
    }

    fn in_flight(&self) -> Amount {
        Amount { requests: self.in_flight_requests, bytes: self.in_flight_bytes }
    }
}

/// A bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("too much is in flight")]
    Overloaded,
    #[error("the organization is over its limit")]
    OverLimit(OverLimit),
}

/// The bounds and what is taken of them.
#[derive(Debug)]
pub struct Admission {
    most_requests: AtomicUsize,
    most_bytes: AtomicUsize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    organizations: Arc<Organizations>,
}

impl Admission {
    pub fn new(settings: &AdmissionSettings, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            most_requests: AtomicUsize::new(settings.in_flight_requests),
            most_bytes: AtomicUsize::new(settings.in_flight_bytes),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            organizations: Arc::new(Organizations::new(
                settings.organization,
                settings.in_flight(),
                Arc::clone(metrics),
            )),
        })
    }

    /// These bounds from now on. What is in flight beyond them comes to its end.
    pub fn reload(&self, settings: &AdmissionSettings) {
        self.most_requests.store(settings.in_flight_requests, Ordering::Relaxed);
        self.most_bytes.store(settings.in_flight_bytes, Ordering::Relaxed);
        self.organizations.reload(settings.organization, settings.in_flight());
    }

    /// Lets one more request in, unless that would be one too many.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, NoRoom> {
        take(&self.requests, 1, &self.most_requests)?;
        Ok(Permit { admission: Arc::clone(self), bytes: 0, share: None })
    }

    /// Forgets organizations that have not called for a while. Never ends.
    pub fn prune(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.organizations).prune()
    }
}

/// One request's share. Given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
    /// Of what its organization may have in flight.
    share: Option<Share>,
}

impl Permit {
    /// Takes this request out of what its organization may take.
    pub fn take_share(&mut self, organization: &OrganizationId) -> Result<(), NoRoom> {
        self.share = self.admission.organizations.take(organization)?;
        Ok(())
    }

    /// Takes `bytes` more for this request.
    pub fn hold(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let admission = &self.admission;
        // Of its organization first: what is refused there takes nothing of the others. What it has got comes back with
        // the permit, since its request is over.
        if let Some(share) = &mut self.share {
            admission.organizations.hold(share, bytes)?;
        }
        take(&admission.bytes, bytes, &admission.most_bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes `bytes` in place of all that this request holds: a body has become jobs.
    pub fn hold_instead(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            return self.hold(more);
        }
        let less = self.bytes - bytes;
        self.admission.bytes.fetch_sub(less, Ordering::Relaxed);
        self.bytes = bytes;
        if let Some(share) = &mut self.share {
            share.give_back(less);
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds first and takes back if that was too much: one atomic operation where all is well. Two
/// requests that meet at the bound may both be refused; the bound itself is never passed.
fn take(taken: &AtomicUsize, amount: usize, bound: &AtomicUsize) -> Result<(), NoRoom> {
    let bound = bound.load(Ordering::Relaxed);
    if taken.fetch_add(amount, Ordering::Relaxed).saturating_add(amount) <= bound {
        return Ok(());
    }
    taken.fetch_sub(amount, Ordering::Relaxed);
    Err(NoRoom::Overloaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn bounds(in_flight_requests: usize, in_flight_bytes: usize) -> AdmissionSettings {
        let mut settings = AdmissionSettings::read(&mut Settings::default().section("limits"));
        settings.in_flight_requests = in_flight_requests;
        settings.in_flight_bytes = in_flight_bytes;
        settings
    }

    #[test]
    fn what_a_permit_holds_comes_back_when_it_is_dropped() {
        let admission = Admission::new(&bounds(2, 100), &Metrics::new("v", "c").unwrap());
        let mut first = admission.admit().unwrap();
        let mut second = admission.admit().unwrap();
        assert!(admission.admit().is_err());
        first.hold(60).unwrap();
        assert_eq!(second.hold(41), Err(NoRoom::Overloaded));
        second.hold(40).unwrap();
        first.hold_instead(30).unwrap();
        second.hold_instead(70).unwrap();
        assert_eq!(second.hold_instead(71), Err(NoRoom::Overloaded));
        drop(first);
        assert_eq!(admission.requests.load(Ordering::Relaxed), 1);
        second.hold(30).unwrap();
        second.admission.reload(&bounds(1, 100));
        assert!(second.admission.admit().is_err());
        drop(second);
        assert_eq!(admission.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(admission.requests.load(Ordering::Relaxed), 0);
    }
}
