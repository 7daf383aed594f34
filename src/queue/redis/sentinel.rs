//! Why no primary is found through Sentinel.
//!
//! fred tries each Sentinel and drops the errors: "Failed to connect to all sentinel nodes" stands
//! for a wrong password, a missing authority and an unreachable host alike. So after a failure each
//! Sentinel is connected to like a server and asked again.

use crate::queue::redis::address::server_name;
use crate::queue::redis::fred_client;
use crate::queue::redis::reason::reason;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::prelude::Config;
use fred::types::config::ServerConfig;
use fred::types::{ClusterHash, CustomCommand, Value};
use std::time::Duration;

/// The error with its reason, if Sentinel is the reason. The Sentinels are asked one after another;
/// the caller limits the time of all.
pub(super) async fn explain(error: Error, config: &Config, timeout: Duration) -> Error {
    let ServerConfig::Sentinel { hosts, service_name, username, password } = &config.server else {
        return error;
    };
    let mut first = None;
    for host in hosts {
        let config = Config {
            server: ServerConfig::Centralized { server: host.clone() },
            username: username.clone(),
            password: password.clone(),
            database: None,
            credential_provider: None,
            ..config.clone()
        };
        // If one Sentinel works, the primary is the reason.
        let Some(fault) = fault(config, service_name, timeout).await else { return error };
        first.get_or_insert_with(|| format!("Sentinel {}: {fault}", server_name(host)));
    }
    first.map_or(error, |details| Error::new(ErrorKind::Sentinel, details))
}

/// What is wrong with a Sentinel, if anything is.
async fn fault(config: Config, service_name: &str, timeout: Duration) -> Option<String> {
    let (client, driver) = match fred_client::open(config, timeout).await {
        Ok(opened) => opened,
        Err(error) => return Some(reason(&error)),
    };
    let query = vec![Value::from("GET-MASTER-ADDR-BY-NAME"), Value::from(service_name)];
    let command = CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
    let found: Result<Value, Error> = client.custom(command, query).await;
    drop(driver);
    match found {
        Ok(Value::Null) => Some("knows no primary of the name in sentinelServiceName".to_owned()),
        Ok(_) => None,
        Err(error) => Some(reason(&error)),
    }
}
