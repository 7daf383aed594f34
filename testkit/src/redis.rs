//! A Redis server of the test's own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult};
use tokio::task::JoinHandle;

use super::network::Node;
use super::ports;
use super::process::Process;
use super::queue::Queue;
use super::scratch::Scratch;
use super::tls::Authority;
use super::wait::{until, until_some};

/// The port of a server on a node of its own.
const PORT: u16 = 6379;

/// `redis-server` on its own port and in its own directory; killed on drop.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    /// Where it runs, if not on this machine itself.
    node: Option<Node>,
    port: u16,
    /// The database of the queue.
    database: u8,
    options: Vec<String>,
    // Dropped before the directory that holds its log.
    process: Process,
    directory: Scratch,
}

impl Redis {
    /// Starts a server without persistence.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with an append-only file that is synced at every write, so that acknowledged
    /// writes survive `kill -9`.
    pub async fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// Starts a server with further command line options, for example `["--maxmemory", "4mb"]`.
    pub async fn start_with(options: &[&str]) -> Self {
        Self::start_on(ports::free(), options).await
    }

    /// Starts a server that takes this many microseconds to load each key and answers commands
    /// meanwhile.
    pub async fn start_slow_to_load(microseconds: u32) -> Self {
        let delay = microseconds.to_string();
        let interval = ["--loading-process-events-interval-bytes", "1024"];
        let options = [&["--key-load-delay", &delay][..], &interval, &["--rdbcompression", "no"]];
        Self::start_with(&options.concat()).await
    }

    /// Starts the oldest supported Redis, which `scripts/setup` installs.
    pub async fn start_6() -> Self {
        let program = super::root().join(".tools/redis-6.2");
        assert!(program.exists(), "no Redis 6.2: run scripts/setup test");
        Self::start_program(program, ports::free(), &[]).await
    }

    /// Starts a server on a port that the test has given out before.
    pub async fn start_on(port: u16, options: &[&str]) -> Self {
        Self::start_program(program(), port, options).await
    }

    /// Starts a server that also serves TLS on the port that is returned. `clients` is its setting
    /// `tls-auth-clients`: whether clients need a certificate of the authority.
    pub async fn start_tls(authority: &Authority, clients: &str) -> (Self, u16) {
        let port = ports::free();
        let options = tls_options(authority, port, clients);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        (Self::start_with(&options).await, port)
    }

    /// Uses this database for the queue and for every command.
    pub fn in_database(mut self, database: u8) -> Self {
        self.database = database;
        self
    }

    /// Starts a server on the usual port of a node. Only who has entered the network reaches it.
    pub async fn start_in(node: &Node, options: &[&str]) -> Self {
        // Redis otherwise serves only its own host without a password.
        let options = [&["--protected-mode", "no"], options].concat();
        Self::launched(program(), Some(node.clone()), PORT, &options).await
    }

    async fn start_program(program: PathBuf, port: u16, options: &[&str]) -> Self {
        Self::launched(program, None, port, options).await
    }

    async fn launched(program: PathBuf, node: Option<Node>, port: u16, options: &[&str]) -> Self {
        let directory = Scratch::new("redis");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let process = launch(&program, node.as_ref(), port, &directory, &options);
        let redis = Self { program, node, port, database: 0, options, process, directory };
        redis.ready().await;
        redis
    }

    /// Starts a replica of this server and waits until it is in sync.
    pub async fn start_replica(&self) -> Self {
        let replica = Self::start_with(&["--replicaof", &format!("127.0.0.1 {}", self.port)]).await;
        until("the replica is in sync", async || {
            replica.info("replication", "master_link_status").await == "up"
        })
        .await;
        replica
    }

    /// A node in cluster mode without slots, and the port of its bus. By default Redis uses the
    /// port 10,000 above its own, which may be in use or over 65,535.
    pub async fn start_cluster_node() -> (Self, String) {
        Self::start_cluster_node_with(&[]).await
    }

    /// Likewise, with further command line options.
    pub async fn start_cluster_node_with(options: &[&str]) -> (Self, String) {
        let bus = ports::free().to_string();
        let own = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        (Self::start_with(&[&own[..], options].concat()).await, bus)
    }

    /// Two nodes of a cluster: the one of the address, and the one that serves the slot of this
    /// key.
    pub async fn start_cluster(key: &str) -> (Self, Self) {
        let (first, _) = Self::start_cluster_node().await;
        let (second, bus) = Self::start_cluster_node().await;
        let slot: u32 = first.query(redis::cmd("CLUSTER").arg(&["KEYSLOT", key])).await;
        let port = second.port().to_string();
        let meet = ["MEET", "127.0.0.1", &port, &bus];
        let () = first.query(redis::cmd("CLUSTER").arg(&meet)).await;
        for (node, from, to) in [(&first, 0, slot - 1), (&second, slot, 16383)] {
            let range = [from.to_string(), to.to_string()];
            let () = node.query(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(&range)).await;
        }
        for node in [&first, &second] {
            until("the cluster is complete", async || {
                let info: String = node.query(redis::cmd("CLUSTER").arg("INFO")).await;
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
            })
            .await;
        }
        (first, second)
    }

    /// Gives the user `some` exactly these ACL rules; returns the address for it.
    pub async fn allow(&self, password: &str, rights: &str) -> String {
        let mut command = redis::cmd("ACL");
        command.arg(&["SETUSER", "some", "reset", "on", &format!(">{password}")]);
        rights.split_whitespace().for_each(|rule| {
            command.arg(rule);
        });
        let () = self.query(&command).await;
        self.url().replace("127.0.0.1", &format!("some:{password}@127.0.0.1"))
    }

    /// Promotes a replica to a primary.
    pub async fn promote(&self) {
        let () = self.query(redis::cmd("REPLICAOF").arg(&["NO", "ONE"])).await;
    }

    /// A field of `INFO`, which must be there.
    pub async fn info(&self, section: &str, field: &str) -> String {
        let info: String = self.query(redis::cmd("INFO").arg(section)).await;
        let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {field} in {section}")).trim().to_owned()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for `queue.redis`.
    pub fn url(&self) -> String {
        format!("redis://{}:{}/{}", self.host(), self.port, self.database)
    }

    /// The address that it listens on.
    pub fn host(&self) -> Ipv4Addr {
        self.node.as_ref().map_or(Ipv4Addr::LOCALHOST, Node::address)
    }

    /// The server process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn kill9(&self) {
        self.process.kill9().await;
    }

    /// Stops the process without closing a connection, as a hung machine does, until
    /// [`Redis::thaw`].
    pub fn freeze(&self) {
        self.process.signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// Kills the server if it runs and starts it again with the same port, directory and options.
    pub async fn restart(&mut self) {
        self.process.kill9().await;
        self.start_again();
        self.ready().await;
    }

    /// Kills the server and starts it again with twenty more keys to load. Does not wait until it
    /// answers.
    pub async fn restart_with_keys_to_load(&mut self) {
        for number in 0..20 {
            let text = "x".repeat(2000);
            let () = self.query(redis::cmd("SET").arg(format!("ballast-{number}")).arg(text)).await;
        }
        let () = self.query(&redis::cmd("SAVE")).await;
        self.kill9().await;
        self.start_again();
    }

    /// Starts a server that was killed. Does not wait until it answers.
    pub fn start_again(&mut self) {
        let node = self.node.as_ref();
        self.process = launch(&self.program, node, self.port, &self.directory, &self.options);
    }

    /// Opens a connection of its own.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("redis answers")
    }

    /// Runs one command: `redis.query(redis::cmd("LLEN").arg("bull:workflow-runner:wait")).await`.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect().await;
        command.query_async(&mut connection).await.expect("redis executes the command")
    }

    /// Runs an endless script of another client. SCRIPT KILL ends it, and the task ends with that
    /// error.
    pub async fn run_endless_script(&self) -> JoinHandle<RedisResult<()>> {
        let mut connection = self.connect().await;
        let script = redis::cmd("EVAL").arg("while true do end").arg(0).clone();
        tokio::spawn(async move { script.query_async(&mut connection).await })
    }

    /// The queue of the default configuration, `bull:workflow-runner`.
    pub fn queue(&self) -> Queue<'_> {
        self.queue_named("bull", "workflow-runner")
    }

    pub fn queue_named(&self, prefix: &str, name: &str) -> Queue<'_> {
        Queue::new(self, format!("{prefix}:{name}:"))
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        let client = Client::open(self.url()).expect("a valid address");
        client.get_multiplexed_async_connection_with_config(&config).await.ok()
    }

    /// Also waits while an append-only file is loaded.
    async fn ready(&self) {
        until_some("redis answers PING", async || {
            assert!(self.process.exit_code().is_none(), "redis ended: {}", self.process.log_text());
            let mut connection = self.try_connect().await?;
            match redis::cmd("PING").query_async::<String>(&mut connection).await {
                Ok(_) => Some(()),
                // PING may be disabled.
                Err(error) => error.to_string().contains("unknown command").then_some(()),
            }
        })
        .await;
    }
}

/// The server under test: `redis-server`, or the program that `TESTKIT_REDIS_SERVER` names.
pub fn program() -> PathBuf {
    std::env::var_os("TESTKIT_REDIS_SERVER").unwrap_or_else(|| "redis-server".into()).into()
}

/// Options with which a server, or a Sentinel, serves TLS on this port as well.
pub(super) fn tls_options(authority: &Authority, port: u16, clients: &str) -> Vec<String> {
    [
        ["--tls-port", &port.to_string()],
        ["--tls-cert-file", &authority.certificate_file()],
        ["--tls-key-file", &authority.key_file()],
        ["--tls-ca-cert-file", &authority.authority_file()],
        ["--tls-auth-clients", clients],
    ]
    .as_flattened()
    .iter()
    .map(|&word| word.to_owned())
    .collect()
}

/// The address for `queue.redis` of a server on this port.
pub fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

/// The ACL rules that a user needs, as `docs/operating/redis.md` documents them.
pub fn documented_rights() -> String {
    let page = include_str!("../../docs/operating/redis.md");
    let rule = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER hookgate on >secret "));
    rule.expect("a rule").to_owned()
}

fn launch(
    program: &Path,
    node: Option<&Node>,
    port: u16,
    directory: &Scratch,
    options: &[String],
) -> Process {
    let mut command = node.map_or_else(|| Command::new(program), |node| node.command(program));
    let host = node.map_or(Ipv4Addr::LOCALHOST, Node::address).to_string();
    command.args(["--port", &port.to_string(), "--bind", &host, "--dir"]).arg(directory.path());
    command
        .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
        .args(options);
    Process::start("redis", &command, &directory.join("redis.log"))
}
