//! Several queues, each on a Redis of its own: which organization has which, and what the
//! failure of one affects.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test panics")]
#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

mod cluster;
mod configuration;
mod growth;
mod load;
mod logs;
mod outage;
mod page;
mod placement;
mod slow;

use serde_json::json;
use std::collections::BTreeMap;
use std::process::Output;
use testkit::app::Builder;
use testkit::deliveries::verified_trigger;
use testkit::documents::{user, workflow_of};
use testkit::hookgate::command;
use testkit::http::Call;
use testkit::scratch::Scratch;
use testkit::{App, Config, Documents, Redis};
use toml::{Table, Value};

const ORGANIZATIONS: usize = 12;

/// The secret of all endpoints.
const SECRET: &str = "It's a Secret to Everybody";

/// A running Hookgate with several queues, and the Redis of each.
struct Fleet {
    app: App,
    servers: Vec<Redis>,
    /// The queue of each organization, as `hookgate shard` says.
    places: BTreeMap<String, usize>,
}

impl Fleet {
    async fn start(queues: usize) -> Self {
        Self::start_with(queues, |_| ()).await
    }

    async fn start_with(queues: usize, change: impl FnOnce(&mut Config)) -> Self {
        let servers = servers(queues).await;
        let app = build(&servers).config(change).start().await;
        Self::new(app, servers)
    }

    fn new(app: App, servers: Vec<Redis>) -> Self {
        let places = places(&app.hookgate.config, &organizations());
        Self { app, servers, places }
    }

    /// An organization of a queue.
    fn organization_of(&self, queue: usize) -> &str {
        let mut places = self.places.iter();
        let found = places.find(|(_, place)| **place == queue);
        found.map(|(organization, _)| organization).expect("every queue has an organization")
    }

    /// A webhook of an organization.
    fn webhook(&self, organization: &str) -> Call {
        self.app.webhook("wh").bearer(&key(organization))
    }

    /// The lengths of the waiting lists.
    async fn waiting(&self) -> Vec<usize> {
        let mut lengths = Vec::new();
        for (queue, redis) in self.servers.iter().enumerate() {
            lengths.push(redis.queue_named("bull", &name(queue)).waiting_ids().await.len());
        }
        lengths
    }

    /// The notes of `/readyz` about degraded parts; fails unless it answers 200.
    async fn degraded(&self) -> Vec<String> {
        let (status, report) = self.app.hookgate.readiness().await;
        assert_eq!(status, 200, "{report}");
        serde_json::from_value(report["degraded"].clone()).expect("strings")
    }
}

async fn servers(count: usize) -> Vec<Redis> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Redis::start_durable().await);
    }
    servers
}

/// An app whose queues are on these servers.
fn build(servers: &[Redis]) -> Builder {
    build_at(servers.iter().map(Redis::url))
}

/// An app whose queues have these addresses.
fn build_at(addresses: impl IntoIterator<Item = String>) -> Builder {
    App::build().documents(documents()).config(|config| {
        set_shards(config, shards_at(addresses));
        config.set("endpoints.enabled", true);
    })
}

/// The address, prefix and name of a queue.
type Shard = [String; 3];

/// A queue for each of these addresses.
fn shards_at(addresses: impl IntoIterator<Item = String>) -> impl Iterator<Item = Shard> {
    let addresses = addresses.into_iter().enumerate();
    addresses.map(|(queue, address)| [address, "bull".to_owned(), name(queue)])
}

fn set_shards(config: &mut Config, shards: impl IntoIterator<Item = Shard>) {
    let shard = |values: Shard| {
        let members = ["redis", "prefix", "name"].map(str::to_owned).into_iter();
        Value::Table(members.zip(values.map(Value::String)).collect::<Table>())
    };
    config.set("queue.shards", shards.into_iter().map(shard).collect::<Vec<Value>>());
}

fn name(queue: usize) -> String {
    format!("workflow-runner-{queue}")
}

/// The last one has an id whose hex digits can be spelled in two ways.
fn organizations() -> Vec<String> {
    let names = (1..ORGANIZATIONS).map(|number| format!("org_{number}"));
    names.chain(["65a1b2c3d4e5f60718293a4b".to_owned()]).collect()
}

fn key(organization: &str) -> String {
    format!("key-of-{organization}")
}

/// One workflow and one user of each organization.
fn documents() -> Documents {
    let node = verified_trigger("n1", "wh", &json!({ "scheme": "github", "secret": SECRET }));
    let each = organizations();
    let workflow = |each: &String| workflow_of(&format!("wf-{each}"), each, json!([node]));
    let user = |each: &String| user(&format!("user-{each}"), each, &key(each));
    Documents {
        workflows: each.iter().map(workflow).collect(),
        users: each.iter().map(user).collect(),
    }
}

/// Runs `hookgate shard` with further arguments.
fn shard(config: &Config, arguments: &[String]) -> Output {
    let files = Scratch::new("shard");
    let file = files.write("hookgate.toml", config.to_string());
    let mut command = command(&["shard", "--config"]);
    command.arg(file).args(arguments).output().expect("the binary runs")
}

/// The number of the queue of each organization, as `hookgate shard` says.
fn places(config: &Config, organizations: &[String]) -> BTreeMap<String, usize> {
    let output = shard(config, organizations);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let place = |line: &str| {
        let (organization, queue) = line.split_once('\t').expect("a tab");
        let number = queue.rsplit_once('-').expect("a number").1.parse().expect("a number");
        assert_eq!(queue, name(number));
        (organization.to_owned(), number)
    };
    lines.lines().map(place).collect()
}

fn organization_of(job: &serde_json::Value) -> &str {
    job["data"]["organizationId"].as_str().expect("an organization")
}
