//! fred as the transport. It opens the connection and speaks the protocol, including TLS and
//! Sentinel. It is used for nothing else. It has no reconnect policy, so it never sends anything
//! twice. Its connection state, limits and timeouts are not used.

use crate::queue::redis::address::server_name;
use crate::queue::redis::cluster::{self, KnownNodes};
use crate::queue::redis::fred_client;
use crate::queue::redis::reply::is_reply;
use crate::queue::redis::sentinel;
use crate::queue::redis::transport::{Command, Connecting, Connector, Reply, Target, Transport};
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::prelude::{Client, Config};
use fred::types::config::ServerConfig;
use fred::types::{ClusterHash, CustomCommand, Value};

/// Opens connections with fred.
#[derive(Debug, Default)]
pub(in crate::queue) struct FredConnector {
    cluster_nodes: KnownNodes,
    sentinels: KnownNodes,
}

impl Connector for FredConnector {
    fn connect<'a>(&'a self, target: Target<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let Target { address, tls, slot, handshake, timeout } = target;
            // Half of the time remains for connecting with the files that were read last if
            // reading one hangs.
            let config = handshake.config(address, tls, timeout / 2).await?;
            let is_cluster = config.server.is_clustered();
            let opened = if is_cluster {
                cluster::open(&config, slot, &self.cluster_nodes, timeout).await
            } else {
                fred_client::open(self.with_next_sentinel_first(&config), timeout).await
            };
            let (client, driver) = match opened {
                Ok(opened) => opened,
                Err(error) => return Err(sentinel::explain(error, &config, timeout).await),
            };
            set_name(&client).await;
            let transport: Box<dyn Transport> = Box::new(FredTransport { client, is_cluster });
            Ok((transport, driver))
        })
    }
}

impl FredConnector {
    /// fred asks the Sentinels in order, and one that does not answer takes up the time of the whole
    /// attempt to connect. So each attempt begins with another one.
    fn with_next_sentinel_first(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if let ServerConfig::Sentinel { hosts, .. } = &mut config.server {
            *hosts = self.sentinels.next(hosts);
        }
        config
    }
}

/// The name of the connections in CLIENT LIST.
const NAME: &str = "hookgate";

/// Names a connection. Jobs do not need the name, so a refusal has no effect. If the connection is
/// lost here, its next command fails.
async fn set_name(client: &Client) {
    let arguments: Vec<Value> = vec!["SETNAME".into(), NAME.into()];
    let _: Result<Value, Error> = client.custom(command("CLIENT"), arguments).await;
}

/// One client of fred, which is one connection.
#[derive(Debug)]
struct FredTransport {
    client: Client,
    /// Whether the server is the node of a cluster that has the slot of the queue.
    is_cluster: bool,
}

impl FredTransport {
    fn reply(&self, reply: Result<Value, Error>) -> Result<Value, Error> {
        if self.is_cluster { reply.map_err(cluster::without_redirection) } else { reply }
    }
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

impl Transport for FredTransport {
    /// fred's own methods for scripts are not used, because they ignore their options.
    fn send(&self, name: &'static str, arguments: Vec<Value>) -> Reply<'_> {
        // Boxed, because fred's future has about ten kilobytes, which would be moved with others.
        let sent = Box::pin(self.client.custom(command(name), arguments));
        if !self.is_cluster {
            return sent;
        }
        Box::pin(async move { self.reply(sent.await) })
    }

    /// A pipeline reaches Redis without commands of others in between. fred's own transactions wait
    /// for the replies of all earlier commands before they begin.
    fn transaction(&self, commands: Vec<Command>) -> Reply<'_> {
        let pipeline = self.client.pipeline();
        let begin = std::iter::once(("MULTI", Vec::new()));
        let all = begin.chain(commands).chain(std::iter::once(("EXEC", Vec::new())));
        Box::pin(async move {
            for (name, arguments) in all {
                let _: Value = pipeline.custom(command(name), arguments).await?;
            }
            self.reply(reply_of_last(pipeline.try_all().await))
        })
    }

    /// In a cluster it is the node with the slot of the queue; with Sentinel it is the primary.
    fn server(&self) -> String {
        let server = self.client.active_connections().into_iter().next();
        server.map_or_else(|| "unknown".to_owned(), |server| server_name(&server))
    }
}

/// What Redis writes before the reason if it discards a transaction only at EXEC.
const DISCARDED: &str = "EXECABORT Transaction discarded because of: ";

/// The reply of the last command of a transaction, from the replies to all that was sent: MULTI, the
/// commands and EXEC. Null if it is not known.
fn reply_of_last(mut replies: Vec<Result<Value, Error>>) -> Result<Value, Error> {
    let exec = replies.pop().unwrap_or(Ok(Value::Null));
    if is_refused(replies.first()) {
        // Redis has executed the commands one by one.
        return replies.pop().unwrap_or(Ok(Value::Null));
    }
    match exec {
        Ok(Value::Array(mut executed)) => Ok(executed.pop().unwrap_or(Value::Null)),
        Ok(_) => Ok(Value::Null),
        // EXEC reports only the first error of its commands, which need not be that of the last.
        Err(error) if error.details().contains("ACLs rules changed") => Ok(Value::Null),
        Err(error) => match error.details().strip_prefix(DISCARDED) {
            Some(reason) => Err(Error::new(error.kind().clone(), reason.to_owned())),
            None if error.details().starts_with("EXECABORT") => {
                Err(replies.into_iter().find_map(Result::err).unwrap_or(error))
            }
            None => Err(error),
        },
    }
}

/// Whether Redis has replied with an error, so that the connection is not lost.
fn is_refused(reply: Option<&Result<Value, Error>>) -> bool {
    let error = reply.and_then(|reply| reply.as_ref().err());
    error.is_some_and(|error| is_reply(error.details()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fred::error::ErrorKind;
    use std::collections::BTreeSet;

    fn refused(details: &'static str) -> Result<Value, Error> {
        Err(Error::new(ErrorKind::Unknown, details))
    }

    /// The reply of a transaction to which these are the replies.
    fn last(replies: Vec<Result<Value, Error>>) -> Result<Value, String> {
        reply_of_last(replies).map_err(|error| error.details().to_owned())
    }

    #[test]
    fn each_attempt_begins_with_another_sentinel() {
        let connector = FredConnector::default();
        let config =
            Config::from_url("redis-sentinel://a:1/0?sentinelServiceName=m&node=b:2&node=c:3");
        let config = config.expect("an address");
        let mut asked = BTreeSet::new();
        for _ in 0..3 {
            let hosts = connector.with_next_sentinel_first(&config).server.hosts();
            assert_eq!(hosts.len(), 3);
            asked.extend(hosts.into_iter().next());
        }
        assert_eq!(asked.len(), 3, "{asked:?}");
    }

    #[test]
    fn the_reply_of_the_last_command_is_found() {
        let (ok, queued) = (|| Ok("OK".into()), || Ok(Value::Queued));
        let executed = || Ok(Value::Array(vec![6.into(), 1.into(), "1 17 *".into()]));
        let all = vec![ok(), queued(), queued(), queued(), executed()];
        assert_eq!(last(all), Ok("1 17 *".into()));
        let of_another = vec![ok(), queued(), queued(), queued(), Ok("1 17 *".into())];
        assert_eq!(last(of_another), Ok(Value::Null));
        assert_eq!(last(Vec::new()), Ok(Value::Null));
    }

    #[test]
    fn the_reason_of_a_discarded_transaction_is_found() {
        let (ok, queued) = (|| Ok("OK".into()), || Ok(Value::Queued));
        let full = || refused("OOM command not allowed");
        let aborted = || refused("EXECABORT Transaction discarded because of previous errors.");
        let at_once = vec![ok(), full(), queued(), queued(), aborted()];
        assert_eq!(last(at_once), Err("OOM command not allowed".to_owned()));
        let demoted = refused("EXECABORT Transaction discarded because of: READONLY You can't");
        let at_exec = vec![ok(), queued(), queued(), queued(), demoted];
        assert_eq!(last(at_exec), Err("READONLY You can't".to_owned()));
    }

    #[test]
    fn commands_after_a_refused_multi_are_executed_one_by_one() {
        let no_multi = || refused("NOPERM this user has no permissions to run the 'multi' command");
        let without = || refused("ERR EXEC without MULTI");
        let added = vec![no_multi(), Ok(6.into()), Ok(1.into()), Ok("1 17 *".into()), without()];
        assert_eq!(last(added), Ok("1 17 *".into()));
    }

    #[test]
    fn a_change_of_rights_during_a_transaction_leaves_its_reply_unknown() {
        let changed = refused("NOPERM ACLs rules changed between the moment the transaction was");
        let replies = vec![Ok("OK".into()), Ok(Value::Queued), Ok(Value::Queued), changed];
        assert_eq!(last(replies), Ok(Value::Null));
    }
}
