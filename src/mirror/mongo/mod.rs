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

use super::document::DocumentKey;
use super::{Change, Mirror, View};
use crate::lifecycle::Condition;
use crate::metrics::LoadReason;
use crate::pause::Pause;
use crate::settings::{Secret, Section};
use bson::{Bson, RawDocumentBuf, Timestamp};
use mongodb::options::{ClientOptions, ConnectionString};
use mongodb::{Client, ClientSession, Database};
use source::Source;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stream::{Lost, Reply};
use tokio::sync::{OnceCell, mpsc};

/// Replies of the stream that wait to be applied. Beyond it the stream is not read on.
const WAITING_REPLIES: usize = 4096;

/// Documents asked for by one fetch.
const FETCHED_DOCUMENTS: usize = 1000;

/// How long a client looks for a server, unless the address says otherwise. Short, since trying
/// again is our own affair.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The section `[mongodb]`.
#[derive(Debug, Clone)]
pub struct MongoSettings {
    uri: Secret,
    database: String,
}

impl MongoSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let uri = section.secret("uri", Some("mongodb://127.0.0.1:27017/?replicaSet=rs0"));
        let uri = uri.unwrap_or_else(|| Secret::new(String::new()));
        if !uri.reveal().starts_with("mongodb://") && !uri.reveal().starts_with("mongodb+srv://") {
            section.fault("uri", "not an address that begins with mongodb:// or mongodb+srv://");
        } else if ConnectionString::parse(uri.reveal()).is_err() {
            // The driver's message may repeat the address, which may hold a password.
            section.fault("uri", "not a valid address");
        }
        let database: String = section.value("database", "tether".to_owned());
        if database.is_empty() {
            section.fault("database", "is empty");
        }
        Self { uri, database }
    }
}

/// The database, looked up when it is first needed, and again until that succeeds.
#[derive(Debug)]
pub struct Mongo {
    settings: MongoSettings,
    database: OnceCell<Database>,
}

impl Mongo {
    pub fn new(settings: MongoSettings) -> Self {
        Self { settings, database: OnceCell::new() }
    }

    /// The database of a client that connects when it is used.
    async fn database(&self) -> Result<&Database, Lost> {
        let connect = async || {
            let mut options =
                ClientOptions::parse(self.settings.uri.reveal()).await.map_err(|_| {
                    // The driver's message may repeat the address, which may hold a password.
                    Lost("mongodb.uri is not a valid address, or its name is not found".to_owned())
                })?;
            options.app_name.get_or_insert_with(|| "hookgate".to_owned());
            options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
            let client = Client::with_options(options).map_err(Lost::from)?;
            Ok(client.database(&self.settings.database))
        };
        self.database.get_or_try_init(connect).await
    }
}

/// Keeps a mirror as the collection is. Never ends.
pub async fn follow<V: View>(mongo: Arc<Mongo>, collection: String, mut mirror: Mirror<V>) {
    let mut pause = Pause::default();
    let mut reason = LoadReason::Start;
    loop {
        let age = mirror.freshness.age();
        let lost = match mongo.database().await {
            Ok(database) => {
                let source = Source::new(database.clone(), &collection);
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
        if mirror.freshness.age() < age {
            pause.reset();
        }
        pause.wait().await;
    }
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
        let stream = source.open_stream(session.operation_time()).await?;
        let (sender, replies) = mpsc::channel(WAITING_REPLIES);
        // It ends when nobody listens to it any more.
        tokio::spawn(stream::pump(stream, sender));
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
        while let Some(reply) = replies.recv().await {
            if let Err(lost) = self.handle(mirror, reply, replies).await {
                return lost;
            }
        }
        Lost("the reader of the stream has ended".to_owned())
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

    /// Fetches the changed documents and applies them. While the network is away it tries again; what
    /// else is refused is for a complete load to find out.
    async fn apply<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        mut changed: HashMap<DocumentKey, Bson>,
    ) -> Result<(), Lost> {
        self.is_missing = false;
        let mut pause = Pause::default();
        let documents = loop {
            let ids = changed.values().cloned().collect();
            match self.source.fetch(ids, mirror.view.projection(), &mut self.session).await {
                Ok(documents) => break documents,
                Err(error) if !stream::is_passing(&error) => return Err(Lost::from(error)),
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
