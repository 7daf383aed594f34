//! A network that loses packets at random, in both directions, between all nodes.

use super::site::Layout;
use super::{judged, rounds, run, some};

/// The share of lost packets, in percent.
const LOST: u8 = 15;

#[test]
fn lost_packets_cost_time_and_no_job() {
    run(Layout::steady(), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            site.network.lose(LOST);
            load.more_accepted(2 * some(), &[0, 1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        judged(site, load).await.assert_nothing_lost();
    });
}
