//! A Redis Sentinel of the test's own.

use std::process::Command;

use redis::cmd;

use super::ports;
use super::process::Process;
use super::redis::Redis;
use super::scratch::Scratch;
use super::wait::until_some;

const NAME: &str = "main";

/// One sentinel, which suffices for failovers on request; killed on drop.
#[derive(Debug)]
pub struct Sentinel {
    port: u16,
    // Dropped before the directory that holds its log.
    _process: Process,
    _directory: Scratch,
}

impl Sentinel {
    /// Monitors a primary; waits until it knows the replicas as well.
    pub async fn start(primary: &Redis, replicas: usize) -> Self {
        let (port, directory) = (ports::free(), Scratch::new("sentinel"));
        let primary = primary.port();
        let file = directory.write(
            "sentinel.conf",
            format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {primary} 1\n\
                 sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 5000\n"
            ),
        );
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel");
        let process = Process::start("sentinel", &command, &directory.join("sentinel.log"));
        let sentinel = Self { port, _process: process, _directory: directory };
        until_some("the sentinel knows the replicas", async || {
            let known: Vec<redis::Value> = sentinel.ask(&["REPLICAS", NAME]).await.ok()?;
            (known.len() == replicas).then_some(())
        })
        .await;
        sentinel
    }

    /// The address for `queue.redis`.
    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/0?sentinelServiceName={NAME}", self.port)
    }

    /// Makes a replica the primary; waits until the sentinel reports it.
    pub async fn fail_over(&self, to: &Redis) {
        until_some("the failover begins", async || {
            self.ask::<String>(&["FAILOVER", NAME]).await.ok()
        })
        .await;
        let to = to.port().to_string();
        until_some("the replica is primary", async || {
            let address: Vec<String> = self.ask(&["GET-MASTER-ADDR-BY-NAME", NAME]).await.ok()?;
            (address.get(1) == Some(&to)).then_some(())
        })
        .await;
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        cmd("SENTINEL").arg(words).query_async(&mut connection).await
    }
}
