//! A Redis Sentinel of the test's own.

use std::process::Command;

use redis::cmd;

use super::ports;
use super::process::Process;
use super::redis::{Redis, program, tls_options};
use super::scratch::Scratch;
use super::tls::Authority;
use super::wait::until_some;

const NAME: &str = "main";

/// What `docs/operating/redis.md` asks for, and what [`Sentinel`] itself needs.
const RIGHTS: &str = "+sentinel|get-master-addr-by-name +sentinel|sentinels \
                      +sentinel|replicas +sentinel|failover";

/// How a Sentinel is reached, and how it reaches the servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access<'a> {
    /// Its user and password; anybody may use it otherwise.
    pub user: Option<(&'a str, &'a str)>,
    /// It serves TLS as well, reaches the servers by TLS on this port of the primary, and asks
    /// clients for a certificate.
    pub tls: Option<(&'a Authority, u16)>,
}

/// One sentinel, which suffices for failovers on request; killed on drop.
#[derive(Debug)]
pub struct Sentinel {
    port: u16,
    tls_port: u16,
    /// Its user and password, as in an address.
    credentials: String,
    // Dropped before the directory that holds its log.
    _process: Process,
    _directory: Scratch,
}

impl Sentinel {
    /// Monitors a primary; waits until it knows the replicas as well.
    pub async fn start(primary: &Redis, replicas: usize) -> Self {
        Self::start_with(primary, replicas, Access::default()).await
    }

    pub async fn start_with(primary: &Redis, replicas: usize, access: Access<'_>) -> Self {
        let (port, tls_port) = (ports::free(), ports::free());
        let directory = Scratch::new("sentinel");
        let primary = access.tls.map_or_else(|| primary.port(), |(_, port)| port);
        let file = directory.write(
            "sentinel.conf",
            format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {primary} 1\n\
                 sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 5000\n{}",
                access.lines(tls_port)
            ),
        );
        let mut command = Command::new(program());
        command.arg(file).arg("--sentinel");
        let process = Process::start("sentinel", &command, &directory.join("sentinel.log"));
        let credentials =
            access.user.map_or(String::new(), |(user, password)| format!("{user}:{password}@"));
        let sentinel =
            Self { port, tls_port, credentials, _process: process, _directory: directory };
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

    /// Its port without TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tls_port(&self) -> u16 {
        self.tls_port
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

    /// Names another server as the primary, which the old one does not learn.
    pub async fn name_primary(&self, primary: &Redis) {
        let port = primary.port().to_string();
        let () = self.ask(&["REMOVE", NAME]).await.expect("the primary is monitored");
        let monitor = ["MONITOR", NAME, "127.0.0.1", &port, "1"];
        let () = self.ask(&monitor).await.expect("no primary is monitored");
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let address = format!("redis://{}127.0.0.1:{}", self.credentials, self.port);
        let client = redis::Client::open(address)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        cmd("SENTINEL").arg(words).query_async(&mut connection).await
    }
}

impl Access<'_> {
    /// The lines of its configuration.
    fn lines(self, port: u16) -> String {
        let user = self.user.map(|(user, password)| {
            vec!["user default off".to_owned(), format!("user {user} on >{password} {RIGHTS}")]
        });
        let tls = self.tls.map(|(authority, _)| {
            let options = tls_options(authority, port, "yes");
            let lines = options.chunks(2).map(|pair| pair.join(" ").split_off("--".len()));
            lines.chain(["tls-replication yes".to_owned()]).collect::<Vec<_>>()
        });
        let lines = [user, tls].into_iter().flatten().flatten();
        lines.map(|line| line + "\n").collect()
    }
}
