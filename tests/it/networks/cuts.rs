//! Two parts of the site do not reach each other, in either direction.

use testkit::wait::until;

use super::site::{HOOKGATES, Layout, OBSERVER, SENTINELS, SERVERS};
use super::{judged, rounds, run, some};

/// The primary refuses writes once no replica has acknowledged for two seconds.
pub(super) const MIN_REPLICAS: &[&str] =
    &["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"];

#[test]
fn a_hookgate_without_the_primary_refuses_and_the_other_accepts() {
    run(Layout::steady(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            site.network.part(&[HOOKGATES[0]], &[SERVERS[0]]);
            site.hookgates[0].unready().await;
            load.more_refused(some(), &[0]).await;
            load.more_accepted(some(), &[1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        verdict.assert_nothing_lost();
        assert!(verdict.after_refusal > 0, "{verdict}");
    });
}

/// The Sentinels replace a primary that everybody else reaches. It loses its replicas to its
/// successor, so that it refuses writes, and Hookgate must find the successor.
#[test]
fn a_primary_without_the_sentinels_is_left_for_its_successor() {
    run(Layout::failing_over().redis(MIN_REPLICAS), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            let old = site.primary();
            site.network.part(&SENTINELS, &[SERVERS[old]]);
            site.failed_over().await;
            refuses_writes(&site.servers[old]).await;
            let before = site.written_by(old).await;
            load.more_accepted(some(), &[0, 1]).await;
            assert_eq!(site.written_by(old).await, before, "the old primary accepts nothing");
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        judged(site, load).await;
    });
}

#[test]
fn a_primary_without_its_replicas_accepts_unless_it_must_have_them() {
    run(Layout::steady(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            site.network.part(&[SERVERS[0]], &[SERVERS[1], SERVERS[2]]);
            until("the replicas are lost", async || {
                site.servers[0].info("replication", "connected_slaves").await == "0"
            })
            .await;
            load.more_accepted(some(), &[0, 1]).await;
            set_min_replicas(&site.servers[0], "1").await;
            load.more_refused(some(), &[0, 1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
            set_min_replicas(&site.servers[0], "0").await;
        }
        judged(site, load).await.assert_nothing_lost();
    });
}

/// Callers of the Hookgate have no answer, and send again to the other one.
#[test]
fn a_hookgate_without_anybody_is_replaced_by_the_other() {
    run(Layout::steady(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            let everybody = [&[OBSERVER, HOOKGATES[1]], &SERVERS[..], &SENTINELS].concat();
            site.network.part(&[HOOKGATES[0]], &everybody);
            load.more_unanswered(some() / 4, &[0]).await;
            load.more_accepted(some(), &[1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let verdict = judged(site, load).await;
        verdict.assert_nothing_lost();
        assert!(verdict.after_refusal > 0, "{verdict}");
    });
}

/// The machine of the primary is gone with the Sentinel that the address of the queue names first.
#[test]
fn a_primary_and_the_first_sentinel_that_are_silent_are_replaced() {
    run(Layout::failing_over(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            let (old, replicas) = (SERVERS[site.primary()], site.replicas());
            let others = [&HOOKGATES[..], &replicas, &SENTINELS[1..]].concat();
            site.network.part(&[old, SENTINELS[0]], &others);
            site.failed_over().await;
            load.more_accepted(some(), &[0, 1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        judged(site, load).await;
    });
}

/// Waits until a primary refuses writes because it has no replica.
pub(super) async fn refuses_writes(server: &testkit::Redis) {
    until("the primary refuses writes", async || {
        server.info("replication", "min_slaves_good_slaves").await == "0"
    })
    .await;
}

async fn set_min_replicas(server: &testkit::Redis, count: &str) {
    let () = server.query(redis::cmd("CONFIG").arg(&["SET", "min-replicas-to-write", count])).await;
}
