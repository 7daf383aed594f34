//! What a queue and its server are, for the status page.

use crate::queue::parts::QueueParts;
use crate::queue::redis::reconnect::CurrentConnection;
use crate::queue::redis::server_info::ServerSummary;

/// A queue, the connections for its jobs, and its server.
#[derive(Debug, Clone)]
pub struct QueueStatus {
    pub name: String,
    /// Host and port, or the path of a socket, of the server that jobs go to.
    pub address: String,
    /// The server that answered the last health check; `None` if it was not answered.
    pub server: Option<ServerSummary>,
    pub connections: usize,
    pub connections_open: usize,
}

impl QueueParts {
    pub fn status(&self) -> QueueStatus {
        let connections = self.health.connections();
        let address = connections.first().map(CurrentConnection::server);
        QueueStatus {
            name: self.settings.name().to_owned(),
            address: address.unwrap_or_else(|| self.settings.servers()),
            server: self.health.server.lock().clone(),
            connections: connections.len(),
            connections_open: connections.iter().filter(|connection| connection.is_up()).count(),
        }
    }
}
