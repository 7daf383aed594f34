//! Finds and connects to the node of a cluster that has the slot of a queue.
//!
//! fred's own client of a cluster connects to every primary, and ends all connections if it loses
//! one: a primary that fails would stop the queues on all others. So the map of slots is read from
//! one node, and the connection is one to a single server. If the slot moves, that server says so,
//! and the connection is replaced.

use crate::queue::redis::fred_client;
use crate::queue::redis::reply::is_reply;
use crate::queue::redis::transport::Driver;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::prelude::{Client, Config};
use fred::types::config::{Server, ServerConfig};
use fred::types::{ClusterHash, CustomCommand, Value};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// Replaces MOVED and ASK, in the format of an error of Redis.
pub(in crate::queue) const SLOT_HAS_MOVED: &str =
    "TRYAGAIN the slot of the queue has moved to another node";
const SLOT_IS_MOVING: &str = "TRYAGAIN the slot of the queue is moving to another node";

/// The number of nodes that can be asked one after another, if none answers in its part of the time.
const TIMES_TO_ASK: usize = 4;

/// The nodes of each cluster, by the nodes that its address names.
///
/// All of those may be gone after a while, because nodes come and go.
#[derive(Debug, Default)]
pub(super) struct KnownNodes(Mutex<BTreeMap<Vec<Server>, Vec<Server>>>);

impl KnownNodes {
    /// All known nodes of a cluster, and then those of its address. Begins with another one each
    /// time, because one may be down or no longer part of the cluster.
    pub(super) fn next(&self, named: &[Server]) -> Vec<Server> {
        let mut clusters = self.0.lock();
        let nodes = clusters.entry(named.to_vec()).or_insert_with(|| named.to_vec());
        if !nodes.is_empty() {
            nodes.rotate_left(1);
        }
        let others = named.iter().filter(|server| !nodes.contains(server));
        nodes.iter().chain(others).cloned().collect()
    }

    fn set(&self, named: &[Server], nodes: BTreeSet<Server>) {
        let mut clusters = self.0.lock();
        let known = clusters.entry(named.to_vec()).or_default();
        // An order that is kept gives each its turn.
        if known.iter().cloned().collect::<BTreeSet<Server>>() != nodes {
            *known = nodes.into_iter().collect();
        }
    }
}

/// Connects to the primary that has this slot. The caller limits the time of all attempts.
pub(super) async fn open(
    config: &Config,
    slot: u16,
    known: &KnownNodes,
    timeout: Duration,
) -> Result<(Client, Driver), Error> {
    let deadline = Instant::now() + timeout;
    let named = config.server.hosts();
    let mut fault = Error::new(ErrorKind::Cluster, "no node of the cluster has the slot");
    let nodes = known.next(&named);
    for (position, asked) in nodes.iter().enumerate() {
        let time = time_to_ask(deadline, nodes.len() - position);
        match tokio::time::timeout(time, ask(config, asked, timeout)).await.unwrap_or_else(silent) {
            Ok(reply) => {
                let SlotMap { primary, nodes } = SlotMap::read(reply, slot, asked);
                let Some(primary) = primary else { continue };
                known.set(&named, nodes);
                return fred_client::open(of_server(config, &primary), timeout).await;
            }
            // What a node replies says more than that another one cannot be reached.
            Err(error) if is_reply(fault.details()) => drop(error),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// The time for a node to answer, if this many are left to ask.
fn time_to_ask(deadline: Instant, left: usize) -> Duration {
    let parts = u32::try_from(left.clamp(1, TIMES_TO_ASK)).unwrap_or(1);
    deadline.saturating_duration_since(Instant::now()) / parts
}

/// Asks a node for the map of slots.
async fn ask(config: &Config, node: &Server, timeout: Duration) -> Result<Value, Error> {
    let (client, _driver) = fred_client::open(of_server(config, node), timeout).await?;
    let command = CustomCommand::new_static("CLUSTER", ClusterHash::FirstKey, false);
    client.custom(command, vec!["SLOTS"]).await
}

fn silent(_: Elapsed) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::Timeout, "no answer in time"))
}

fn of_server(config: &Config, server: &Server) -> Config {
    let server = ServerConfig::Centralized { server: server.clone() };
    Config { server, ..config.clone() }
}

/// What the reply to CLUSTER SLOTS says.
#[derive(Debug, Default, PartialEq, Eq)]
struct SlotMap {
    /// The primary of the slot of the queue.
    primary: Option<Server>,
    /// All primaries and replicas.
    nodes: BTreeSet<Server>,
}

impl SlotMap {
    /// Each range of slots is its first and last one, its primary and its replicas.
    fn read(reply: Value, slot: u16, asked: &Server) -> Self {
        let mut map = Self::default();
        for range in reply.into_array() {
            let mut parts = range.into_array().into_iter();
            let (first, last) = (parts.next(), parts.next());
            let mut servers = parts.map(|node| server_of(node, asked));
            let Some(Some(primary)) = servers.next() else { continue };
            let bounds = first.and_then(|first| Some((first.as_u64()?, last?.as_u64()?)));
            if bounds.is_some_and(|(first, last)| (first..=last).contains(&u64::from(slot))) {
                map.primary = Some(primary.clone());
            }
            map.nodes.insert(primary);
            map.nodes.extend(servers.flatten());
        }
        map
    }
}

/// A node is its host, its port, its id and further names of it. If it has a host name, that is
/// used, because a certificate seldom names an address. A node that does not know how clients reach
/// it has the host by which it was asked.
fn server_of(node: Value, asked: &Server) -> Option<Server> {
    let mut parts = node.into_array().into_iter();
    let (host, port) = (parts.next()?, parts.next()?.as_u64()?);
    // Redis 6 sends no names.
    let names: Option<BTreeMap<String, String>> =
        parts.nth(1).and_then(|names| names.convert().ok());
    let other = |kind: &str| names.as_ref().and_then(|names| names.get(kind).cloned());
    let hosts = [other("hostname"), host.as_string(), other("ip")];
    let host = hosts.into_iter().flatten().find(|host| !host.is_empty() && host != "?");
    Some(Server::new(host.unwrap_or_else(|| asked.host.to_string()), u16::try_from(port).ok()?))
}

/// The error for a reply that sends the client to another node.
pub(super) fn without_redirection(error: Error) -> Error {
    match error.details().split(' ').next() {
        Some("MOVED") => Error::new(ErrorKind::Cluster, SLOT_HAS_MOVED),
        Some("ASK") => Error::new(ErrorKind::Cluster, SLOT_IS_MOVING),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64, names: &[&str]) -> Value {
        let names = names.iter().map(|&name| name.into()).collect();
        Value::Array(vec![host, port.into(), "id".into(), Value::Array(names)])
    }

    fn range(first: i64, last: i64, nodes: &[Value]) -> Value {
        Value::Array([&[first.into(), last.into()], nodes].concat())
    }

    fn primary(slots: Value, slot: u16) -> Option<String> {
        let map = SlotMap::read(slots, slot, &Server::new("asked", 1));
        map.primary.map(|server| format!("{}:{}", server.host, server.port))
    }

    #[test]
    fn the_primary_of_a_slot_is_found() {
        let ranges = [
            range(0, 9, &[node("a".into(), 1, &[]), node("b".into(), 2, &[])]),
            range(10, 10, &[node("c".into(), 3, &[])]),
        ];
        let slots = || Value::Array(ranges.to_vec());
        for (slot, expected) in [(0, Some("a:1")), (9, Some("a:1")), (10, Some("c:3")), (11, None)]
        {
            assert_eq!(primary(slots(), slot).as_deref(), expected, "{slot}");
        }
        let map = SlotMap::read(slots(), 0, &Server::new("asked", 1));
        assert_eq!(
            map.nodes,
            [("a", 1), ("b", 2), ("c", 3)].map(|(h, p)| Server::new(h, p)).into()
        );
    }

    #[test]
    fn the_host_of_a_node_is_the_best_that_is_known() {
        for (host, names, expected) in [
            ("10.0.0.1".into(), &["hostname", "a.internal"][..], "a.internal:1"),
            ("10.0.0.1".into(), &["hostname", ""], "10.0.0.1:1"),
            ("?".into(), &["ip", "10.0.0.1"], "10.0.0.1:1"),
            ("".into(), &[], "asked:1"),
            (Value::Null, &[], "asked:1"),
        ] {
            let slots = Value::Array(vec![range(0, 1, &[node(host, 1, names)])]);
            assert_eq!(primary(slots, 0).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_reply_of_another_form_has_no_primary() {
        for reply in [Value::Null, "OK".into(), Value::Array(vec![range(0, 1, &[])])] {
            assert_eq!(primary(reply, 0), None);
        }
    }

    #[test]
    fn every_node_has_its_turn_and_those_of_the_address_stay() {
        let server = |host: &str| Server::new(host, 1);
        let (known, named) = (KnownNodes::default(), [server("a"), server("b")]);
        let first = |known: &KnownNodes| known.next(&named).remove(0);
        assert_ne!(first(&known), first(&known));
        for _ in 0..2 {
            known.set(&named, [server("c"), server("d")].into());
        }
        let turns: BTreeSet<Server> = (0..2).map(|_| first(&known)).collect();
        assert_eq!(turns, [server("c"), server("d")].into());
        let all: BTreeSet<Server> = known.next(&named).into_iter().collect();
        assert_eq!(all, ["a", "b", "c", "d"].map(server).into());
    }
}
