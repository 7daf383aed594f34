//! Which servers an address stands for.

use super::reason::reason;
use crate::file_access;
use crate::settings::Secret;
use mongodb::options::ClientOptions;
use std::path::Path;
use std::time::Duration;

/// What names are looked up by.
const RESOLVER: &str = "/etc/resolv.conf";

/// How long looking up a name may take: all its servers are asked more than once.
const LOOK_UP_LIMIT: Duration = Duration::from_mins(1);

/// What the driver makes of an address. For mongodb+srv it reads the configuration of the resolver on the thread that asks.
pub(super) async fn look_up(uri: Secret) -> Result<ClientOptions, String> {
    let parsed = if uri.reveal().starts_with("mongodb+srv://") {
        let parse = move || {
            file_access::enter(Path::new(RESOLVER));
            // One of its own: that of the service may end before the name is found.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(async { ClientOptions::parse(uri.reveal()).await }))
        };
        let parsed = file_access::run_within(LOOK_UP_LIMIT, Path::new(RESOLVER), parse).await;
        parsed.flatten().map_err(|error| error.to_string())?
    } else {
        ClientOptions::parse(uri.reveal()).await
    };
    parsed.map_err(|error| reason(&error))
}
