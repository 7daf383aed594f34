//! The limits on what is in flight in the whole process: requests, and the bytes reserved for them;
//! and the shares in them of each organization, of each of several queues, and of all deliveries
//! that are not verified yet.
//!
//! Admission never waits. It uses atomics and one short lock to find the account of an
//! organization, and returns an error if a limit is reached. A [`Permit`] releases what it holds
//! when it is dropped, even if its request panics or is cancelled.

mod accounts;
mod at_limit;
mod error;
mod organization;
mod queues;
mod unverified;

pub use crate::admission::at_limit::OrganizationAtLimit;
pub use crate::admission::error::{AdmissionError, OverLimit};

use crate::admission::accounts::Amount;
use crate::admission::organization::{OrganizationSettings, OrganizationShare, Organizations};
use crate::admission::queues::QueueShares;
use crate::admission::unverified::{Unverified, UnverifiedShare};
use crate::ids::OrganizationId;
use crate::metrics::Metrics;
use crate::settings::Section;
use atomics::in_flight::InFlight;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The default of [`AdmissionSettings::unverified_share`].
const UNVERIFIED_SHARE: f64 = 0.25;

/// The section `[limits]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionSettings {
    /// Maximum requests in flight, 1 to 1,000,000.
    pub in_flight_requests: usize,
    /// Maximum bytes reserved for them, 64 KiB to 64 GiB: heads, bodies, jobs and large answers.
    pub in_flight_bytes: usize,
    /// The limits of each organization.
    organization: OrganizationSettings,
    /// The share of both for deliveries that are not verified yet (`endpoints.unverified_share`),
    /// above 0 and at most 1. A reload does not change it.
    pub unverified_share: f64,
}

impl AdmissionSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            in_flight_requests: section.count("in_flight_requests", 10_000, 1..=1_000_000),
            in_flight_bytes: section.size("in_flight_bytes", "256MiB", (64 << 10)..=(64 << 30)),
            organization: OrganizationSettings::read(&mut section.section("organization")),
            unverified_share: UNVERIFIED_SHARE,
        }
    }

    /// The bytes that the requests of one of this number of queues may hold.
    pub fn bytes_of_queue(&self, queues: usize) -> usize {
        queues::part_of_queue(queues, self.in_flight()).bytes
    }

    fn in_flight(&self) -> Amount {
        Amount { requests: self.in_flight_requests, bytes: self.in_flight_bytes }
    }
}

/// The in-flight limits and their current use.
#[derive(Debug)]
pub struct Admission {
    max_requests: AtomicUsize,
    max_bytes: AtomicUsize,
    in_flight: InFlight,
    organizations: Arc<Organizations>,
    queues: QueueShares,
    unverified: Arc<Unverified>,
}

impl Admission {
    /// The limits of a process with one queue.
    pub fn new(settings: &AdmissionSettings, metrics: &Arc<Metrics>) -> Arc<Self> {
        Self::with_queues(1, settings, metrics)
    }

    /// The limits of a process with this number of queues.
    pub fn with_queues(
        queues: usize,
        settings: &AdmissionSettings,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let queues = QueueShares::new(queues, settings.in_flight());
        Arc::new(Self {
            max_requests: AtomicUsize::new(settings.in_flight_requests),
            max_bytes: AtomicUsize::new(settings.in_flight_bytes),
            in_flight: InFlight::default(),
            // All requests of an organization are for one queue.
            organizations: Arc::new(Organizations::new(
                settings.organization,
                queues.part_of_queue(settings.in_flight()),
                Arc::clone(metrics),
            )),
            queues,
            unverified: Arc::new(Unverified::new(
                settings.unverified_share,
                settings.in_flight(),
                Arc::clone(metrics),
            )),
        })
    }

    /// Applies new limits. Requests in flight beyond them are still completed.
    pub fn reload(&self, settings: &AdmissionSettings) {
        self.max_requests.store(settings.in_flight_requests, Ordering::Relaxed);
        self.max_bytes.store(settings.in_flight_bytes, Ordering::Relaxed);
        let part_of_queue = self.queues.part_of_queue(settings.in_flight());
        self.organizations.reload(settings.organization, part_of_queue);
        self.queues.reload(settings.in_flight());
        self.unverified.reload(settings.in_flight());
    }

    /// Admits a request, or returns [`AdmissionError::Overloaded`] if the limit is reached.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, AdmissionError> {
        let bound = self.max_requests.load(Ordering::Relaxed);
        if self.in_flight.try_add_request(bound) {
            return Ok(Permit {
                admission: Arc::clone(self),
                bytes: 0,
                head: 0,
                share: Share::None,
                queue: None,
            });
        }
        Err(AdmissionError::Overloaded)
    }

    /// At most `max` organizations that were at a limit within the last minute.
    pub fn organizations_at_limit(&self, max: usize) -> Vec<OrganizationAtLimit> {
        self.organizations.at_limit(max)
    }

    /// Maintains the accounts of organizations. Never ends.
    pub fn maintain(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.organizations).maintain()
    }
}

/// The share of the in-flight limits that a request holds. It is released when the permit is
/// dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    /// The reserved bytes, including the head.
    bytes: usize,
    /// The bytes of the head, which stay reserved until the request ends.
    head: usize,
    share: Share,
    /// The queue in whose share it counts with all of its bytes, if there are several.
    queue: Option<usize>,
}

/// Where a request counts besides the process.
#[derive(Debug)]
enum Share {
    /// Nowhere: its sender is not known.
    None,
    /// In the share of deliveries that are not verified yet.
    Unverified(UnverifiedShare),
    /// In the account of its organization.
    Organization(OrganizationShare),
}

impl Share {
    fn organization(&self) -> Option<&OrganizationShare> {
        match self {
            Self::Organization(share) => Some(share),
            Self::None | Self::Unverified(_) => None,
        }
    }
}

impl Permit {
    /// Counts this request as a delivery that is not verified yet, and reserves `head` bytes for
    /// its head. All bytes that are reserved from now on count as unverified too, until
    /// [`Self::leave_unverified`].
    pub fn reserve_unverified(
        &mut self,
        client: Option<IpAddr>,
        head: usize,
    ) -> Result<(), AdmissionError> {
        let mut share = self.admission.unverified.reserve_request(client)?;
        share.reserve(self.bytes)?;
        self.share = Share::Unverified(share);
        self.reserve_head(head)
    }

    /// Ends the count of a delivery as unverified. What it has reserved stays reserved.
    pub fn leave_unverified(&mut self) {
        self.share = Share::None;
    }

    /// Counts this request for its organization, and reserves `head` bytes for its head. What is
    /// reserved already, and the head of a delivery that has been verified, moves into the account
    /// of the organization.
    pub fn reserve_for_organization(
        &mut self,
        organization: &OrganizationId,
        head: usize,
    ) -> Result<(), AdmissionError> {
        let organizations = &self.admission.organizations;
        let mut share = organizations.reserve_request(organization)?;
        if self.bytes > 0 {
            organizations.reserve_bytes(&mut share, self.bytes)?;
        }
        self.share = Share::Organization(share);
        self.reserve_head(head)
    }

    /// The queue of the organization that this request counts for, as `find` finds it. The account
    /// of the organization remembers it.
    #[inline]
    pub fn queue_of_organization(&self, find: impl FnOnce() -> usize) -> usize {
        match self.share.organization() {
            Some(share) => share.queue(find),
            None => find(),
        }
    }

    /// Counts this request, with all that it holds and will hold, for one of several queues. A
    /// request counts for one queue at most.
    pub fn reserve_for_queue(&mut self, queue: usize) -> Result<(), AdmissionError> {
        self.admission.queues.reserve_request(queue, self.bytes)?;
        self.queue = Some(queue);
        Ok(())
    }

    /// Reserves the bytes of a head that are not reserved yet.
    fn reserve_head(&mut self, head: usize) -> Result<(), AdmissionError> {
        let more = head.saturating_sub(self.head);
        self.reserve(more)?;
        self.head += more;
        Ok(())
    }

    /// Reserves `bytes` more for this request. A request that holds all reserved bytes is never
    /// rejected: sending it later would not help.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), AdmissionError> {
        let admission = &self.admission;
        // The share is checked first, so that a rejection there reserves nothing of the process. Its
        // own count keeps the bytes until the permit is dropped, because a rejected request ends.
        match &mut self.share {
            Share::Organization(share) => admission.organizations.reserve_bytes(share, bytes)?,
            Share::Unverified(share) => share.reserve(bytes)?,
            Share::None => {}
        }
        if let Some(queue) = self.queue {
            admission.queues.reserve_bytes(queue, bytes, self.bytes)?;
        }
        let bound = admission.max_bytes.load(Ordering::Relaxed);
        if !admission.in_flight.try_add_bytes(bytes, self.bytes, bound) {
            if let Some(queue) = self.queue {
                admission.queues.release_bytes(queue, bytes);
            }
            return Err(AdmissionError::Overloaded);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Checks that `bytes` more could be reserved now, and reserves nothing.
    pub fn check(&mut self, bytes: usize) -> Result<(), AdmissionError> {
        let admission = &self.admission;
        match &mut self.share {
            Share::Organization(share) => admission.organizations.check(share, bytes)?,
            Share::Unverified(share) => share.check(bytes)?,
            Share::None => {}
        }
        if let Some(queue) = self.queue {
            admission.queues.check(queue, bytes, self.bytes)?;
        }
        let max = admission.max_bytes.load(Ordering::Relaxed);
        let fits = admission.in_flight.has_room_for(bytes, self.bytes, max);
        if fits { Ok(()) } else { Err(AdmissionError::Overloaded) }
    }

    /// Ensures that at least `bytes` are reserved besides the head.
    pub fn reserve_at_least(&mut self, bytes: usize) -> Result<(), AdmissionError> {
        let more = bytes.saturating_sub(self.bytes - self.head);
        if more > 0 { self.reserve(more) } else { Ok(()) }
    }

    /// Replaces all bytes that this request holds besides its head by `bytes`, for example when a
    /// body has become jobs.
    pub fn resize(&mut self, bytes: usize) -> Result<(), AdmissionError> {
        let held = self.bytes - self.head;
        if let Some(more) = bytes.checked_sub(held) {
            return self.reserve(more);
        }
        let less = held - bytes;
        self.admission.in_flight.release_bytes(less);
        self.bytes -= less;
        if let Some(queue) = self.queue {
            self.admission.queues.release_bytes(queue, less);
        }
        match &mut self.share {
            Share::Organization(share) => share.release(less),
            Share::Unverified(share) => share.release(less),
            Share::None => {}
        }
        Ok(())
    }

    /// The limit on reserved bytes. A request never fits if it needs more.
    pub fn most_bytes(&self) -> usize {
        self.admission.max_bytes.load(Ordering::Relaxed)
    }

    /// Counts `jobs` against the job rate of the organization.
    pub fn start_jobs(&mut self, jobs: usize) -> Result<(), AdmissionError> {
        match &mut self.share {
            Share::Organization(share) => self.admission.organizations.start_jobs(share, jobs),
            Share::None | Share::Unverified(_) => Ok(()),
        }
    }

    /// Whether the organization has started more than twice as many jobs in the last minute as the
    /// other organizations on average.
    pub fn organization_is_heavy(&self) -> bool {
        self.share.organization().is_some_and(OrganizationShare::is_heavy)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = self.queue {
            self.admission.queues.end_request(queue, self.bytes);
        }
        self.admission.in_flight.release_bytes(self.bytes);
        self.admission.in_flight.end_request();
    }
}

#[cfg(test)]
mod deliveries;
#[cfg(test)]
mod permits;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;

    fn limits(in_flight_requests: usize, in_flight_bytes: usize) -> AdmissionSettings {
        let mut settings =
            AdmissionSettings::read(&mut SettingsReader::default().section("limits"));
        settings.in_flight_requests = in_flight_requests;
        settings.in_flight_bytes = in_flight_bytes;
        settings
    }

    #[test]
    fn a_dropped_permit_releases_what_it_holds() {
        let admission = Admission::new(&limits(2, 100), &Metrics::new("v", "c").unwrap());
        let mut first = admission.admit().unwrap();
        let mut second = admission.admit().unwrap();
        assert!(admission.admit().is_err());
        first.reserve(60).unwrap();
        assert_eq!(second.reserve(41), Err(AdmissionError::Overloaded));
        second.reserve(40).unwrap();
        first.resize(30).unwrap();
        second.resize(70).unwrap();
        assert_eq!(second.resize(71), Err(AdmissionError::Overloaded));
        assert_eq!((second.check(0), second.check(1)), (Ok(()), Err(AdmissionError::Overloaded)));
        drop(first);
        assert_eq!(admission.in_flight.requests(), 1);
        second.reserve(30).unwrap();
        second.reserve(1).expect("it holds all reserved bytes");
        second.admission.reload(&limits(1, 100));
        assert!(second.admission.admit().is_err());
        drop(second);
        assert_eq!(admission.in_flight.bytes(), 0);
        assert_eq!(admission.in_flight.requests(), 0);
    }

    #[test]
    fn an_organization_cannot_fill_its_queue() {
        let limits = limits(16, 1 << 20);
        let admission = Admission::with_queues(2, &limits, &Metrics::new("v", "c").unwrap());
        let admit = |organization: &str| {
            let mut permit = admission.admit().unwrap();
            permit.reserve_for_organization(&OrganizationId::new(organization).unwrap(), 0)?;
            permit.reserve_for_queue(0).map(|()| permit)
        };
        // Of 16 requests, half are the part of the queue, and half of those that of the organization.
        let held: Vec<Permit> = (0..4).map(|_| admit("a").unwrap()).collect();
        assert!(matches!(admit("a"), Err(AdmissionError::OverLimit(_))));
        let others: Vec<Permit> = (0..4).map(|_| admit("b").unwrap()).collect();
        assert_eq!(admit("c").err(), Some(AdmissionError::Overloaded));
        drop((held, others));
    }

    #[test]
    fn a_head_stays_reserved_until_its_request_ends() {
        let admission = Admission::new(&limits(2, 1000), &Metrics::new("v", "c").unwrap());
        let mut permit = admission.admit().unwrap();
        permit.reserve_for_organization(&OrganizationId::new("o").unwrap(), 100).unwrap();
        let reserved = || admission.in_flight.bytes();
        for (bytes, expected) in [(50, 150), (20, 150), (70, 170)] {
            permit.reserve_at_least(bytes).unwrap();
            assert_eq!(reserved(), expected);
        }
        for bytes in [10, 200, 0] {
            permit.resize(bytes).unwrap();
            assert_eq!(reserved(), 100 + bytes);
        }
        drop(permit);
        assert_eq!(reserved(), 0);
    }
}
