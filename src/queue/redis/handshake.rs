//! The handshake that fred makes on a new connection: PING, or AUTH if there is a password; SELECT;
//! CLIENT ID; INFO. A node of a cluster is connected to like a single server. CLIENT SETNAME follows,
//! outside of fred's handshake, in which its refusal would end the connection.
//!
//! fred tolerates a refusal of CLIENT ID and INFO. A refusal of any other command ends the
//! connection, and a server may have PING and SELECT disabled. So SELECT is omitted if it is not
//! needed, and PING if it is refused.

use crate::queue::redis::address;
use crate::queue::redis::tls::RedisTls;
use crate::settings::Secret;
use fred::error::Error;
use fred::prelude::Config;
use fred::types::config::{CredentialProvider, Server, ServerConfig};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The variant of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Handshake {
    /// fred's usual handshake. PING detects at once that a server is loading or has no room for
    /// another connection.
    Usual,
    WithoutPing,
}

impl Handshake {
    /// fred's configuration for this address. The files for TLS are read within `timeout`.
    pub(in crate::queue) async fn config(
        self,
        address: &Secret,
        tls: &RedisTls,
        timeout: Duration,
    ) -> Result<Config, Error> {
        let mut config = address::config(address, tls, timeout).await?;
        // Every connection starts with database 0, so SELECT is not needed for it.
        config.database = config.database.filter(|&database| database != 0);
        if self == Self::WithoutPing && config.password.is_none() {
            config.credential_provider = Some(Arc::new(NoPassword::new(&config.server)));
        }
        Ok(config)
    }
}

/// Whether a connection has failed only because PING is refused. With a password fred sends no
/// PING.
pub(in crate::queue) fn is_ping_refused(error: &Error) -> bool {
    let details = error.details().to_ascii_uppercase();
    let is_refused = details.starts_with("ERR UNKNOWN COMMAND") || details.starts_with("NOPERM");
    is_refused && details.contains("PING")
}

/// A credential provider without a password. fred sends no PING if there is a credential provider.
#[derive(Debug)]
struct NoPassword {
    /// Sentinels have their own credentials, which fred requests from the same provider.
    sentinels: Vec<Server>,
    sentinel_credentials: Credentials,
}

/// User and password.
type Credentials = (Option<String>, Option<String>);

impl NoPassword {
    fn new(server: &ServerConfig) -> Self {
        match server {
            ServerConfig::Sentinel { hosts, username, password, .. } => Self {
                sentinels: hosts.clone(),
                sentinel_credentials: (username.clone(), password.clone()),
            },
            _ => Self { sentinels: Vec::new(), sentinel_credentials: (None, None) },
        }
    }

    fn credentials(&self, server: Option<&Server>) -> Credentials {
        let is_sentinel = server.is_some_and(|server| self.sentinels.contains(server));
        if is_sentinel { self.sentinel_credentials.clone() } else { (None, None) }
    }
}

impl CredentialProvider for NoPassword {
    // The signature that the macro of fred's trait expands to.
    fn fetch<'a, 'b, 'c>(
        &'a self,
        server: Option<&'b Server>,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, Error>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(std::future::ready(Ok(self.credentials(server))))
    }
}
