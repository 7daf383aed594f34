//! One direction is cut off: requests arrive and their answers do not, or the other way round.

use super::site::{HOOKGATES, Layout, SERVERS};
use super::{judged, rounds, run, some};

/// How often a direction is cut off. Each time only the requests that are under way are affected,
/// because no new connection can be made.
const CUTS: u32 = 2;

#[test]
fn jobs_whose_acknowledgements_are_lost_are_added_once() {
    run(Layout::steady(), async |site| {
        let load = site.load().await;
        for _ in 0..CUTS * rounds() {
            site.network.cut(&[SERVERS[0]], &[HOOKGATES[0]]);
            load.more_refused(some(), &[0]).await;
            load.more_accepted(some() / 2, &[1]).await;
            site.heal().await;
            load.more_accepted(some() / 2, &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        verdict.assert_nothing_lost();
        assert!(verdict.replayed > 0, "jobs have landed after a 503: {verdict}");
    });
}

#[test]
fn jobs_whose_calls_are_lost_are_added_once() {
    run(Layout::steady(), async |site| {
        let load = site.load().await;
        for _ in 0..CUTS * rounds() {
            site.network.cut(&[HOOKGATES[0]], &[SERVERS[0]]);
            load.more_refused(some(), &[0]).await;
            load.more_accepted(some() / 2, &[1]).await;
            site.heal().await;
            load.more_accepted(some() / 2, &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        verdict.assert_nothing_lost();
        assert!(verdict.after_refusal > 0, "{verdict}");
    });
}

/// The replicas have every job, and their acknowledgements are lost.
#[test]
fn jobs_whose_replicas_are_not_heard_are_added_once() {
    let layout = Layout::steady().config(|config| {
        config.set("queue.wait_replicas", 1);
    });
    run(layout, async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            site.network.cut(&[SERVERS[1], SERVERS[2]], &[SERVERS[0]]);
            load.more_refused(some(), &[0, 1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        verdict.assert_nothing_lost();
        assert!(verdict.replayed > 0, "jobs have landed after a 503: {verdict}");
    });
}
