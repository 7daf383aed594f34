//! A primary that comes back from behind a partition with jobs that its successor never had.

use super::site::{HOOKGATES, Layout, SENTINELS, SERVERS};
use super::{judged, rounds, run, some};
use testkit::Redis;
use testkit::ledger::standing;

/// The old primary is killed meanwhile, and starts as a primary again with its own data.
#[test]
fn a_primary_that_restarts_with_old_data_gives_its_surplus_up() {
    let layout = Layout::failing_over().redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    run(layout, async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            let (old, replicas) = (site.primary(), site.replicas());
            let others = [&[HOOKGATES[1]], &replicas[..], &SENTINELS].concat();
            site.network.part(&[SERVERS[old], HOOKGATES[0]], &others);
            site.failed_over().await;
            load.more_accepted(some(), &[0, 1]).await;
            site.servers[old].kill9().await;
            site.network.part(&[SERVERS[old]], &[HOOKGATES[0]]);
            load.more_refused(some(), &[0]).await;
            site.servers[old].restart().await;
            site.witnesses[old].follows().await;
            let jobs = async |server: &Redis| standing(server, &server.queue()).await;
            let surplus = jobs(&site.servers[old]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
            let kept = jobs(&site.servers[old]).await;
            let lost = surplus.iter().filter(|job| !kept.contains(job)).count();
            assert!(lost > 0, "the old primary had {} jobs", surplus.len());
        }
        let verdict = judged(site, load).await;
        assert!(!verdict.lost_by_design.is_empty(), "{verdict}");
    });
}

/// The primary hears everybody, and nobody hears it: it executes what arrives, is replaced, and is
/// heard again. What it has executed is sent again, because nobody got an answer.
#[test]
fn a_primary_that_is_not_heard_is_replaced_and_adds_nothing_twice() {
    run(Layout::failing_over(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            let (old, replicas) = (SERVERS[site.primary()], site.replicas());
            let others = [&HOOKGATES[..], &replicas, &SENTINELS].concat();
            site.network.cut(&[old], &others);
            site.failed_over().await;
            load.more_accepted(some(), &[0, 1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        assert!(verdict.after_refusal > 0, "{verdict}");
    });
}
