//! fred as the transport. It opens the connection and speaks the protocol, including TLS, Sentinel
//! and Cluster. It is used for nothing else. It has no reconnect policy, so it never sends anything
//! twice. Its connection state, limits and timeouts are not used.

use crate::queue::redis::address::host_and_port;
use crate::queue::redis::transport::{
    Command, Connecting, Connector, Driver, Reply, Target, Transport,
};
use fred::error::Error;
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::prelude::{Builder, Client, Config, ConnectionConfig, TcpConfig};
use fred::types::{ClusterHash, CustomCommand, Value};
use std::time::Duration;

/// Opens connections with fred.
#[derive(Debug)]
pub(in crate::queue) struct FredConnector;

impl Connector for FredConnector {
    fn connect<'a>(&'a self, target: Target<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let Target { address, slot, handshake, timeout } = target;
            // Half of the time remains for connecting with the previous authorities if reading a
            // file hangs.
            let config = handshake.config(address, timeout / 2).await?;
            let client = client(config, timeout)?;
            let driver = Driver::new(client.connect());
            client.wait_for_connect().await?;
            let transport: Box<dyn Transport> = Box::new(FredTransport { client, slot });
            Ok((transport, driver))
        })
    }
}

/// One client of fred, which is one connection.
#[derive(Debug)]
struct FredTransport {
    client: Client,
    slot: u16,
}

impl FredTransport {
    fn command(&self, name: &'static str) -> CustomCommand {
        CustomCommand::new_static(name, ClusterHash::Custom(self.slot), false)
    }
}

impl Transport for FredTransport {
    /// In a cluster the command goes to the node that has the slot of the queue. fred's own methods
    /// for scripts are not used, because they ignore their options.
    fn send(&self, name: &'static str, arguments: Vec<Value>) -> Reply<'_> {
        // Boxed, because fred's future has about ten kilobytes, which would be moved with others.
        Box::pin(self.client.custom(self.command(name), arguments))
    }

    /// A pipeline reaches Redis without commands of others in between. fred's own transactions wait
    /// for the replies of all earlier commands before they begin.
    fn transaction(&self, commands: Vec<Command>) -> Reply<'_> {
        let pipeline = self.client.pipeline();
        let begin = std::iter::once(("MULTI", Vec::new()));
        let all = begin.chain(commands).chain(std::iter::once(("EXEC", Vec::new())));
        Box::pin(async move {
            for (name, arguments) in all {
                let _: Value = pipeline.custom(self.command(name), arguments).await?;
            }
            reply_of_last(pipeline.try_all().await)
        })
    }

    /// In a cluster it is the node with the slot of the queue; with Sentinel it is the primary.
    fn server(&self) -> String {
        let cluster = self.client.cached_cluster_state();
        let node = cluster.and_then(|cluster| cluster.get_server(self.slot).cloned());
        let server = node.or_else(|| self.client.active_connections().into_iter().next());
        server.map_or_else(|| "unknown".to_owned(), |server| host_and_port(&server))
    }
}

/// The reply of the last command of a transaction, from the replies to all that was sent. If Redis
/// has refused a command, EXEC reports only that. Null if these are not the replies to a
/// transaction.
fn reply_of_last(mut replies: Vec<Result<Value, Error>>) -> Result<Value, Error> {
    match replies.pop() {
        Some(Ok(Value::Array(mut executed))) => Ok(executed.pop().unwrap_or(Value::Null)),
        Some(Err(error)) if error.details().starts_with("EXECABORT") => {
            Err(replies.into_iter().find_map(Result::err).unwrap_or(error))
        }
        Some(Err(error)) => Err(error),
        Some(Ok(_)) | None => Ok(Value::Null),
    }
}

/// Creates a client that connects once.
fn client(config: Config, timeout: Duration) -> Result<Client, Error> {
    let connection = ConnectionConfig {
        connection_timeout: timeout,
        internal_command_timeout: timeout,
        max_command_attempts: 1,
        // fred would follow a redirection to a node that it is not connected to, and close the
        // connection there. It still updates its map of slots after MOVED.
        max_redirections: 0,
        tcp: TcpConfig {
            nodelay: Some(true),
            // Unsent data in the socket of a closed connection must not reach Redis later.
            linger: Some(Duration::ZERO),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    Builder::from_config(config).set_connection_config(connection).build()
}
