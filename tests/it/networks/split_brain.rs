//! Two primaries at a time: the old one with one Hookgate on one side, its successor with the
//! Sentinels and the other Hookgate on the other. The callers reach both sides.

use std::collections::BTreeSet;

use super::cuts::{MIN_REPLICAS, refuses_writes};
use super::history::{Request, Try};
use super::site::{HOOKGATES, Layout, SENTINELS, SERVERS, Site};
use super::{judged, rounds, run, some};
use testkit::ledger::Answer;

/// Cuts the primary and a Hookgate off, and waits for the successor. Returns the old primary.
async fn split(site: &mut Site) -> usize {
    let (old, replicas) = (site.primary(), site.replicas());
    let others = [&[HOOKGATES[1]], &replicas[..], &SENTINELS].concat();
    site.network.part(&[SERVERS[old], HOOKGATES[0]], &others);
    site.failed_over().await;
    old
}

#[test]
fn what_an_old_primary_acknowledges_is_lost_and_nothing_else() {
    run(Layout::failing_over(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            let old = split(site).await;
            load.more_accepted(some(), &[0, 1]).await;
            let surplus = site.written_by(old).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
            assert!(!surplus.is_empty());
        }
        let requests = load.requests();
        let verdict = judged(site, load).await;
        assert!(verdict.lost_by_design.len() >= some() / 2, "both were primary: {verdict}");
        // The other Hookgate never saw the old primary after the split.
        let by_other = accepted_only_by(&requests, 1);
        let lost: Vec<_> = verdict.lost_by_design.intersection(&by_other).collect();
        assert!(lost.len() < some(), "{lost:?}");
    });
}

/// With `min-replicas-to-write` the loss ends when the old primary begins to refuse.
#[test]
fn an_old_primary_that_must_have_replicas_soon_refuses() {
    run(Layout::failing_over().redis(MIN_REPLICAS), async |site| {
        let load = site.load().await;
        let mut written = BTreeSet::new();
        for _ in 0..rounds() {
            let old = split(site).await;
            refuses_writes(&site.servers[old]).await;
            load.more_refused(some(), &[0]).await;
            written.extend(site.written_by(old).await);
            load.more_accepted(some(), &[1]).await;
            load.more_refused(some(), &[0]).await;
            let later = site.written_by(old).await;
            assert!(later.is_subset(&written), "{:?}", later.difference(&written));
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        assert!(verdict.lost_by_design.is_subset(&written), "{verdict}");
    });
}

/// With `queue.wait_replicas` of both replicas nothing is accepted that the successor lacks.
#[test]
fn an_old_primary_whose_jobs_wait_for_replicas_loses_nothing() {
    let layout = Layout::failing_over().config(|config| {
        config.set("queue.wait_replicas", 2);
    });
    run(layout, async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            split(site).await;
            load.more_refused(some(), &[0]).await;
            // The successor has one replica.
            load.more_refused(some(), &[1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        verdict.assert_nothing_lost();
        assert!(verdict.after_refusal > 0, "{verdict}");
    });
}

/// The requests that were accepted by this Hookgate, and sent to no other one.
fn accepted_only_by(requests: &[Request], hookgate: usize) -> BTreeSet<String> {
    let is_one = |request: &&Request| {
        let is_accepted = |each: &Try| matches!(each.answer, Answer::Accepted { .. });
        request.tries.iter().any(is_accepted)
            && request.tries.iter().all(|each| each.hookgate == hookgate)
    };
    requests.iter().filter(is_one).map(|request| request.id.clone()).collect()
}
