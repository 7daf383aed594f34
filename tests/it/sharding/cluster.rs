//! Queues on different primaries of one Redis Cluster, while its slots move, a primary fails, and
//! nodes come and go.

use std::collections::BTreeSet;

use testkit::Redis;
use testkit::cluster::Cluster;
use testkit::config::Config;
use testkit::hookgate::Hookgate;
use testkit::http::Caller;
use testkit::ledger::{Answer, Ledger};
use testkit::scratch::Scratch;
use testkit::wait::until;

use super::load::{Landed, Load, accepted_of, documents, judge, refused_except};
use super::set_shards;

/// The prefix of each queue, and its slot. The primaries of [`start_cluster`] have one each.
const QUEUES: [(&str, u16); 3] = [("{bull-1}", 1195), ("{bull-0}", 5258), ("{bull-2}", 13512)];

/// The position of the primary with few slots, which can be moved in a moment.
const SMALL: usize = 1;
const SLOTS_OF_SMALL: u16 = 32;

#[tokio::test]
async fn slots_move_under_load() {
    let files = Scratch::new("cluster");
    let cluster = start_cluster().await;
    let hookgate = start(&files, &cluster, patient).await;
    let load = Load::start(&[Caller::new(hookgate.address())]);
    load.more_accepted(50).await;
    // Each queue moves to the primary of the next one, and then back.
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        cluster.move_slot(QUEUES[from].1, from, to).await;
        load.more_accepted(30).await;
    }
    assert_eq!(homes(&cluster).await, [1, 2, 0]);
    for (queue, from) in [(0, 1), (1, 2), (2, 0)] {
        cluster.move_slot(QUEUES[queue].1, from, queue).await;
    }
    load.more_accepted(50).await;
    assert_all_accepted(load.stop().await, &cluster, [0, 1, 2]).await;
}

#[tokio::test]
async fn a_node_is_added_and_another_removed_under_load() {
    let files = Scratch::new("cluster");
    let mut cluster = start_cluster().await;
    let hookgate = start(&files, &cluster, patient).await;
    let load = Load::start(&[Caller::new(hookgate.address())]);
    load.more_accepted(50).await;
    cluster.add_primary().await;
    load.more_accepted(30).await;
    cluster.reshard(SLOTS_OF_SMALL, SMALL, 3).await;
    load.more_accepted(30).await;
    cluster.remove(SMALL).await;
    load.more_accepted(50).await;
    assert_all_accepted(load.stop().await, &cluster, [0, 2, 1]).await;
}

#[tokio::test]
async fn the_failover_of_a_primary_affects_its_queue_alone() {
    let files = Scratch::new("cluster");
    let mut cluster = start_cluster().await;
    for primary in 0..QUEUES.len() {
        cluster.add_replica(primary).await;
    }
    let hookgate = start(&files, &cluster, |config| {
        // Otherwise the replica may lack jobs that the primary has acknowledged.
        config.set("queue.wait_replicas", 1);
    })
    .await;
    let load = Load::start(&[Caller::new(hookgate.address())]);
    load.more_accepted(100).await;
    let queues = landed(&cluster, [0, 1, 2]).await.only_queues();
    let of_failing = queues.into_iter().filter(|(_, queue)| *queue == SMALL);
    let of_failing: BTreeSet<String> = of_failing.map(|(organization, _)| organization).collect();
    cluster.nodes[SMALL].kill9().await;
    cluster.wait_until_promoted(SMALL + QUEUES.len()).await;
    load.more_accepted(100).await;
    // It becomes the replica of its replica. Until then no replica can have the jobs.
    cluster.nodes[SMALL].restart().await;
    cluster.wait_until_replica(SMALL).await;
    let before = accepted_of(load.ledger(), &of_failing);
    until("its organizations are accepted", async || {
        accepted_of(load.ledger(), &of_failing) > before + 20
    })
    .await;
    let ledger = load.stop().await;
    let landed = landed(&cluster, [0, SMALL + QUEUES.len(), 2]).await;
    let verdict = judge(&ledger, &landed);
    verdict.assert_sound();
    assert!(verdict.nothing > 0, "{verdict}");
    let others = refused_except(&ledger, &of_failing);
    assert!(others.is_empty(), "{others:?}\n{}", hookgate.log());
}

/// A primary for each queue, in the order of [`QUEUES`].
async fn start_cluster() -> Cluster {
    let small = QUEUES[SMALL].1;
    let end = small + SLOTS_OF_SMALL - 1;
    let cluster = Cluster::start(&[0..=small - 1, small..=end, end + 1..=16383]).await;
    assert_eq!(homes(&cluster).await, [0, 1, 2]);
    cluster
}

async fn start(files: &Scratch, cluster: &Cluster, change: impl FnOnce(&mut Config)) -> Hookgate {
    let mut config = Config::new();
    let file = files.write("workflows.json", documents().to_json());
    config.set("triggers.file", file.to_str().expect("a path in UTF-8"));
    change(&mut config);
    let shard = |(prefix, _): (&str, u16)| [cluster.url(), prefix.to_owned(), name(prefix)];
    set_shards(&mut config, QUEUES.map(shard));
    Hookgate::start(config).await
}

fn patient(config: &mut Config) {
    config.set("queue.enqueue_timeout", "20s");
}

fn name(prefix: &str) -> String {
    format!("runner-of-{}", prefix.trim_matches(['{', '}']))
}

/// The node with each queue.
async fn homes(cluster: &Cluster) -> [usize; 3] {
    let mut homes = [0; 3];
    for (home, (_, slot)) in homes.iter_mut().zip(QUEUES) {
        *home = cluster.primary_of(slot).await;
    }
    homes
}

/// The jobs of the queues, which are on these nodes.
async fn landed(cluster: &Cluster, homes: [usize; 3]) -> Landed {
    let queues: Vec<(&Redis, &str, String)> = homes
        .into_iter()
        .zip(QUEUES)
        .map(|(home, (prefix, _))| (&cluster.nodes[home], prefix, name(prefix)))
        .collect();
    Landed::read(&queues).await
}

async fn assert_all_accepted(ledger: Ledger, cluster: &Cluster, homes: [usize; 3]) {
    let landed = landed(cluster, homes).await;
    let verdict = judge(&ledger, &landed);
    verdict.assert_sound();
    let refused = ledger.count(|answer| !matches!(answer, Answer::Accepted { .. }));
    assert_eq!(refused, 0, "{verdict}");
    assert!((0..QUEUES.len()).all(|queue| landed.count(queue) > 0));
    landed.only_queues();
}
