//! Following a collection of MongoDB without a gap.
//!
//! Note the cluster's operation time, open a change stream from there, *then* read the collection,
//! then apply the stream: nothing between is lost, and applying a change twice does no harm. The
//! stream carries keys only; changed documents are fetched, found ones replace what there was and
//! missing ones remove it. Three rules make moves and racing deletions come out right: reads are
//! majority reads from the primary, in a session that has seen the change; one fetch at a time; the
//! records are keyed by `_id`, type included.

mod address;
mod authorities;
mod look_up;
mod options;
mod reason;
mod servers;
mod source;
mod stream;
mod survey;

use super::document::DocumentKey;
use super::{Changes, Mirror, View};
use crate::lifecycle::Condition;
use crate::metrics::LoadReason;
use crate::pause::Pause;
use crate::settings::{Secret, Section};
use address::Address;
use authorities::Authorities;
use bson::{Binary, Bson, RawDocument, Timestamp};
use look_up::look_up;
use mongodb::options::{ConnectionString, HostInfo};
use mongodb::{Client, ClientSession, Database};
use servers::Servers;
use source::{Position, Source};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use stream::{Lost, Replies, Reply, pump};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Replies of the stream that wait to be applied. Beyond it the stream is not read on.
const WAITING_REPLIES: usize = 4;

/// How often it is looked at whether a stream that says nothing has got too old.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Changed documents that are enough for one fetch.
const FETCHED_DOCUMENTS: usize = 1000;

/// How long a client looks for a server, unless the address says otherwise. Short, since trying
/// again is our own affair.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest that the address may say: less than any reply is waited for, so that why there is no server can be told.
const LONGEST_SERVER_SELECTION: Duration = Duration::from_secs(7);

/// How long a reply is waited for to begin with. A server that holds one back may answer everybody else: then the driver waits
/// for ever.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// The limit grows, since a large collection on a slow disk may take so long.
const LONGEST_REPLY_LIMIT: Duration = Duration::from_mins(10);

/// How long a client that gets no further is tried again, where a stream can go on. It knows of more servers than the address
/// may name.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// The section `[mongodb]`.
#[derive(Debug, Clone)]
pub struct MongoSettings {
    uri: Secret,
    database: String,
    /// What of the address is ignored.
    ignored: Vec<String>,
}

impl MongoSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let uri = section.secret("uri", Some("mongodb://127.0.0.1:27017/?replicaSet=rs0"));
        let address = match uri.as_ref().map(Address::read) {
            Some(Ok(address)) => Some(address),
            Some(Err(faults)) => {
                for fault in faults {
                    section.fault("uri", fault);
                }
                None
            }
            None => None,
        };
        let nothing = || Address { uri: Secret::new(String::new()), warnings: Vec::new() };
        let Address { uri, warnings: ignored } = address.unwrap_or_else(nothing);
        let database: String = section.value("database", "tether".to_owned());
        if database.is_empty() {
            section.fault("database", "is empty");
        }
        Self { uri, database, ignored }
    }

    /// Says in the log what is worth a look in them.
    pub fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    /// What is worth a look in them.
    pub fn warnings(&self) -> Vec<String> {
        self.ignored.iter().map(|ignored| format!("mongodb.uri: {ignored}")).collect()
    }
}

impl MongoSettings {
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Hosts and ports of the address, or the name under which they are found; nothing else of it.
    fn servers(&self) -> Option<String> {
        match ConnectionString::parse(self.uri.reveal()).ok()?.host_info {
            HostInfo::HostIdentifiers(hosts) => {
                Some(hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            HostInfo::DnsRecord(name) => Some(name),
            _ => None,
        }
    }
}

/// The database by its address.
#[derive(Debug)]
pub struct Mongo {
    settings: MongoSettings,
}

impl Mongo {
    pub fn new(settings: MongoSettings) -> Self {
        Self { settings }
    }

    /// The database of a new client, which connects when it is used. A client forgets the address over what it has learnt
    /// of the servers: when all of those are gone, or were of the wrong kind once, it never finds another.
    async fn connect(&self) -> Result<Connected, Lost> {
        // It was parsed before; what is left to fail is looking up the name of mongodb+srv.
        let mut options = look_up(self.settings.uri.clone()).await.map_err(|reason| {
            Lost::passing(format!("the servers of mongodb.uri cannot be looked up: {reason}"))
        })?;
        options.app_name.get_or_insert_with(|| "hookgate".to_owned());
        let patience = options.server_selection_timeout.unwrap_or(SERVER_SELECTION_TIMEOUT);
        options.server_selection_timeout = Some(patience.min(LONGEST_SERVER_SELECTION));
        let servers = Servers::watch(&mut options);
        let authorities = Authorities::put_into(&mut options).await.map_err(Lost::passing)?;
        let client = Client::with_options(options).map_err(Lost::from)?;
        let database = client.database(&self.settings.database);
        Ok(Connected { database, servers, _authorities: authorities })
    }
}

/// A client that is in use, for its database.
#[derive(Debug)]
struct Connected {
    database: Database,
    servers: Servers,
    /// The client reads them when it meets another server.
    _authorities: Option<Authorities>,
}

/// Keeps a mirror as the collection is. Never ends.
pub async fn follow<V: View>(mongo: Arc<Mongo>, collection: String, mut mirror: Mirror<V>) {
    let mut line = Line {
        mongo,
        collection,
        connected: None,
        place: None,
        uuid: None,
        has_advanced: false,
        reason: LoadReason::Start,
        limit: REPLY_LIMIT,
    };
    let mut pause = Pause::default();
    let mut advanced_at = Instant::now();
    loop {
        line.has_advanced = false;
        let Err(lost) = line.follow(&mut mirror).await;
        let lost = lost.with_servers(line.connected.as_ref());
        if !lost.is_passing {
            line.place = None;
        }
        if line.has_advanced {
            advanced_at = Instant::now();
            line.limit = REPLY_LIMIT;
            pause.reset();
        } else {
            line.limit = (line.limit * 2).min(LONGEST_REPLY_LIMIT);
        }
        if line.place.is_none() || advanced_at.elapsed() > CLIENT_PATIENCE {
            line.connected = None;
        }
        if line.has_advanced && line.place.is_some() {
            // Nobody need know of it, if the next attempt succeeds.
            tracing::debug!(collection = line.collection, reason = lost.reason, "interrupted");
        } else {
            mirror.report(not_followed(&mirror, &lost));
        }
        pause.wait().await;
    }
}

fn not_followed<V: View>(mirror: &Mirror<V>, lost: &Lost) -> Condition {
    if mirror.freshness.is_loaded() {
        Condition::Degraded(vec![format!("not followed: {}", lost.reason)])
    } else {
        Condition::NotReady(format!("not loaded: {}", lost.reason))
    }
}

/// What outlives a stream.
struct Line {
    mongo: Arc<Mongo>,
    collection: String,
    connected: Option<Connected>,
    /// Where the next stream goes on: behind all that has been applied. `None`: everything has to be loaded.
    place: Option<Position>,
    /// Of the collection that is followed, if known. A stream can be resumed on a server that has been set up again, whose
    /// collection of the same name has other documents.
    uuid: Option<Binary>,
    /// Whether the last stream has told anything.
    has_advanced: bool,
    /// Of the next load.
    reason: LoadReason,
    /// How long a reply is waited for.
    limit: Duration,
}

impl Line {
    /// Loads the collection, unless a stream can go on where the last one was, and follows it until the stream is lost.
    async fn follow<V: View>(&mut self, mirror: &mut Mirror<V>) -> Result<Infallible, Lost> {
        let connected = match &self.connected {
            Some(connected) => connected,
            None => self.connected.insert(self.mongo.connect().await?),
        };
        let source = Source::new(&connected.database, &self.collection, self.limit);
        let begun = Instant::now();
        let mut session = source.session().await?;
        let now = session.operation_time();
        let from = self.place.clone().unwrap_or(Position::Time(now));
        let stream = source.open_stream(&from).await?;
        let (sender, replies) = mpsc::channel(WAITING_REPLIES);
        // It ends when nobody listens to it any more.
        tokio::spawn(pump(source.clone(), stream, from, sender));
        let (exists, uuid) = source.identity(&mut session).await?;
        let is_missing = !exists;
        let caught_up = self.place.is_some();
        // Without a UUID, one that exists may be the same: not every user may ask.
        let is_another = self.uuid.is_some() && uuid != self.uuid && (is_missing || uuid.is_some());
        if caught_up && is_another {
            return Err(Lost::for_good("the collection is not the one that was loaded"));
        }
        self.uuid = uuid;
        if !caught_up {
            source.load(mirror, &mut session, self.reason).await?;
            self.reason = LoadReason::StreamLost;
            mirror.loaded_as_of(begun);
        }
        let (loaded_at, loaded_by) = (session.operation_time(), Instant::now());
        let line = self;
        let follower =
            Follower { source, session, loaded_at, loaded_by, caught_up, is_missing, line };
        follower.run(mirror, replies).await
    }
}

/// Applies what the stream says to a mirror that has been loaded.
struct Follower<'a> {
    source: Source,
    session: ClientSession,
    /// The time of the cluster when the load had ended.
    loaded_at: Option<Timestamp>,
    /// The same by our own clock: what came before may have been said before.
    loaded_by: Instant,
    /// Whether every change up to the end of the load has been applied.
    caught_up: bool,
    is_missing: bool,
    line: &'a mut Line,
}

impl Follower<'_> {
    async fn run<V: View>(
        mut self,
        mirror: &mut Mirror<V>,
        mut replies: Replies,
    ) -> Result<Infallible, Lost> {
        loop {
            match tokio::time::timeout(LOOK_INTERVAL, replies.recv()).await {
                // A stream that says nothing gets old.
                Err(_) if self.caught_up => mirror.report(self.condition()),
                Err(_) => {}
                Ok(None) => return Err(Lost::for_good("the reader of the stream has ended")),
                Ok(Some(reply)) => self.handle(mirror, reply?, &mut replies).await?,
            }
        }
    }

    /// Handles a reply and those that wait behind it, up to one fetch.
    async fn handle<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        mut reply: Reply,
        replies: &mut Replies,
    ) -> Result<(), Lost> {
        let mut changed = self.take(&mut reply);
        let mut lost = None;
        while changed.len() < FETCHED_DOCUMENTS && lost.is_none() {
            match replies.try_recv() {
                Err(_) => break,
                Ok(Err(reason)) => lost = Some(reason),
                Ok(Ok(next)) => {
                    reply = next;
                    changed.extend(self.take(&mut reply));
                }
            }
        }
        if !changed.is_empty() {
            self.apply(mirror, changed).await?;
        }
        if self.is_missing && self.caught_up {
            // A collection may come into being without a document, of which the stream says nothing.
            let exists = self.source.exists(&mut self.session).await;
            self.is_missing = !exists.unwrap_or_default();
        }
        if self.caught_up {
            self.line.place = Some(reply.position);
            self.line.has_advanced = true;
            mirror.current_as_of(reply.as_of);
            mirror.report(self.condition());
        }
        lost.map_or(Ok(()), Err)
    }

    /// Takes the changes out of a reply.
    fn take(&mut self, reply: &mut Reply) -> HashMap<DocumentKey, Bson> {
        let is_behind = match reply.changed_at {
            Some(changed_at) => Some(changed_at) > self.loaded_at,
            None => reply.as_of > self.loaded_by,
        };
        self.caught_up |= is_behind;
        if let Some(time) = reply.changed_at {
            self.session.advance_operation_time(time);
        }
        std::mem::take(&mut reply.changed).into_iter().collect()
    }

    /// Fetches the changed documents and applies them.
    async fn apply<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        mut changed: HashMap<DocumentKey, Bson>,
    ) -> mongodb::error::Result<()> {
        self.is_missing = false;
        let ids = changed.values().cloned().collect();
        let projection = mirror.view().projection();
        let mut outcome: Changes<V> = Vec::with_capacity(changed.len());
        let found = |key: DocumentKey, document: &RawDocument| {
            if changed.remove(&key).is_some() {
                mirror.put(&mut outcome, key, document);
            }
        };
        self.source.fetch(ids, projection, &mut self.session, found).await?;
        for key in changed.into_keys() {
            mirror.remove(&mut outcome, key);
        }
        mirror.apply(outcome);
        Ok(())
    }

    fn condition(&self) -> Condition {
        if self.is_missing {
            let name = self.source.name();
            return Condition::Degraded(vec![format!(
                "{name} does not exist and is served as empty"
            )]);
        }
        Condition::Ready
    }
}
