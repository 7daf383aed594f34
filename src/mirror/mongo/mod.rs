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
use super::pause::Pause;
use super::{Change, Mirror, View};
use crate::lifecycle::Condition;
use crate::metrics::LoadReason;
use crate::settings::{Secret, Section};
use anyhow::Context;
use bson::{Bson, RawDocumentBuf, Timestamp};
use mongodb::options::ClientOptions;
use mongodb::{Client, ClientSession, Database};
use source::Source;
use std::collections::HashMap;
use std::time::Duration;
use stream::{Lost, Reply};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

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
        }
        let database: String = section.value("database", "tether".to_owned());
        if database.is_empty() {
            section.fault("database", "is empty");
        }
        Self { uri, database }
    }
}

/// Makes a client; it connects when it is used.
pub async fn database(settings: &MongoSettings) -> anyhow::Result<Database> {
    let mut options = ClientOptions::parse(settings.uri.reveal())
        .await
        // The driver's message may repeat the address, which may hold a password.
        .map_err(|_| {
            anyhow::anyhow!(
                "mongodb.uri cannot be used: not a valid address, or its name is not found"
            )
        })?;
    options.app_name.get_or_insert_with(|| "hookgate".to_owned());
    options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
    let client = Client::with_options(options).context("mongodb.uri cannot be used")?;
    Ok(client.database(&settings.database))
}

/// Keeps a mirror as the collection is. Never ends.
pub async fn follow<V: View>(
    database: Database,
    collection: String,
    mut mirror: Mirror<V>,
    tasks: TaskTracker,
) {
    let source = Source::new(database, &collection);
    let mut pause = Pause::default();
    let mut reason = LoadReason::Start;
    loop {
        let was_loaded_at = mirror.freshness.age();
        let error = match load_and_follow(&source, &tasks, &mut mirror, reason).await {
            Ok(ended) => ended,
            Err(error) => Lost(error.kind.to_string()),
        };
        mirror.report(if mirror.freshness.is_loaded() {
            reason = LoadReason::StreamLost;
            Condition::Degraded(vec![format!("not followed: {}", error.0)])
        } else {
            Condition::NotReady(format!("not loaded: {}", error.0))
        });
        if mirror.freshness.age() < was_loaded_at {
            pause = Pause::default();
        }
        pause.wait().await;
    }
}

/// Loads the collection and follows it until the stream is lost.
async fn load_and_follow<V: View>(
    source: &Source,
    tasks: &TaskTracker,
    mirror: &mut Mirror<V>,
    reason: LoadReason,
) -> mongodb::error::Result<Lost> {
    let mut session = source.session().await?;
    let stream = source.open_stream(session.operation_time()).await?;
    let (sender, mut replies) = mpsc::channel(WAITING_REPLIES);
    tasks.spawn(stream::pump(stream, sender));

    let is_missing = !source.exists(&mut session).await?;
    source.load(mirror, &mut session, reason).await?;
    let loaded_at = session.operation_time();
    let mut follower = Follower { source, session, loaded_at, caught_up: false, is_missing };
    while let Some(reply) = replies.recv().await {
        if let Err(lost) = follower.handle(mirror, reply, &mut replies).await {
            return Ok(lost);
        }
    }
    Ok(Lost("the reader of the stream has ended".to_owned()))
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

impl Follower<'_> {
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
            self.apply(mirror, changed).await;
        }
        if let Some(at) = seen_at.filter(|_| self.caught_up) {
            mirror.current_as_of(at);
            mirror.report(self.condition());
        }
        lost.map_or(Ok(()), Err)
    }

    /// Fetches the changed documents, for as long as it takes, and applies them.
    async fn apply<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        mut changed: HashMap<DocumentKey, Bson>,
    ) {
        self.is_missing = false;
        let mut pause = Pause::default();
        let documents = loop {
            let ids = changed.values().cloned().collect();
            match self.source.fetch(ids, mirror.view.projection(), &mut self.session).await {
                Ok(documents) => break documents,
                Err(error) => {
                    let reason = error.kind.to_string();
                    tracing::warn!(
                        collection = Mirror::<V>::NAME,
                        reason,
                        "changed documents cannot be read, trying again"
                    );
                    mirror.report(Condition::Degraded(vec![format!(
                        "changes cannot be read: {reason}"
                    )]));
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
    }

    fn condition(&self) -> Condition {
        if self.is_missing {
            let note = "the collection does not exist and is served as empty";
            return Condition::Degraded(vec![note.to_owned()]);
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
