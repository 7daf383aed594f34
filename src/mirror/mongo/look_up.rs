//! Parsing an address for the driver. A mongodb+srv name is looked up.

use crate::files::file_access;
use crate::mirror::mongo::reason::reason;
use crate::settings::Secret;
use mongodb::options::ClientOptions;
use std::path::Path;
use std::time::Duration;

/// The configuration of the resolver. The driver reads it.
const RESOLVER: &str = "/etc/resolv.conf";

/// How long a lookup may take. The resolver queries each name server more than once.
const LOOK_UP_LIMIT: Duration = Duration::from_mins(1);

/// Parses an address into the driver's options. For mongodb+srv, the driver reads the resolver's
/// configuration on the calling thread, so this runs on another thread.
pub(super) async fn look_up(uri: Secret) -> Result<ClientOptions, String> {
    let parsed = if uri.reveal().starts_with("mongodb+srv://") {
        let parse = move || {
            file_access::enter(Path::new(RESOLVER));
            // A separate runtime: the runtime of the process may shut down during the lookup.
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
