//! Random histories of permits: nothing is ever lost, negative or left over, whatever ends when.

use super::*;
use crate::settings::SettingsReader;
use proptest::collection::vec;
use proptest::prelude::*;

const ORGANIZATIONS: usize = 3;
const PERMITS: usize = 5;
const CLIENTS: u8 = 2;
const QUEUES: usize = 2;

/// A step of a history. The first number is that of a permit.
#[derive(Debug, Clone)]
enum Step {
    Admit(usize),
    /// With a client, if it is known, and the bytes of a head.
    Unverified(usize, Option<u8>, usize),
    /// With an organization and the bytes of a head.
    Organization(usize, usize, usize),
    Reserve(usize, usize),
    ReserveAtLeast(usize, usize),
    Resize(usize, usize),
    Check(usize, usize),
    Jobs(usize, usize),
    End(usize),
    /// With a queue.
    Queue(usize, usize),
    /// With new limits: requests, bytes, and whether organizations are only watched.
    Reload(usize, usize, bool),
    /// At a second of the minute, with the most accounts that are kept.
    RemoveIdle(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (permit, bytes) = (0..PERMITS, 0..150_usize);
    prop_oneof![
        4 => permit.clone().prop_map(Step::Admit),
        3 => (permit.clone(), proptest::option::of(0..CLIENTS), 0..40_usize)
            .prop_map(|(permit, client, head)| Step::Unverified(permit, client, head)),
        3 => (permit.clone(), 0..ORGANIZATIONS, 0..40_usize)
            .prop_map(|(permit, organization, head)| Step::Organization(permit, organization, head)),
        4 => (permit.clone(), bytes.clone()).prop_map(|(permit, bytes)| Step::Reserve(permit, bytes)),
        2 => (permit.clone(), bytes.clone())
            .prop_map(|(permit, bytes)| Step::ReserveAtLeast(permit, bytes)),
        4 => (permit.clone(), bytes.clone()).prop_map(|(permit, bytes)| Step::Resize(permit, bytes)),
        1 => (permit.clone(), bytes).prop_map(|(permit, bytes)| Step::Check(permit, bytes)),
        1 => (permit.clone(), 0..5_usize).prop_map(|(permit, jobs)| Step::Jobs(permit, jobs)),
        2 => (permit.clone(), 0..QUEUES).prop_map(|(permit, queue)| Step::Queue(permit, queue)),
        3 => permit.prop_map(Step::End),
        1 => (1..6_usize, 1..300_usize, any::<bool>())
            .prop_map(|(requests, bytes, dry_run)| Step::Reload(requests, bytes, dry_run)),
        1 => (0..120_usize, 0..3_usize).prop_map(|(tick, max)| Step::RemoveIdle(tick, max)),
    ]
}

pub(super) fn limits(requests: usize, bytes: usize, dry_run: bool) -> AdmissionSettings {
    let toml = format!(
        "[limits.organization]\nin_flight_share = 0.5\njobs_per_second = 1\ndry_run = {dry_run}"
    );
    let mut settings = SettingsReader::new(toml.parse().unwrap(), std::iter::empty());
    let mut limits = AdmissionSettings::read(&mut settings.section("limits"));
    (limits.in_flight_requests, limits.in_flight_bytes) = (requests, bytes);
    limits
}

fn address(client: u8) -> IpAddr {
    [192, 0, 2, client].into()
}

fn id(number: usize) -> OrganizationId {
    OrganizationId::new(&format!("org_{number}")).unwrap()
}

/// The permits of requests in progress, each with the number of its organization.
struct Requests {
    admission: Arc<Admission>,
    permits: [Option<(Permit, Option<usize>)>; PERMITS],
}

impl Requests {
    fn apply(&mut self, step: &Step) {
        let admission = Arc::clone(&self.admission);
        let (Step::Admit(at)
        | Step::Unverified(at, ..)
        | Step::Organization(at, ..)
        | Step::Reserve(at, _)
        | Step::ReserveAtLeast(at, _)
        | Step::Resize(at, _)
        | Step::Check(at, _)
        | Step::Jobs(at, _)
        | Step::Queue(at, _)
        | Step::End(at)) = *step
        else {
            return self.apply_to_all(step);
        };
        let slot = &mut self.permits[at];
        if matches!(step, Step::Admit(_)) && slot.is_none() {
            let live = admission.in_flight.requests();
            let permit = admission.admit();
            assert_eq!(permit.is_ok(), live < admission.max_requests.load(Ordering::Relaxed));
            *slot = permit.ok().map(|permit| (permit, None));
            return;
        }
        let Some((permit, organization)) = slot else { return };
        match *step {
            Step::Unverified(_, client, head) if matches!(permit.share, Share::None) => {
                let _ = permit.reserve_unverified(client.map(address), head);
            }
            Step::Organization(_, number, head) if organization.is_none() => {
                let is_admitted = permit.reserve_for_organization(&id(number), head).is_ok();
                *organization = permit.share.organization().is_some().then_some(number);
                assert!(organization.is_some() || !is_admitted);
            }
            Step::Reserve(_, bytes) => drop(permit.reserve(bytes)),
            Step::ReserveAtLeast(_, bytes) => drop(permit.reserve_at_least(bytes)),
            Step::Resize(_, bytes) => {
                let is_resized = permit.resize(bytes).is_ok();
                assert!(!is_resized || permit.bytes == permit.head + bytes);
            }
            Step::Check(_, bytes) => drop(permit.check(bytes)),
            Step::Jobs(_, jobs) => drop(permit.start_jobs(jobs)),
            Step::Queue(_, queue) if permit.queue.is_none() => {
                let live = admission.queues.in_flight(queue).requests;
                let is_admitted = permit.reserve_for_queue(queue).is_ok();
                assert_eq!(permit.queue.is_some(), is_admitted);
                assert!(
                    !is_admitted
                        || live == 0
                        || live * 2 < admission.max_requests.load(Ordering::Relaxed)
                );
            }
            Step::End(_) => *slot = None,
            _ => {}
        }
    }

    fn apply_to_all(&self, step: &Step) {
        match *step {
            Step::Reload(requests, bytes, dry_run) => {
                self.admission.reload(&limits(requests, bytes, dry_run));
            }
            Step::RemoveIdle(tick, max) => {
                self.admission.organizations.remove_idle(tick, max);
            }
            _ => {}
        }
    }

    fn check_unverified(&self) {
        let shares = || {
            let permits = self.permits.iter().flatten();
            permits.filter_map(|(permit, _)| match &permit.share {
                Share::Unverified(share) => Some(share),
                Share::None | Share::Organization(_) => None,
            })
        };
        let unverified = &self.admission.unverified;
        for client in (0..CLIENTS).map(|client| Some(address(client))).chain([None]) {
            let own = || shares().filter(|share| client.is_none() || share.is_of(client));
            let expected =
                Amount { requests: own().count(), bytes: own().map(UnverifiedShare::bytes).sum() };
            assert_eq!(unverified.in_flight(client), expected);
        }
        let clients = (0..CLIENTS).map(|client| Some(address(client)));
        let in_flight = clients.filter(|client| shares().any(|share| share.is_of(*client)));
        assert_eq!(unverified.clients(), in_flight.count());
    }

    /// The sums of all permits are what the counters say.
    fn check(&self) {
        let permits = || self.permits.iter().flatten();
        let in_flight = &self.admission.in_flight;
        assert_eq!(in_flight.requests(), permits().count());
        assert_eq!(in_flight.bytes(), permits().map(|(permit, _)| permit.bytes).sum::<usize>());
        self.check_unverified();
        for queue in 0..QUEUES {
            let own = || permits().filter(|(permit, _)| permit.queue == Some(queue));
            let bytes = own().map(|(permit, _)| permit.bytes).sum();
            let expected = Amount { requests: own().count(), bytes };
            assert_eq!(self.admission.queues.in_flight(queue), expected);
        }
        for number in 0..ORGANIZATIONS {
            let own = || permits().filter(|(_, organization)| *organization == Some(number));
            let shares = own().filter_map(|(permit, _)| permit.share.organization());
            let expected = Amount {
                requests: own().count(),
                bytes: shares.map(OrganizationShare::bytes).sum(),
            };
            assert_eq!(self.admission.organizations.in_flight(&id(number)), expected);
        }
    }
}

proptest! {
    #[test]
    fn the_counters_are_the_sums_of_all_permits(steps in vec(step(), 1..60)) {
        let settings = AdmissionSettings { unverified_share: 1.0, ..limits(4, 200, false) };
        let admission = Admission::with_queues(QUEUES, &settings, &Metrics::new("", "").unwrap());
        let mut requests = Requests { admission, permits: Default::default() };
        for step in &steps {
            requests.apply(step);
            requests.check();
        }
        requests.permits = Default::default();
        requests.check();
        // Two minutes later nothing is remembered of any organization.
        for tick in [60, 120] {
            requests.admission.organizations.remove_idle(tick, usize::MAX);
        }
        prop_assert_eq!(requests.admission.organizations.remove_idle(121, usize::MAX), 0);
    }
}
