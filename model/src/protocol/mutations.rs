//! Every safeguard is needed: without it, a property is violated.

#![expect(clippy::print_stdout, reason = "what a search has found is for people")]

use super::sizes::{
    Size, alone, attempts, failover, held, in_flight, keys, keys_in_a_batch, refusals, replicas,
    restarts, shifted,
};
use super::{Faults, Property, Protocol, Setting};
use crate::safeguards::{Safeguard, Safeguards};
use crate::search::{Until, search};

const MOST_STATES: usize = 2_000_000;

/// A setting in which the safeguard is needed.
fn setting(safeguard: Safeguard) -> Setting {
    let size = Size::Short;
    match safeguard {
        Safeguard::Record
        | Safeguard::Deadline
        | Safeguard::NumberBeforeDeadline
        | Safeguard::SameNumber
        | Safeguard::UnknownAfterLoss => attempts(size),
        Safeguard::RecordOfLate => {
            let faults = Faults { losses: 1, back: 1, ..Faults::default() };
            Setting { faults, ..attempts(size) }
        }
        Safeguard::Mark | Safeguard::MarkBelowOpen => in_flight(size),
        Safeguard::NumberInReply => {
            let faults = Faults { shifts: 1, ..Faults::default() };
            Setting { faults, ..in_flight(size) }
        }
        Safeguard::RecordOfWithdrawal | Safeguard::WithdrawnFirst => alone(size),
        Safeguard::RecordBeforeJobs | Safeguard::RecordPutBack | Safeguard::RefusalInDoubt => {
            refusals(size)
        }
        Safeguard::RecordCorrected
        | Safeguard::WholeRequests
        | Safeguard::KeyOfAddedOnly
        | Safeguard::RepeatOfFailedFails => held(size),
        Safeguard::ProofOfPrimary => failover(size),
        // The second line of defence, where the record of `late` is lost.
        Safeguard::OneDeadline => Setting {
            window: 2,
            faults: Faults { losses: 1, ..Faults::default() },
            safeguards: Safeguards::ALL.without(Safeguard::RecordOfLate),
            ..in_flight(size)
        },
        Safeguard::NumbersApart => shifted(size),
        Safeguard::UnknownWithoutReplicas => replicas(size),
        Safeguard::KeyLookedUp | Safeguard::KeyInSameStep => keys(size),
        Safeguard::KeyKeptWithoutJobs | Safeguard::Fingerprint => keys_in_a_batch(size),
        Safeguard::FreshProducer => restarts(size),
    }
}

/// What is violated in a setting with every safeguard. The searches for the table of assumptions show
/// that it is no more than that.
fn exceptions(setting: &Setting) -> &'static [Property] {
    let Setting { faults, waits_for_replica, .. } = setting;
    match (faults.back, faults.failovers) {
        (1.., _) => &[Property::NotLater],
        (0, 1..) if !waits_for_replica => &[Property::Kept],
        _ => &[],
    }
}

#[test]
fn a_property_is_violated_without_each_safeguard() {
    let mut superfluous = Vec::new();
    for safeguard in Safeguard::ALL {
        let setting = setting(safeguard);
        let except = exceptions(&setting);
        let mutated = Setting { safeguards: setting.safeguards.without(safeguard), ..setting };
        let findings = search(&Protocol::new(mutated), Until::Violated { except }, MOST_STATES);
        if let Some((property, trace)) = findings.violated_except(except) {
            assert!(!trace.0.is_empty());
            println!("without {safeguard:?}: {property}: does not hold\n{trace}");
        } else {
            superfluous.push(safeguard);
        }
    }
    assert!(superfluous.is_empty(), "no property is violated without {superfluous:?}");
}

/// The second line of defence is not needed while the first one is there.
#[test]
fn one_deadline_suffices_while_the_clock_advances() {
    let setting = setting(Safeguard::OneDeadline);
    let findings = search(&Protocol::new(setting), Until::Exhausted, MOST_STATES);
    assert_eq!(findings.violated_except(&[]), None);
    assert!(findings.is_exhausted);
}

/// The copy that was replied to is late, and the other one is not once the clock is set back.
#[test]
fn a_clock_that_is_set_back_cannot_make_none_false() {
    let setting = setting(Safeguard::RecordOfLate);
    let safeguards = setting.safeguards.without(Safeguard::RecordOfLate);
    let mutated = Protocol::new(Setting { safeguards, ..setting.clone() });
    let findings = search(&mutated, Until::Exhausted, MOST_STATES);
    let trace = findings.trace(&Property::None).expect("a trace");
    assert!(trace.0.iter().any(|action| action.ends_with("answered 503 none")), "{trace}");
    let last = trace.0.last().expect("an action");
    assert!(last.starts_with("a call of a lost connection is executed"), "{trace}");
    let findings = search(&Protocol::new(setting), Until::Exhausted, MOST_STATES);
    assert_eq!(findings.trace(&Property::None), None);
    assert!(findings.is_exhausted);
}
