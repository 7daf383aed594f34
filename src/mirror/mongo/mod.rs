//! Following a collection of MongoDB without a gap.
//!
//! Note the cluster's operation time, open a change stream from there, *then* read the collection,
//! then apply the stream: nothing between is lost, and applying a change twice does no harm. The
//! stream carries keys only; changed documents are fetched, found ones replace what there was and
//! missing ones remove it. Three rules make moves and racing deletions come out right: reads are
//! majority reads from the primary, in a session that has seen the change; one fetch at a time; the
//! records are keyed by `_id`, type included.

mod source;
mod stream;
mod survey;

use super::document::DocumentKey;
use super::{Change, Mirror, View};
use crate::lifecycle::Condition;
use crate::metrics::LoadReason;
use crate::pause::Pause;
use crate::settings::{Secret, Section};
use bson::{Bson, RawDocumentBuf, Timestamp};
use mongodb::options::{ClientOptions, ConnectionString, HostInfo};
use mongodb::{Client, ClientSession, Database};
use source::{Position, Source};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stream::{Lost, Pump, Reply};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Replies of the stream that wait to be applied. Beyond it the stream is not read on.
const WAITING_REPLIES: usize = 4096;

/// How often it is looked at whether a stream that says nothing has got too old.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Documents asked for by one fetch.
const FETCHED_DOCUMENTS: usize = 1000;

/// How long a client looks for a server, unless the address says otherwise. Short, since trying
/// again is our own affair.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a reply is waited for to begin with. A server that holds one back may answer everybody else: then the driver waits
/// for ever.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// The limit grows, since a large collection on a slow disk may take so long.
const LONGEST_REPLY_LIMIT: Duration = Duration::from_mins(10);

/// How long the same client is tried again, from where the stream was. Then a new one loads everything.
const CLIENT_PATIENCE: Duration = Duration::from_mins(1);

/// The section `[mongodb]`.
#[derive(Debug, Clone)]
pub struct MongoSettings {
    uri: Secret,
    database: String,
}

impl MongoSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let uri = section.secret("uri", Some("mongodb://127.0.0.1:27017/?replicaSet=rs0"));
        if let Some(Err(message)) = uri.as_ref().map(check_uri) {
            section.fault("uri", message);
        }
        let uri = uri.unwrap_or_else(|| Secret::new(String::new()));
        let database: String = section.value("database", "tether".to_owned());
        if database.is_empty() {
            section.fault("database", "is empty");
        }
        Self { uri, database }
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

/// Says what is wrong with an address, without repeating it: it may hold a password.
fn check_uri(uri: &Secret) -> Result<(), &'static str> {
    if !uri.reveal().starts_with("mongodb://") && !uri.reveal().starts_with("mongodb+srv://") {
        return Err("not an address that begins with mongodb:// or mongodb+srv://");
    }
    ConnectionString::parse(uri.reveal()).map(|_| ()).map_err(|_| "not a valid address")
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
    async fn connect(&self) -> Result<Database, Lost> {
        let mut options = ClientOptions::parse(self.settings.uri.reveal()).await.map_err(|_| {
            // The driver's message may repeat the address, which may hold a password.
            Lost("mongodb.uri is not a valid address, or its name is not found".to_owned())
        })?;
        options.app_name.get_or_insert_with(|| "hookgate".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
        let client = Client::with_options(options).map_err(Lost::from)?;
        Ok(client.database(&self.settings.database))
    }
}

/// Keeps a mirror as the collection is. Never ends.
pub async fn follow<V: View>(mongo: Arc<Mongo>, collection: String, mut mirror: Mirror<V>) {
    let mut pause = Pause::default();
    let mut reason = LoadReason::Start;
    let mut limit = REPLY_LIMIT;
    loop {
        let age = mirror.freshness.age();
        let lost = match mongo.connect().await {
            Ok(database) => {
                let source = Source::new(&database, &collection, limit);
                load_and_follow(&source, &mut mirror, reason).await
            }
            Err(lost) => lost,
        };
        mirror.report(if mirror.freshness.is_loaded() {
            reason = LoadReason::StreamLost;
            Condition::Degraded(vec![format!("not followed: {}", lost.0)])
        } else {
            Condition::NotReady(format!("not loaded: {}", lost.0))
        });
        limit = longer(limit);
        if mirror.freshness.age() < age {
            pause.reset();
            limit = REPLY_LIMIT;
        }
        pause.wait().await;
    }
}

/// The next limit, after one that was too short.
fn longer(limit: Duration) -> Duration {
    (limit * 2).min(LONGEST_REPLY_LIMIT)
}

/// Loads the collection and follows it until the stream is lost.
async fn load_and_follow<V: View>(
    source: &Source,
    mirror: &mut Mirror<V>,
    reason: LoadReason,
) -> Lost {
    match Follower::start(source, mirror, reason).await {
        Ok((mut follower, mut replies)) => follower.run(mirror, &mut replies).await,
        Err(error) => Lost::from(error),
    }
}

/// Applies what the stream says to a mirror that has been loaded.
struct Follower<'a> {
    source: &'a Source,
    session: ClientSession,
    /// The time of the cluster when the load had ended.
    loaded_at: Option<Timestamp>,
    /// Whether every change up to the end of the load has been applied.
    caught_up: bool,
    is_missing: bool,
}

impl<'a> Follower<'a> {
    /// Opens the stream, then loads the collection.
    async fn start<V: View>(
        source: &'a Source,
        mirror: &mut Mirror<V>,
        reason: LoadReason,
    ) -> mongodb::error::Result<(Self, mpsc::Receiver<Reply>)> {
        let mut session = source.session().await?;
        let from = Position::Time(session.operation_time());
        let stream = source.open_stream(&from).await?;
        let (sender, replies) = mpsc::channel(WAITING_REPLIES);
        // It ends when nobody listens to it any more.
        tokio::spawn(Pump::new(source.clone(), from, stream).run(sender));
        let is_missing = !source.exists(&mut session).await?;
        source.load(mirror, &mut session, reason).await?;
        let loaded_at = session.operation_time();
        Ok((Self { source, session, loaded_at, caught_up: false, is_missing }, replies))
    }

    async fn run<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Lost {
        loop {
            match tokio::time::timeout(LOOK_INTERVAL, replies.recv()).await {
                // A stream that says nothing gets old.
                Err(_) if self.caught_up => mirror.report(self.condition()),
                Err(_) => {}
                Ok(None) => return Lost("the reader of the stream has ended".to_owned()),
                Ok(Some(reply)) => {
                    if let Err(lost) = self.handle(mirror, reply, replies).await {
                        return lost;
                    }
                }
            }
        }
    }

    /// Handles a reply and all that wait behind it, up to one fetch.
    async fn handle<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        first: Reply,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Result<(), Lost> {
        let mut changed: HashMap<DocumentKey, Bson> = HashMap::new();
        let mut next = Some(first);
        let mut seen_at = None;
        let mut lost = None;
        while let Some(reply) = next {
            match reply {
                Reply::Empty { at } => {
                    seen_at = Some(at);
                    self.caught_up = true;
                }
                Reply::Changed { id, cluster_time, at } => {
                    seen_at = Some(at);
                    self.caught_up |= cluster_time > self.loaded_at;
                    if let Some(time) = cluster_time {
                        self.session.advance_operation_time(time);
                    }
                    changed.insert(key_of(&id), id);
                }
                Reply::Lost(reason) => lost = Some(reason),
            }
            let is_full = changed.len() >= FETCHED_DOCUMENTS || lost.is_some();
            next = if is_full { None } else { replies.try_recv().ok() };
        }
        if !changed.is_empty() {
            self.apply(mirror, changed).await?;
        }
        if self.is_missing && self.caught_up {
            // A collection may come into being without a document, of which the stream says nothing.
            let exists = self.source.exists(&mut self.session).await;
            self.is_missing = !exists.unwrap_or_default();
        }
        if let Some(at) = seen_at.filter(|_| self.caught_up) {
            mirror.current_as_of(at);
            mirror.report(self.condition());
        }
        lost.map_or(Ok(()), Err)
    }

    /// Fetches the changed documents and applies them. While the network is away it tries again for a while; what
    /// else is refused is for a complete load to find out.
    async fn apply<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        mut changed: HashMap<DocumentKey, Bson>,
    ) -> Result<(), Lost> {
        self.is_missing = false;
        let mut pause = Pause::default();
        let begun = Instant::now();
        let documents = loop {
            let ids = changed.values().cloned().collect();
            match self.source.fetch(ids, mirror.view.projection(), &mut self.session).await {
                Ok(documents) => break documents,
                Err(error) if !stream::is_passing(&error) || begun.elapsed() > CLIENT_PATIENCE => {
                    return Err(Lost::from(error));
                }
                Err(error) => {
                    let note = format!("changes cannot be read: {}", error.kind);
                    mirror.report(Condition::Degraded(vec![note]));
                    pause.wait().await;
                }
            }
        };
        let found = documents.iter().filter_map(|document| {
            let key = DocumentKey::of(document)?;
            changed.remove(&key);
            Some(Change::Put(key, document))
        });
        let found: Vec<Change<'_>> = found.collect();
        mirror.apply(found.into_iter().chain(changed.into_keys().map(Change::Removed)));
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

fn key_of(id: &Bson) -> DocumentKey {
    let mut wrapped = RawDocumentBuf::new();
    match bson::RawBson::try_from(id.clone()) {
        Ok(raw) => wrapped.append("_id", raw),
        Err(_) => wrapped.append("_id", bson::RawBson::Null),
    }
    DocumentKey::of(&wrapped).expect("the document has just been given an _id")
}
