//! A client of fred that connects once and never sends anything twice.

use crate::queue::redis::transport::Driver;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::prelude::{Builder, Client, Config, ConnectionConfig, TcpConfig};
use std::time::Duration;

/// Opens a connection.
pub(super) async fn open(config: Config, timeout: Duration) -> Result<(Client, Driver), Error> {
    let client = client(config, timeout)?;
    let driver = Driver::new(client.connect());
    client.wait_for_connect().await?;
    Ok((client, driver))
}

fn client(config: Config, timeout: Duration) -> Result<Client, Error> {
    let connection = ConnectionConfig {
        connection_timeout: timeout,
        internal_command_timeout: timeout,
        max_command_attempts: 1,
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
