//! The sections `[[queue.shards]]` and `[queue.sharding]`.

use crate::ids::OrganizationId;
use crate::queue::bullmq::keys::QueueKeys;
use crate::queue::redis::address_setting::RedisServer;
use crate::queue::sharding::shard_map::{Pin, Shard, ShardMap};
use crate::settings::Section;
use std::collections::BTreeSet;
use toml::Value;

const MAX_WEIGHT: usize = 100;

/// A section `[[queue.shards]]`. What it leaves out is that of `[queue]`.
#[derive(Debug, Clone)]
pub(in crate::queue) struct ShardSettings {
    pub(in crate::queue) server: RedisServer,
    pub(in crate::queue) queue: QueueKeys,
    weight: u32,
}

/// The sections `[[queue.shards]]` and `[queue.sharding]`.
#[derive(Debug, Clone, Default)]
pub(in crate::queue) struct ShardingSettings {
    /// Empty if the only queue is that of `[queue]`.
    pub(in crate::queue) shards: Vec<ShardSettings>,
    pins: Vec<Pin>,
}

impl ShardingSettings {
    /// Reads both from `[queue]`, whose own values are the defaults of each shard.
    pub(in crate::queue) fn read(
        section: &mut Section<'_>,
        server: &RedisServer,
        queue: &QueueKeys,
    ) -> Self {
        let count = section.tables("shards");
        let mut shards: Vec<ShardSettings> = Vec::with_capacity(count);
        let mut names = BTreeSet::new();
        let mut sections = section.section("shards");
        for number in 0..count {
            let shard =
                ShardSettings::read(&mut sections.section(&number.to_string()), server, queue);
            // Names that differ make keys that differ, so no queue is that of two shards.
            if !names.insert(shard.queue.name().to_owned()) {
                let message = format!("{:?} is the name of two shards", shard.queue.name());
                sections.fault(&format!("{number}.name"), message);
            }
            if let Some(other) = shards.iter().position(|other| shard.has_slot_of(other)) {
                let message = format!(
                    "is in the slot of queue.shards.{other} on the same cluster, so both are on one core; use another hash tag"
                );
                sections.warning(&format!("{number}.prefix"), message);
            }
            shards.push(shard);
        }
        server.check_as_default(section, shards.iter().map(|shard| &shard.server));
        if names.is_empty() {
            names.insert(queue.name().to_owned());
        }
        let pins = read_pins(&mut section.section("sharding"), &names);
        Self { shards, pins }
    }

    /// The map of the queues in the order of the configuration.
    pub(in crate::queue) fn map(&self) -> ShardMap {
        let shard = |ShardSettings { queue, weight, .. }: &ShardSettings| Shard {
            name: queue.name().to_owned(),
            weight: *weight,
        };
        let shards: Vec<Shard> = self.shards.iter().map(shard).collect();
        ShardMap::new(&shards, &self.pins)
    }
}

impl ShardSettings {
    fn read(section: &mut Section<'_>, server: &RedisServer, queue: &QueueKeys) -> Self {
        let server = RedisServer::read_shard(section, server);
        let queue = QueueKeys::read(section, queue);
        queue.check_cluster(section, &server);
        let weight = section.count("weight", 1, 1..=MAX_WEIGHT);
        Self { server, queue, weight: u32::try_from(weight).unwrap_or(1) }
    }

    /// Whether both are in one slot of one cluster.
    fn has_slot_of(&self, other: &Self) -> bool {
        self.queue.slot() == other.queue.slot() && self.server.is_cluster_of(&other.server)
    }
}

/// Reads `pin`: a table of organizations and names of shards.
fn read_pins(section: &mut Section<'_>, names: &BTreeSet<String>) -> Vec<Pin> {
    let Some(value) = section.whole_table("pin") else { return Vec::new() };
    let Value::Table(members) = value else {
        section.fault("pin", "not a table of organizations and the names of their shards");
        return Vec::new();
    };
    let mut pins: Vec<Pin> = Vec::with_capacity(members.len());
    for (organization, shard) in members {
        match read_pin(&organization, &shard, names) {
            Ok(pin) if pins.iter().any(|other| other.organization == pin.organization) => {
                section.fault("pin", format!("names {organization:?} twice"));
            }
            Ok(pin) => pins.push(pin),
            Err(message) => section.fault("pin", format!("{organization:?}: {message}")),
        }
    }
    pins
}

fn read_pin(organization: &str, shard: &Value, names: &BTreeSet<String>) -> Result<Pin, String> {
    let shard = shard.as_str().ok_or("the name of its shard is not a string")?.to_owned();
    let organization = OrganizationId::new(organization).map_err(|error| error.to_string())?;
    if names.contains(&shard) {
        return Ok(Pin { organization, shard });
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(format!("no shard has the name {shard:?}; the names are {}", names.join(", ")))
}
