//! The servers of a test, each on a node of its own.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use testkit::config::Config;
use testkit::hookgate::{Hookgate, Surroundings, program};
use testkit::http::Caller;
use testkit::ledger::{Standing, standing};
use testkit::mongo::TestDatabase;
use testkit::network::Network;
use testkit::scratch::Scratch;
use testkit::wait::{until, until_some};
use testkit::{Mongo, Redis};
use toml::{Table, Value};

use super::history::Seen;
use super::load::{Load, documents};
use super::sentinel::Sentinel;
use super::witness::Witness;

/// The node of the test itself.
pub(super) const OBSERVER: &str = "observer";

pub(super) const HOOKGATES: [&str; 2] = ["hookgate-0", "hookgate-1"];
pub(super) const SERVERS: [&str; 3] = ["redis-0", "redis-1", "redis-2"];
pub(super) const SENTINELS: [&str; 3] = ["sentinel-0", "sentinel-1", "sentinel-2"];
pub(super) const MONGODB: &str = "mongodb";

/// Silence after which Sentinels give a primary up.
const SOON_MS: u32 = 3000;
const NEVER_MS: u32 = 600_000;

/// What a site has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Whether the servers are shards without replicas, or a primary, its replicas and Sentinels.
    are_shards: bool,
    has_mongodb: bool,
    down_after_ms: u32,
    options: &'static [&'static str],
    change: fn(&mut Config),
}

impl Layout {
    /// A primary with two replicas, which stays the primary.
    pub(super) fn steady() -> Self {
        Self {
            are_shards: false,
            has_mongodb: false,
            down_after_ms: NEVER_MS,
            options: &[],
            change: |_| (),
        }
    }

    /// A primary with two replicas, which Sentinels replace.
    pub(super) fn failing_over() -> Self {
        Self { down_after_ms: SOON_MS, ..Self::steady() }
    }

    /// Three servers, each of which has a queue.
    pub(super) fn shards() -> Self {
        Self { are_shards: true, ..Self::steady() }
    }

    /// With the documents in MongoDB.
    pub(super) fn mongodb(self) -> Self {
        Self { has_mongodb: true, ..self }
    }

    /// With these options of Redis.
    pub(super) fn redis(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }

    /// With this change to the configuration of each Hookgate.
    pub(super) fn config(self, change: fn(&mut Config)) -> Self {
        Self { change, ..self }
    }

    /// The names of all nodes.
    pub(super) fn nodes(&self) -> Vec<&'static str> {
        let mut nodes = [&[OBSERVER], &HOOKGATES[..], &SERVERS].concat();
        if !self.are_shards {
            nodes.extend(SENTINELS);
        }
        if self.has_mongodb {
            nodes.push(MONGODB);
        }
        nodes
    }
}

/// All servers, and the network between them.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) hookgates: Vec<Hookgate>,
    pub(super) servers: Vec<Redis>,
    pub(super) witnesses: Vec<Witness>,
    /// Those that were primary, in order; the last one is now.
    primaries: Vec<usize>,
    /// The requests that servers have written before they were demoted.
    demoted: BTreeSet<String>,
    pub(super) database: Option<TestDatabase>,
    sentinels: Vec<Sentinel>,
    mongo: Option<Mongo>,
    files: Scratch,
    // Dropped last.
    pub(super) network: Network,
}

impl Site {
    /// Starts all servers and waits until they know each other.
    pub(super) async fn start(layout: Layout, network: Network) -> Self {
        let mut site = Self {
            hookgates: Vec::new(),
            servers: start_servers(layout, &network).await,
            witnesses: Vec::new(),
            primaries: vec![0],
            demoted: BTreeSet::new(),
            database: None,
            sentinels: Vec::new(),
            mongo: None,
            files: Scratch::new("site"),
            network,
        };
        if !layout.are_shards {
            let primary = site.servers[0].host();
            let start =
                |name| Sentinel::start(site.network.node(name), primary, layout.down_after_ms);
            site.sentinels = SENTINELS.map(start).into();
        }
        if layout.has_mongodb {
            let mongo = Mongo::start_in(site.network.node(MONGODB)).await;
            let database = mongo.database().await;
            database.insert(&documents()).await;
            (site.mongo, site.database) = (Some(mongo), Some(database));
        }
        for server in &site.servers {
            site.witnesses.push(Witness::start(server).await);
        }
        for sentinel in &site.sentinels {
            sentinel.knows(SERVERS.len() - 1, SENTINELS.len() - 1).await;
        }
        for name in HOOKGATES {
            let hookgate = site.start_hookgate(layout, name).await;
            site.hookgates.push(hookgate);
        }
        for hookgate in &site.hookgates {
            hookgate.ready().await;
        }
        site
    }

    async fn start_hookgate(&self, layout: Layout, name: &str) -> Hookgate {
        let node = self.network.node(name);
        let mut config = Config::new();
        config.set("server.listen", format!("{}:2212", node.address()));
        config.set("admin.listen", format!("{}:9464", node.address()));
        config.set("queue.enqueue_timeout", "1s");
        if let Some(database) = &self.database {
            config
                .set("triggers.source", "mongodb")
                .set("mongodb.uri", database.uri())
                .set("mongodb.database", database.name());
        } else {
            let file = self.files.write("workflows.json", documents().to_json());
            config.set("triggers.file", file.to_str().expect("a path in UTF-8"));
        }
        if layout.are_shards {
            let shard = |(number, server): (usize, &Redis)| {
                let members = [("redis", server.url()), ("name", queue_name(number))];
                let members = members.map(|(key, value)| (key.to_owned(), Value::String(value)));
                Value::Table(members.into_iter().collect::<Table>())
            };
            let shards = self.servers.iter().enumerate().map(shard);
            config.set("queue.shards", shards.collect::<Vec<Value>>());
        } else {
            config.set("queue.redis", Sentinel::url(&self.sentinels));
        }
        (layout.change)(&mut config);
        let mut program_words = node.entrance();
        program_words.push(program().to_str().expect("a path in UTF-8").to_owned());
        let surroundings = Surroundings { program: program_words, ..Surroundings::default() };
        Hookgate::start_in(config, surroundings).await
    }

    /// Starts a load on both Hookgates and waits until both have accepted some.
    pub(super) async fn load(&self) -> Load {
        let callers: Vec<Caller> =
            self.hookgates.iter().map(|hookgate| Caller::new(hookgate.address())).collect();
        let load = Load::start(&callers);
        load.more_accepted(super::some(), &[0, 1]).await;
        load
    }

    /// The server that is primary.
    pub(super) fn primary(&self) -> usize {
        self.primaries[self.primaries.len() - 1]
    }

    /// The names of the servers that are replicas of the primary.
    pub(super) fn replicas(&self) -> Vec<&'static str> {
        let primary = SERVERS[self.primary()];
        SERVERS.into_iter().filter(|name| *name != primary).collect()
    }

    /// Waits until most Sentinels name another primary, and that one accepts writes.
    pub(super) async fn failed_over(&mut self) {
        let before = self.servers[self.primary()].host();
        let primary = until_some("there is another primary", async || {
            let primary = self.named_primary().await?;
            let position = self.servers.iter().position(|server| server.host() == primary)?;
            let status = self.replication(position).await?;
            (primary != before && has(&status, "role:master")).then_some(position)
        })
        .await;
        self.primaries.push(primary);
    }

    /// The primary that most Sentinels name.
    async fn named_primary(&self) -> Option<Ipv4Addr> {
        let mut named = Vec::new();
        for sentinel in &self.sentinels {
            named.push(sentinel.primary().await?);
        }
        let votes = |address: &Ipv4Addr| named.iter().filter(|other| *other == address).count();
        named.iter().copied().find(|address| votes(address) > SENTINELS.len() / 2)
    }

    /// What a server reports of its replication; `None` if it has closed the connection, as it does
    /// when a Sentinel changes its role.
    async fn replication(&self, server: usize) -> Option<String> {
        let client = redis::Client::open(self.servers[server].url()).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()
    }

    /// Heals the network, and waits until all other servers follow the primary. They have discarded
    /// by then what it does not have.
    pub(super) async fn heal(&mut self) {
        self.network.heal();
        if self.sentinels.is_empty() {
            return;
        }
        let primary = self.servers[self.primary()].host().to_string();
        for name in self.replicas() {
            let number = SERVERS.iter().position(|other| *other == name).expect("a server");
            let follows = format!("master_host:{primary}");
            until(&format!("{name} follows the primary"), async || {
                let status = self.replication(number).await.unwrap_or_default();
                has(&status, &follows) && has(&status, "master_link_status:up")
            })
            .await;
            // In this order, because a replica writes what the primary has written. A replica of the
            // old primary has written its surplus, too.
            let written = self.written_by(number).await;
            let kept = self.written_by(self.primary()).await;
            let discarded: BTreeSet<String> = written.difference(&kept).cloned().collect();
            self.witnesses[number].replace(&discarded, &kept);
            if self.primaries.len() > 1 {
                self.demoted.extend(written);
            }
        }
    }

    /// All jobs that are there in the end, and what each server has written.
    pub(super) async fn jobs(&self) -> (Vec<Standing>, Seen) {
        let mut seen = Seen { by_demoted: self.demoted.clone(), ..Seen::default() };
        let mut jobs = Vec::new();
        for (number, server) in self.servers.iter().enumerate() {
            let requests = self.witnesses[number].requests(server).await;
            if self.sentinels.is_empty() {
                let queue = server.queue_named("bull", &queue_name(number));
                jobs.extend(standing(server, &queue).await);
                seen.by_survivors.extend(requests);
            } else if number == self.primary() {
                jobs = standing(server, &server.queue()).await;
                seen.by_survivors.extend(requests);
            }
        }
        (jobs, seen)
    }

    /// The requests that a server has written so far, and has not discarded.
    pub(super) async fn written_by(&self, server: usize) -> BTreeSet<String> {
        self.witnesses[server].requests(&self.servers[server]).await
    }
}

fn has(status: &str, line: &str) -> bool {
    status.lines().any(|other| other == line)
}

/// The queue of a shard.
pub(super) fn queue_name(shard: usize) -> String {
    format!("workflow-runner-{shard}")
}

async fn start_servers(layout: Layout, network: &Network) -> Vec<Redis> {
    let primary = format!("{} 6379", network.node(SERVERS[0]).address());
    let mut servers = Vec::new();
    for name in SERVERS {
        // A replica notices a lost primary, and a primary a lost replica, after seconds.
        let mut options = vec!["--repl-timeout", "5", "--repl-ping-replica-period", "1"];
        options.extend(layout.options);
        if !layout.are_shards && name != SERVERS[0] {
            options.extend(["--replicaof", &primary]);
        }
        servers.push(Redis::start_in(network.node(name), &options).await);
    }
    if !layout.are_shards {
        until("the replicas are in sync", async || {
            servers[0].info("replication", "connected_slaves").await == "2"
                && servers[1].info("replication", "master_link_status").await == "up"
                && servers[2].info("replication", "master_link_status").await == "up"
        })
        .await;
    }
    servers
}
