//! Permits of deliveries, before and after they are verified.

use super::*;
use crate::admission::permits::limits;
use crate::metrics::DeliveryLimit;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// 16 requests and 1600 bytes; half of them for deliveries that are not verified; a quarter of that
/// for one client, which is 2 requests and 200 bytes.
fn admission() -> (Arc<Admission>, Arc<Metrics>) {
    let metrics = Metrics::new("", "").unwrap();
    let mut settings = limits(16, 1600, false);
    settings.unverified_share = 0.5;
    (Admission::new(&settings, &metrics), metrics)
}

fn client(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

fn ipv6(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn organization() -> OrganizationId {
    OrganizationId::new("org").unwrap()
}

fn delivery(
    admission: &Arc<Admission>,
    client: impl Into<Option<IpAddr>>,
    head: usize,
) -> Result<Permit, AdmissionError> {
    let mut permit = admission.admit().unwrap();
    permit.reserve_unverified(client.into(), head)?;
    Ok(permit)
}

fn assert_counted(metrics: &Metrics, limit: DeliveryLimit, times: u64) {
    let name = "hookgate_deliveries_over_limit_total";
    let line = format!("{name}{{limit=\"{}\"}} {times}\n", limit.as_str());
    assert!(metrics.render().contains(&line), "{line}");
}

fn amount(requests: usize, bytes: usize) -> Amount {
    Amount { requests, bytes }
}

fn assert_nothing_is_held(admission: &Admission) {
    assert_eq!(admission.unverified.in_flight(None), Amount::default());
    assert_eq!(admission.unverified.clients(), 0);
    assert_eq!((admission.in_flight.requests(), admission.in_flight.bytes()), (0, 0));
    assert_eq!(admission.organizations.in_flight(&organization()), Amount::default());
}

#[test]
fn requests_are_bounded_for_all_and_for_each_client() {
    let (admission, metrics) = admission();
    let first = delivery(&admission, ipv6("2001:db8:0:1::1"), 0).unwrap();
    let _second = delivery(&admission, ipv6("2001:db8:0:1::2"), 0).unwrap();
    let refused = delivery(&admission, ipv6("2001:db8:0:1::3"), 0);
    assert_eq!(refused.unwrap_err(), AdmissionError::Overloaded);
    assert_counted(&metrics, DeliveryLimit::UnverifiedClient, 1);
    drop(first);
    let _first = delivery(&admission, ipv6("2001:db8:0:1::3"), 0).unwrap();
    // Without a client only the share of all counts.
    let others: Vec<Permit> =
        (0..6).map(|_| delivery(&admission, None::<IpAddr>, 0).unwrap()).collect();
    assert!(delivery(&admission, client(9), 0).is_err());
    assert_counted(&metrics, DeliveryLimit::UnverifiedShare, 1);
    assert_eq!(admission.unverified.clients(), 1, "a refused client is not remembered");
    // Callers with credentials have the rest.
    let _caller = admission.admit().unwrap().reserve_for_organization(&organization(), 100);
    assert_eq!(admission.in_flight.requests(), 8);
    drop(others);
    delivery(&admission, client(9), 0).expect("the dropped permits were released");
    assert_counted(&metrics, DeliveryLimit::UnverifiedClient, 1);
}

#[test]
fn bytes_are_bounded_for_all_and_for_each_client() {
    let (admission, metrics) = admission();
    let mut first = delivery(&admission, client(1), 50).unwrap();
    first.reserve_at_least(100).unwrap();
    let mut second = delivery(&admission, client(1), 50).unwrap();
    assert_eq!(second.check(1), Err(AdmissionError::Overloaded));
    assert_eq!(second.reserve(1), Err(AdmissionError::Overloaded));
    assert_counted(&metrics, DeliveryLimit::UnverifiedClient, 2);
    first.resize(60).unwrap();
    second.check(40).unwrap();
    second.resize(40).unwrap();
    assert_eq!(admission.unverified.in_flight(Some(client(1))), amount(2, 200));
    let _others: Vec<Permit> =
        (2..5).map(|number| delivery(&admission, client(number), 200).unwrap()).collect();
    let refused = delivery(&admission, client(9), 1);
    assert_eq!(refused.unwrap_err(), AdmissionError::Overloaded);
    assert_counted(&metrics, DeliveryLimit::UnverifiedShare, 1);
    assert_eq!(admission.unverified.in_flight(None), amount(5, 800));
    assert_eq!(admission.in_flight.bytes(), 800, "what was refused is not reserved");
    second.resize(0).unwrap();
    delivery(&admission, client(9), 40).unwrap();
}

/// A body that is larger than the share could otherwise never be delivered.
#[test]
fn a_single_delivery_always_fits_into_the_share() {
    let (admission, _) = admission();
    let mut permit = delivery(&admission, client(1), 10).unwrap();
    permit.reserve(1500).expect("it holds all bytes of its client and of the share");
    assert!(delivery(&admission, client(1), 1).is_err());
    assert!(delivery(&admission, client(2), 1).is_err());
    permit.resize(100).unwrap();
    assert!(delivery(&admission, client(2), 500).is_ok(), "alone of its client");
}

#[test]
fn a_verified_delivery_moves_to_its_organization() {
    let (admission, _) = admission();
    let mut permit = delivery(&admission, client(1), 50).unwrap();
    permit.reserve_at_least(100).unwrap();
    permit.reserve_for_organization(&organization(), 50).unwrap();
    assert_eq!(admission.unverified.in_flight(None), Amount::default());
    assert_eq!(admission.unverified.clients(), 0);
    assert_eq!(admission.organizations.in_flight(&organization()), amount(1, 150));
    assert_eq!(admission.in_flight.bytes(), 150, "nothing is counted twice");
    permit.resize(500).unwrap();
    assert_eq!(admission.organizations.in_flight(&organization()), amount(1, 550));
    assert_eq!(admission.in_flight.bytes(), 550, "the head stays reserved");
    permit.resize(20).unwrap();
    assert_eq!(admission.organizations.in_flight(&organization()), amount(1, 70));
    drop(permit);
    assert_nothing_is_held(&admission);
}

#[test]
fn what_its_organization_refuses_stays_unverified_until_it_ends() {
    let (admission, _) = admission();
    let mut own = admission.admit().unwrap();
    own.reserve_for_organization(&organization(), 700).unwrap();
    let mut permit = delivery(&admission, client(1), 150).unwrap();
    let refused = permit.reserve_for_organization(&organization(), 150);
    assert!(matches!(refused, Err(AdmissionError::OverLimit(_))), "{refused:?}");
    assert_eq!(admission.unverified.in_flight(Some(client(1))), amount(1, 150));
    assert_eq!(admission.organizations.in_flight(&organization()), amount(1, 700));
    drop((own, permit));
    assert_nothing_is_held(&admission);
}

#[test]
fn a_reload_changes_the_bounds_and_not_the_share() {
    let (admission, _) = admission();
    let mut settings = limits(80, 8000, false);
    settings.unverified_share = 1.0;
    admission.reload(&settings);
    let held: Vec<Permit> =
        (0..10).map(|_| delivery(&admission, client(1), 100).unwrap()).collect();
    assert!(delivery(&admission, client(1), 0).is_err(), "a quarter of a half of 80");
    admission.reload(&limits(16, 1600, false));
    assert!(delivery(&admission, client(2), 0).is_err(), "more than half of 16 are in flight");
    drop(held);
    assert_nothing_is_held(&admission);
}

#[tokio::test]
async fn a_panic_or_a_cancelled_request_releases_everything() {
    let (admission, _) = admission();
    for is_verified in [false, true] {
        let work = || {
            let mut permit = delivery(&admission, client(1), 50).unwrap();
            if is_verified {
                permit.reserve_for_organization(&organization(), 50).unwrap();
            }
            permit
        };
        let panicking = catch_unwind(AssertUnwindSafe(|| {
            let _permit = work();
            panic!("a bug");
        }));
        assert!(panicking.is_err());
        assert_nothing_is_held(&admission);
        let request = async {
            let _permit = work();
            std::future::pending::<()>().await;
        };
        let cancelled = tokio::time::timeout(std::time::Duration::from_millis(1), request).await;
        assert!(cancelled.is_err());
        assert_nothing_is_held(&admission);
    }
}

#[test]
fn threads_leave_nothing_behind() {
    let (admission, _) = admission();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let admission = &admission;
            scope.spawn(move || {
                for round in 0..2000_usize {
                    let Ok(mut permit) = delivery(admission, client(number % 2), round % 90) else {
                        continue;
                    };
                    let _ = permit.reserve(round % 130);
                    if round % 3 == 0 {
                        let _ = permit.reserve_for_organization(&organization(), round % 90);
                    }
                    let _ = permit.resize(round % 7);
                }
            });
        }
    });
    assert_nothing_is_held(&admission);
}
