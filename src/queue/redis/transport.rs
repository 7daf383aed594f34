//! What carries commands to Redis. Outside of tests it is fred. The simulation of the queue puts
//! its own network and its own Redis here.

use crate::queue::redis::handshake::Handshake;
use crate::queue::redis::tls::RedisTls;
use crate::settings::Secret;
use fred::error::Error;
use fred::types::Value;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The task that owns the socket of a connection. It ends with the connection. Dropping the handle
/// closes the connection.
pub(in crate::queue) type Driver = AbortOnDropHandle<Result<(), Error>>;

pub(in crate::queue) type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Box<dyn Transport>, Driver), Error>> + Send + 'a>>;

pub(in crate::queue) type Reply<'a> =
    Pin<Box<dyn Future<Output = Result<Value, Error>> + Send + 'a>>;

/// A command and its arguments.
pub(in crate::queue) type Command = (&'static str, Vec<Value>);

/// Opens connections.
pub(in crate::queue) trait Connector: Debug + Send + Sync {
    fn connect<'a>(&'a self, target: Target<'a>) -> Connecting<'a>;
}

/// An open connection. It sends nothing twice.
pub(in crate::queue) trait Transport: Debug + Send + Sync {
    /// Sends a command unchanged, and waits for its reply. A command whose reply is no longer
    /// awaited may be executed nevertheless.
    fn send(&self, name: &'static str, arguments: Vec<Value>) -> Reply<'_>;

    /// Sends commands as one transaction, and waits for the reply of the last. Redis executes all of
    /// them or none. If Redis refuses one, its error is the reply.
    fn transaction(&self, commands: Vec<Command>) -> Reply<'_>;

    /// Host and port of the server that has the queue, or the path of its socket.
    fn server(&self) -> String;
}

/// What to connect to, and how.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct Target<'a> {
    pub(in crate::queue) address: &'a Secret,
    pub(in crate::queue) tls: &'a RedisTls,
    /// The slot of the queue's keys in a cluster.
    pub(in crate::queue) slot: u16,
    pub(in crate::queue) handshake: Handshake,
    pub(in crate::queue) timeout: Duration,
}
