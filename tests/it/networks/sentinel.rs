//! A Sentinel on a node of its own, one of three.

use std::net::Ipv4Addr;

use redis::{RedisResult, cmd};
use testkit::network::Node;
use testkit::process::Process;
use testkit::redis::program;
use testkit::scratch::Scratch;
use testkit::wait::until_some;

/// The name of the primary.
const NAME: &str = "main";

const PORT: u16 = 26379;

/// How many Sentinels must agree that a primary is down, of three.
const QUORUM: usize = 2;

#[derive(Debug)]
pub(super) struct Sentinel {
    address: Ipv4Addr,
    // Dropped before the directory that holds its log.
    _process: Process,
    _directory: Scratch,
}

impl Sentinel {
    pub(super) fn start(node: &Node, primary: Ipv4Addr, down_after_ms: u32) -> Self {
        let address = node.address();
        let directory = Scratch::new("sentinel");
        let file = directory.write(
            "sentinel.conf",
            format!(
                "port {PORT}\nbind {address}\nprotected-mode no\n\
                 sentinel monitor {NAME} {primary} 6379 {QUORUM}\n\
                 sentinel down-after-milliseconds {NAME} {down_after_ms}\n\
                 sentinel failover-timeout {NAME} 6000\n"
            ),
        );
        let mut command = node.command(&program());
        command.arg(file).arg("--sentinel");
        let process = Process::start("sentinel", &command, &directory.join("sentinel.log"));
        Self { address, _process: process, _directory: directory }
    }

    /// The address for `queue.redis`, which names them all in this order.
    pub(super) fn url(sentinels: &[Self]) -> String {
        let host = |sentinel: &Self| format!("{}:{PORT}", sentinel.address);
        let nodes = sentinels[1..].iter().map(|other| format!("&node={}", host(other)));
        let nodes: String = nodes.collect();
        format!("redis-sentinel://{}/0?sentinelServiceName={NAME}{nodes}", host(&sentinels[0]))
    }

    /// Waits until it knows this number of replicas and of other Sentinels.
    pub(super) async fn knows(&self, replicas: usize, others: usize) {
        until_some("the sentinel knows everybody", async || {
            let known: Vec<redis::Value> = self.ask(&["REPLICAS", NAME]).await.ok()?;
            let peers: Vec<redis::Value> = self.ask(&["SENTINELS", NAME]).await.ok()?;
            (known.len() == replicas && peers.len() == others).then_some(())
        })
        .await;
    }

    /// The address of the primary, as it says.
    pub(super) async fn primary(&self) -> Option<Ipv4Addr> {
        let address: Vec<String> = self.ask(&["GET-MASTER-ADDR-BY-NAME", NAME]).await.ok()?;
        address.first()?.parse().ok()
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = redis::Client::open(format!("redis://{}:{PORT}", self.address))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        cmd("SENTINEL").arg(words).query_async(&mut connection).await
    }
}
