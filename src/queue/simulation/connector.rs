//! The simulated network in the place of fred.

use crate::queue::redis::transport::{
    Command as TransportCommand, Connecting, Connector, Driver, Reply, Target, Transport,
};
use crate::queue::simulation::link::{Link, Sent, Turn};
use crate::queue::simulation::server::Command;
use crate::queue::simulation::trace::Kind;
use crate::queue::simulation::world::SharedWorld;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use std::fmt;
use std::sync::Arc;

/// Opens connections to the servers of a run.
pub(super) struct SimulatedConnector(pub(super) SharedWorld);

impl fmt::Debug for SimulatedConnector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SimulatedConnector")
    }
}

impl Connector for SimulatedConnector {
    fn connect<'a>(&'a self, _: Target<'a>) -> Connecting<'a> {
        Box::pin(async move {
            let (travel, is_refused) = {
                let mut world = self.0.lock();
                let chance = world.plan.faults.connect_refused;
                (world.milliseconds(3), world.chance(chance))
            };
            tokio::time::sleep(travel).await;
            let mut world = self.0.lock();
            if is_refused {
                world.trace.note(Kind::ConnectRefused, format_args!(""));
                return Err(Error::new(ErrorKind::IO, "connection refused"));
            }
            let server = world.choose_server();
            let (id, incarnation) = (world.links.len(), world.servers[server].incarnation);
            world.trace.note(Kind::Connected, format_args!("{id} to {server}"));
            world.links.push(Link::new(server, incarnation));
            drop(world);
            let wire = Wire { world: Arc::clone(&self.0), id };
            let transport: Box<dyn Transport> =
                Box::new(SimulatedTransport { world: Arc::clone(&self.0), id });
            Ok((transport, Driver::new(tokio::spawn(wire.run()))))
        })
    }
}

struct SimulatedTransport {
    world: SharedWorld,
    id: usize,
}

impl fmt::Debug for SimulatedTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimulatedTransport({})", self.id)
    }
}

impl Transport for SimulatedTransport {
    fn send(&self, name: &'static str, arguments: Vec<Value>) -> Reply<'_> {
        let bytes = |value: Value| value.into_bytes().expect("every argument is a string");
        let arguments = arguments.into_iter().map(bytes).collect();
        Box::pin(async move {
            let command = Command::new(name, arguments);
            let sent = self.world.lock().send(self.id, command);
            match sent {
                Sent::Awaited(reply) => reply
                    .await
                    .unwrap_or_else(|_| Err(Error::new(ErrorKind::IO, "connection closed"))),
                Sent::NotWritten => Err(Error::new(ErrorKind::Canceled, "not written")),
                Sent::Kept => std::future::pending().await,
            }
        })
    }

    fn transaction(&self, commands: Vec<TransportCommand>) -> Reply<'_> {
        let (name, arguments) = inlined(commands);
        self.send(name, arguments)
    }

    fn server(&self) -> String {
        format!("server-{}:6379", self.world.lock().links[self.id].server)
    }
}

/// The task of a connection. Dropping it closes the connection.
struct Wire {
    world: SharedWorld,
    id: usize,
}

impl Wire {
    async fn run(self) -> Result<(), Error> {
        let wake = Arc::clone(&self.world.lock().links[self.id].wake);
        loop {
            let turn = self.world.lock().turn(self.id);
            match turn {
                Turn::Ended(error) => return Err(error),
                Turn::Until(at) => {
                    let _ = tokio::time::timeout_at(at, wake.notified()).await;
                }
                Turn::Idle => wake.notified().await,
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.world.lock().close(self.id);
    }
}

/// The script of a transaction, with the data of staged hashes in place of their names. A
/// transaction is executed as a whole, so its commands need no events of their own.
fn inlined(mut commands: Vec<TransportCommand>) -> TransportCommand {
    let (name, mut script) = commands.pop().expect("a transaction ends with the script");
    for (_, hash) in commands.into_iter().filter(|(name, _)| *name == "HSET") {
        let [key, _, _, _, data, ..] = &*hash else { panic!("not a staged hash") };
        let at = script.windows(2).position(|pair| pair[0] == *key && is_empty(&pair[1]));
        let at = at.expect("the script has the staged hash");
        script.swap(at, at + 1);
        script[at + 1] = data.clone();
    }
    (name, script)
}

fn is_empty(value: &Value) -> bool {
    value.as_bytes().is_some_and(<[u8]>::is_empty)
}
