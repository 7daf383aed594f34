//! Several queues, of which one is cut off: the organizations of the others do not notice.

use std::collections::BTreeSet;

use testkit::Config;
use testkit::ledger::Answer;

use super::history::Request;
use super::load::organization_of;
use super::site::{HOOKGATES, Layout, SERVERS};
use super::{judged, rounds, run, some};

/// The shard that is cut off.
const LOST: usize = 1;

#[test]
fn a_shard_that_is_cut_off_affects_its_own_organizations_alone() {
    run(Layout::shards().config(patient), async |site| {
        let load = site.load().await;
        for _ in 0..rounds() {
            site.network.part(&HOOKGATES, &[SERVERS[LOST]]);
            load.more_refused(some(), &[0, 1]).await;
            load.more_accepted(some(), &[0, 1]).await;
            site.heal().await;
            load.more_accepted(some(), &[0, 1]).await;
        }
        let mut of_lost = BTreeSet::new();
        for (server, name) in SERVERS.iter().enumerate() {
            let written = site.written_by(server).await;
            assert!(!written.is_empty(), "{name} has a queue");
            if server == LOST {
                of_lost.extend(written.iter().map(|request| organization_of(request)));
            } else {
                assert!(written.iter().all(|request| !of_lost.contains(&organization_of(request))));
            }
        }
        let requests = load.requests();
        judged(site, load).await.assert_nothing_lost();
        let is_of_lost = |request: &&Request| of_lost.contains(&organization_of(&request.id));
        let (lost, others): (Vec<&Request>, Vec<&Request>) = requests.iter().partition(is_of_lost);
        assert!(lost.iter().any(|request| is_refused(request)));
        let refused: Vec<_> = others.iter().filter(|request| is_refused(request)).collect();
        assert!(refused.is_empty(), "{refused:?}");
    });
}

/// The others are refused nothing, on a slow machine too.
fn patient(config: &mut Config) {
    config.set("queue.enqueue_timeout", "3s");
}

fn is_refused(request: &Request) -> bool {
    request.tries.iter().any(|each| !matches!(each.answer, Answer::Accepted { .. }))
}
