//! How much may be in flight in the whole process: requests, and the bytes they hold.
//!
//! Plain atomics, and one short lock to find the account of an organization: nothing here waits for a request. A refusal
//! is a value, and what was taken is given back when the [`Permit`] is dropped, wherever the request has got to by then.

mod account;
mod bucket;
mod organization;

use crate::ids::OrganizationId;
use crate::metrics::Metrics;
use crate::settings::Section;
use account::Amount;
pub use organization::OverLimit;
use organization::{OrganizationSettings, Organizations, Share};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The section `[limits]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionSettings {
    /// Requests in flight, 1 to 1,000,000.
    pub in_flight_requests: usize,
    /// Bytes held for them, 64 KiB to 64 GiB: heads, bodies, the jobs made of them, and answers that are large.
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
        let bound = self.most_requests.load(Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::Relaxed) < bound {
            return Ok(Permit { admission: Arc::clone(self), bytes: 0, head: 0, share: None });
        }
        self.requests.fetch_sub(1, Ordering::Relaxed);
        Err(NoRoom::Overloaded)
    }

    /// Keeps the accounts of organizations. Never ends.
    pub fn look_after(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.organizations).look_after()
    }
}

/// One request's share. Given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
    /// Of these, those of the head of the request, which are held to its end.
    head: usize,
    /// Of what its organization may have in flight.
    share: Option<Share>,
}

impl Permit {
    /// Takes this request, with a head of so many bytes, out of what its organization may take.
    pub fn take_share(&mut self, organization: &OrganizationId, head: usize) -> Result<(), NoRoom> {
        self.share = Some(self.admission.organizations.take(organization)?);
        self.hold(head)?;
        self.head = head;
        Ok(())
    }

    /// Takes `bytes` more for this request. One that has all that is held is never refused: it could not be sent later
    /// either.
    pub fn hold(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let admission = &self.admission;
        // Of its organization first: what is refused there takes nothing of the others. What it has got comes back with
        // the permit, since its request is over.
        if let Some(share) = &mut self.share {
            admission.organizations.hold(share, bytes)?;
        }
        let bound = admission.most_bytes.load(Ordering::Relaxed);
        // Added first and taken back if that was too much. Two requests that meet at the bound may both be refused.
        let taken = admission.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if taken <= bound || taken == self.bytes + bytes {
            self.bytes += bytes;
            return Ok(());
        }
        admission.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Err(NoRoom::Overloaded)
    }

    /// Refuses `bytes` more that could not be held now, and holds nothing.
    pub fn check(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let admission = &self.admission;
        if let Some(share) = &mut self.share {
            admission.organizations.check(share, bytes)?;
        }
        let held = admission.bytes.load(Ordering::Relaxed);
        let is_room = held.saturating_add(bytes) <= admission.most_bytes.load(Ordering::Relaxed);
        if is_room || held == self.bytes { Ok(()) } else { Err(NoRoom::Overloaded) }
    }

    /// Sees to it that `bytes` are held beside the head, if there are not more already.
    pub fn hold_at_least(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = bytes.saturating_sub(self.bytes - self.head);
        if more > 0 { self.hold(more) } else { Ok(()) }
    }

    /// Takes `bytes` in place of all that this request holds beside its head: a body has become jobs.
    pub fn hold_instead(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let held = self.bytes - self.head;
        if let Some(more) = bytes.checked_sub(held) {
            return self.hold(more);
        }
        let less = held - bytes;
        self.admission.bytes.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
        if let Some(share) = &mut self.share {
            share.give_back(less);
        }
        Ok(())
    }

    /// Bytes that can never be held, whatever else is in flight.
    pub fn most_bytes(&self) -> usize {
        self.admission.most_bytes.load(Ordering::Relaxed)
    }

    /// Takes so many jobs out of what the organization may start.
    pub fn start_jobs(&mut self, jobs: usize) -> Result<(), NoRoom> {
        let organizations = &self.admission.organizations;
        self.share.as_mut().map_or(Ok(()), |share| organizations.start_jobs(share, jobs))
    }

    /// Whether the organization has started over twice as many jobs within a minute as the others on average.
    pub fn is_of_heavy_organization(&self) -> bool {
        self.share.as_ref().is_some_and(Share::is_heavy)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.requests.fetch_sub(1, Ordering::Relaxed);
    }
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
        assert_eq!((second.check(0), second.check(1)), (Ok(()), Err(NoRoom::Overloaded)));
        drop(first);
        assert_eq!(admission.requests.load(Ordering::Relaxed), 1);
        second.hold(30).unwrap();
        second.hold(1).expect("it has all that is held");
        second.admission.reload(&bounds(1, 100));
        assert!(second.admission.admit().is_err());
        drop(second);
        assert_eq!(admission.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(admission.requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_head_is_held_to_the_end_of_its_request() {
        let admission = Admission::new(&bounds(2, 1000), &Metrics::new("v", "c").unwrap());
        let mut permit = admission.admit().unwrap();
        permit.take_share(&OrganizationId::new("o").unwrap(), 100).unwrap();
        let held = || admission.bytes.load(Ordering::Relaxed);
        for (bytes, expected) in [(50, 150), (20, 150), (70, 170)] {
            permit.hold_at_least(bytes).unwrap();
            assert_eq!(held(), expected);
        }
        for bytes in [10, 200, 0] {
            permit.hold_instead(bytes).unwrap();
            assert_eq!(held(), 100 + bytes);
        }
        drop(permit);
        assert_eq!(held(), 0);
    }
}
