//! The driver's client.

use crate::mirror::mongo::authorities::Authorities;
use crate::mirror::mongo::look_up::look_up;
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::servers::Servers;
use crate::mirror::mongo::settings::MongoSettings;
use mongodb::Client;
use std::time::Duration;

/// How long a client searches for a server, unless the address sets it. Short, because the follower
/// makes the next attempt itself.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time that the address may set. It is less than the limit of any reply, so that the
/// reason why there is no server is reported and not a timeout.
const LONGEST_SERVER_SELECTION: Duration = Duration::from_secs(7);

/// The database at its address.
#[derive(Debug)]
pub struct Mongo {
    pub(in crate::mirror::mongo) settings: MongoSettings,
}

impl Mongo {
    pub fn new(settings: MongoSettings) -> Self {
        Self { settings }
    }

    /// Makes a client, which connects when it is used.
    ///
    /// Each attempt needs a new client: the driver replaces the hosts of the address by the members
    /// that it has discovered. If all of these are gone, or were of the wrong kind once, a client
    /// never finds another server.
    pub(in crate::mirror::mongo) async fn connect(
        &self,
    ) -> Result<Connected<mongodb::Database>, StreamLoss> {
        // The address has been parsed before, so only the lookup of a mongodb+srv name can fail.
        let mut options = look_up(self.settings.uri.clone()).await.map_err(|reason| {
            StreamLoss::transient(format!(
                "the servers of mongodb.uri cannot be looked up: {reason}"
            ))
        })?;
        options.app_name.get_or_insert_with(|| "hookgate".to_owned());
        let timeout = options.server_selection_timeout.unwrap_or(SERVER_SELECTION_TIMEOUT);
        options.server_selection_timeout = Some(timeout.min(LONGEST_SERVER_SELECTION));
        let servers = Servers::watch(&mut options);
        let authorities =
            Authorities::install(&mut options).await.map_err(StreamLoss::transient)?;
        let client = Client::with_options(options).map_err(StreamLoss::from)?;
        let database = client.database(&self.settings.database);
        Ok(Connected { database, servers, _authorities: authorities })
    }
}

/// A client, its database and what the client needs to live.
#[derive(Debug)]
pub(in crate::mirror::mongo) struct Connected<D> {
    pub(in crate::mirror::mongo) database: D,
    pub(in crate::mirror::mongo) servers: Servers,
    /// The client reads these files whenever it discovers a server.
    pub(in crate::mirror::mongo) _authorities: Option<Authorities>,
}
