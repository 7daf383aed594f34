//! A Redis Cluster of the test's own, whose slots move, whose primaries fail, and whose nodes come and
//! go as in production.

use std::ops::RangeInclusive;

use redis::cmd;
use tokio::process::Command;

use super::redis::Redis;
use super::wait::until;

/// A primary that is silent for this number of milliseconds has failed.
const NODE_TIMEOUT: &str = "1000";

/// The number of keys that move in one step.
const KEYS_OF_A_STEP: usize = 100;

/// Nodes of a cluster; killed on drop.
#[derive(Debug)]
pub struct Cluster {
    /// The primaries of the start, in the order of their slots, and then all nodes that were added.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts a primary for each range; the ranges are all slots. A primary that fails does
    /// not affect the slots of others.
    pub async fn start(slots: &[RangeInclusive<u16>]) -> Self {
        let mut cluster = Self { nodes: Vec::new() };
        for range in slots {
            let node = cluster.add().await;
            let range = [range.start().to_string(), range.end().to_string()];
            let () = node.query(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(&range)).await;
        }
        cluster.wait_until_known().await;
        cluster
    }

    /// Adds an empty primary and waits until every node knows it.
    pub async fn add_primary(&mut self) -> &Redis {
        self.add().await;
        self.wait_until_known().await;
        self.nodes.last().expect("a node was added")
    }

    /// Adds a replica of this node and waits until it is in sync.
    pub async fn add_replica(&mut self, primary: usize) -> &Redis {
        let id = node_id(&self.nodes[primary]).await;
        let replica = self.add_primary().await;
        let () = replica.query(cmd("CLUSTER").arg(&["REPLICATE", &id])).await;
        until("the replica is in sync", async || {
            let status: String = replica.query(cmd("INFO").arg("replication")).await;
            status.contains("master_link_status:up")
        })
        .await;
        replica
    }

    /// The address for `queue.redis`, which names every node.
    pub fn url(&self) -> String {
        let host = |node: &Redis| format!("127.0.0.1:{}", node.port());
        let [first, others @ ..] = &self.nodes[..] else { panic!("the cluster has nodes") };
        let others: Vec<String> =
            others.iter().map(|node| format!("node={}", host(node))).collect();
        format!("redis-cluster://{}?{}", host(first), others.join("&"))
    }

    /// Moves a slot with its keys, as `redis-cli --cluster reshard` does it.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let (from_id, to_id) = (node_id(from).await, node_id(to).await);
        set_slot(to, slot, &["IMPORTING", &from_id]).await;
        set_slot(from, slot, &["MIGRATING", &to_id]).await;
        while move_some_keys(from, to, slot).await > 0 {}
        for node in [to, from] {
            set_slot(node, slot, &["NODE", &to_id]).await;
        }
        self.wait_until_agreed().await;
    }

    /// Moves this number of slots from one primary to another with the tool of Redis.
    pub async fn reshard(&self, slots: u16, from: usize, to: usize) {
        let (from, to) = (node_id(&self.nodes[from]).await, node_id(&self.nodes[to]).await);
        let slots = slots.to_string();
        let words = ["--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", &slots];
        self.manage("reshard", &[&words[..], &["--cluster-yes"]].concat()).await;
        self.wait_until_agreed().await;
    }

    /// Removes a node without slots with the tool of Redis, and ends its process.
    pub async fn remove(&mut self, node: usize) {
        let id = node_id(&self.nodes[node]).await;
        self.manage("del-node", &[&id]).await;
        self.nodes.remove(node).kill9().await;
        self.wait_until_known().await;
    }

    /// The position of the node that has a slot, as all of them say.
    pub async fn primary_of(&self, slot: u16) -> usize {
        let any = self.nodes.last().expect("the cluster has nodes");
        let mut ranges = primaries(any).await.into_iter();
        let range = ranges.find(|(first, last, _)| (*first..=*last).contains(&slot));
        let (.., port) = range.expect("all slots have a primary");
        let position = self.nodes.iter().position(|node| node.port() == port);
        position.expect("the nodes of the cluster are known")
    }

    /// Waits until this node is a primary.
    pub async fn wait_until_promoted(&self, node: usize) {
        until("the replica is promoted", async || {
            self.nodes[node].info("replication", "role").await == "master"
        })
        .await;
    }

    /// Waits until this node is a replica in sync with its primary.
    pub async fn wait_until_replica(&self, node: usize) {
        until("the node is a replica", async || {
            let status: String = self.nodes[node].query(cmd("INFO").arg("replication")).await;
            status.contains("role:slave") && status.contains("master_link_status:up")
        })
        .await;
    }

    async fn add(&mut self) -> &Redis {
        let options =
            ["--cluster-node-timeout", NODE_TIMEOUT, "--cluster-require-full-coverage", "no"];
        let (node, bus) = Redis::start_cluster_node_with(&options).await;
        if let Some(first) = self.nodes.first() {
            let meet = ["MEET", "127.0.0.1", &node.port().to_string(), &bus];
            let () = first.query(cmd("CLUSTER").arg(&meet)).await;
        }
        self.nodes.push(node);
        self.nodes.last().expect("a node was added")
    }

    /// Waits until every node knows all others and the cluster is up.
    async fn wait_until_known(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        for node in &self.nodes {
            until("the nodes know each other", async || {
                let info: String = node.query(cmd("CLUSTER").arg("INFO")).await;
                info.contains("cluster_state:ok") && info.contains(&known)
            })
            .await;
        }
        self.wait_until_agreed().await;
    }

    /// Waits until all nodes have the same map of slots.
    async fn wait_until_agreed(&self) {
        until("the nodes agree on the slots", async || {
            let mut maps = Vec::new();
            for node in &self.nodes {
                maps.push(primaries(node).await);
            }
            maps.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }

    async fn manage(&self, command: &str, words: &[&str]) {
        let any = self.nodes.last().expect("the cluster has nodes");
        let mut tool = Command::new("redis-cli");
        tool.args(["--cluster", command, &format!("127.0.0.1:{}", any.port())]).args(words);
        let output = tool.output().await.expect("redis-cli runs");
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

/// Each range of slots and the port of its primary, in order.
async fn primaries(node: &Redis) -> Vec<(u16, u16, u16)> {
    let ranges: Vec<Vec<redis::Value>> = node.query(cmd("CLUSTER").arg("SLOTS")).await;
    let number = |value: &redis::Value| redis::from_redis_value(value.clone()).expect("a number");
    let range = |range: Vec<redis::Value>| match &range[..] {
        [first, last, redis::Value::Array(primary), ..] => {
            (number(first), number(last), number(&primary[1]))
        }
        other => panic!("not a range: {other:?}"),
    };
    let mut primaries: Vec<_> = ranges.into_iter().map(range).collect();
    primaries.sort_unstable();
    primaries
}

async fn node_id(node: &Redis) -> String {
    node.query(cmd("CLUSTER").arg("MYID")).await
}

async fn set_slot(node: &Redis, slot: u16, how: &[&str]) {
    let () = node.query(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how)).await;
}

/// Returns how many keys were left before.
async fn move_some_keys(from: &Redis, to: &Redis, slot: u16) -> usize {
    let keys: Vec<String> =
        from.query(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(KEYS_OF_A_STEP)).await;
    if !keys.is_empty() {
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(&keys);
        let () = from.query(&migrate).await;
    }
    keys.len()
}
