//! The name of connections in CLIENT LIST, by which an administrator of Redis knows them.

use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::prelude::Client;
use fred::types::{ClusterHash, CustomCommand, Value};

const NAME: &str = "hookgate";

/// Names a connection. It stays without a name if the server has no CLIENT or the user may not use
/// it. If the connection is lost, the next command reports that.
pub(super) async fn set(client: &Client) {
    let command = CustomCommand::new_static("CLIENT", ClusterHash::FirstKey, false);
    let arguments = ["SETNAME", NAME].map(Value::from_static_str).to_vec();
    let named: Result<Value, Error> = client.custom(command, arguments).await;
    if let Err(error) = named {
        tracing::debug!(reason = error.details(), "the connection to Redis has no name");
    }
}
