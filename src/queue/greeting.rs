//! What fred sends on a new connection before anything of ours: PING, or AUTH if there is a password, SELECT, CLIENT ID,
//! INFO, and to a cluster CLUSTER INFO. It goes on without CLIENT ID and INFO, but a refusal of any other ends the
//! connection, and a server may have PING and SELECT switched off. So SELECT is left out where it is not needed, and PING where it
//! is refused.

use super::address;
use crate::settings::Secret;
use fred::error::Error;
use fred::prelude::Config;
use fred::types::config::{CredentialProvider, Server, ServerConfig};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// As fred has it. PING finds at once that a server is loading, or has no room for one more connection.
    Usual,
    WithoutPing,
}

impl Greeting {
    /// What is connected to by this address, and how. Files for TLS have so long to be read.
    pub(super) async fn config(
        self,
        address: &Secret,
        patience: Duration,
    ) -> Result<Config, Error> {
        let mut config = address::config(address, patience).await?;
        // Every connection begins with this database.
        config.database = config.database.filter(|&database| database != 0);
        if self == Self::WithoutPing && config.password.is_none() {
            config.credential_provider = Some(Arc::new(NoPassword::new(&config.server)));
        }
        Ok(config)
    }
}

/// Whether a connection has failed for PING alone. There is no PING where there is a password.
pub(super) fn is_ping_refused(error: &Error) -> bool {
    let details = error.details().to_ascii_uppercase();
    let is_refused = details.starts_with("ERR UNKNOWN COMMAND") || details.starts_with("NOPERM");
    is_refused && details.contains("PING")
}

/// fred asks a credential provider instead of sending PING; this one may return none.
#[derive(Debug)]
struct NoPassword {
    /// These have credentials of their own, for which fred asks here as well.
    sentinels: Vec<Server>,
    of_sentinels: Credentials,
}

/// User and password.
type Credentials = (Option<String>, Option<String>);

impl NoPassword {
    fn new(server: &ServerConfig) -> Self {
        match server {
            ServerConfig::Sentinel { hosts, username, password, .. } => Self {
                sentinels: hosts.clone(),
                of_sentinels: (username.clone(), password.clone()),
            },
            _ => Self { sentinels: Vec::new(), of_sentinels: (None, None) },
        }
    }

    fn credentials(&self, server: Option<&Server>) -> Credentials {
        let is_sentinel = server.is_some_and(|server| self.sentinels.contains(server));
        if is_sentinel { self.of_sentinels.clone() } else { (None, None) }
    }
}

impl CredentialProvider for NoPassword {
    // As the macro of fred's trait writes it.
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
