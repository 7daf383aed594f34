//! Following a collection of MongoDB without a gap.
//!
//! Note the cluster's operation time, open a change stream from there, *then* read the collection,
//! then apply the stream: nothing between is lost, and applying a change twice does no harm. The
//! stream carries keys only; changed documents are fetched, found ones replace what there was and
//! missing ones remove it. Three rules make moves and racing deletions come out right: reads are
//! majority reads from the primary, in a session that has seen the change; one fetch at a time; the
//! records are keyed by `_id`, type included.

use super::document::DocumentKey;
use super::{Change, Load, Mirror, View};
use crate::lifecycle::Condition;
use crate::metrics::LoadReason;
use crate::settings::{Secret, Section};
use anyhow::Context;
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::change_stream::ChangeStream;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, ClientSession, Collection, Database};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long the server holds an empty reply of the stream: the freshness of an idle collection.
const MAX_AWAIT: Duration = Duration::from_millis(500);

/// Replies of the stream that wait to be applied. Beyond it the stream is not read on.
const WAITING_REPLIES: usize = 4096;

/// Documents asked for by one fetch.
const FETCHED_DOCUMENTS: usize = 1000;

/// Documents in one batch of a complete load.
const LOADED_BATCH: u32 = 10_000;

/// How long a client looks for a server, unless the address says otherwise. Short, since trying
/// again is our own affair.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(3);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    let source = Source { collection: database.collection(&collection), database, tasks };
    let mut pause = Pause::default();
    let mut reason = LoadReason::Start;
    loop {
        let was_loaded_at = mirror.freshness.age();
        let error = match source.load_and_follow(&mut mirror, reason).await {
            Ok(ended) => ended,
            Err(error) => Lost(error.to_string()),
        };
        tracing::warn!(collection = Mirror::<V>::NAME, reason = %error.0, "changes cannot be followed, loading again");
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

/// Why a stream was given up.
struct Lost(String);

struct Source {
    database: Database,
    collection: Collection<RawDocumentBuf>,
    tasks: TaskTracker,
}

/// One reply of the stream.
enum Reply {
    /// Nothing new.
    Empty {
        at: Instant,
    },
    Changed {
        id: Bson,
        cluster_time: Option<Timestamp>,
        at: Instant,
    },
    Lost(Lost),
}

/// A change event, less all that we do not ask for.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    operation_type: String,
    document_key: Option<Document>,
    cluster_time: Option<Timestamp>,
}

impl Source {
    async fn load_and_follow<V: View>(
        &self,
        mirror: &mut Mirror<V>,
        reason: LoadReason,
    ) -> mongodb::error::Result<Lost> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        self.database.run_command(doc! { "ping": 1 }).session(&mut session).await?;
        let stream = self.open_stream(session.operation_time()).await?;
        let (sender, mut replies) = mpsc::channel(WAITING_REPLIES);
        self.tasks.spawn(pump(stream, sender));

        let is_missing = !self.exists(&mut session).await?;
        self.load(mirror, &mut session, reason).await?;
        let loaded_at = session.operation_time();
        let mut follower =
            Follower { source: self, session, loaded_at, caught_up: false, is_missing };
        while let Some(reply) = replies.recv().await {
            if let Err(lost) = follower.handle(mirror, reply, &mut replies).await {
                return Ok(lost);
            }
        }
        Ok(Lost("the reader of the stream has ended".to_owned()))
    }

    async fn open_stream(
        &self,
        from: Option<Timestamp>,
    ) -> mongodb::error::Result<ChangeStream<Event>> {
        let keys_only = doc! { "$project": { "operationType": 1, "documentKey": 1, "clusterTime": 1, "ns": 1 } };
        let mut watch = self
            .collection
            .watch()
            .pipeline([keys_only])
            .max_await_time(MAX_AWAIT)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary());
        if let Some(from) = from {
            watch = watch.start_at_operation_time(from);
        }
        Ok(watch.await?.with_type())
    }

    async fn exists(&self, session: &mut ClientSession) -> mongodb::error::Result<bool> {
        let reply = self
            .database
            .run_command(doc! {
                "listCollections": 1,
                "filter": { "name": self.collection.name() },
                "nameOnly": true,
                "authorizedCollections": true,
            })
            .session(session)
            .await?;
        let first_batch =
            reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        Ok(first_batch.is_ok_and(|collections| !collections.is_empty()))
    }

    async fn load<V: View>(
        &self,
        mirror: &mut Mirror<V>,
        session: &mut ClientSession,
        reason: LoadReason,
    ) -> mongodb::error::Result<()> {
        let mut load = Load::default();
        let pipeline = [doc! { "$project": mirror.view.projection() }];
        let mut cursor = self
            .collection
            .aggregate(pipeline)
            .batch_size(LOADED_BATCH)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut *session)
            .await?;
        while cursor.advance(session).await? {
            let document = cursor.current();
            if let Some(key) = DocumentKey::of(document) {
                mirror.load(&mut load, key, document);
            }
        }
        mirror.finish_load(load, reason);
        Ok(())
    }

    /// The documents that there are among these.
    async fn fetch(
        &self,
        ids: Vec<Bson>,
        projection: Document,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Vec<RawDocumentBuf>> {
        let pipeline =
            [doc! { "$match": { "_id": { "$in": ids } } }, doc! { "$project": projection }];
        let mut cursor = self
            .collection
            .aggregate(pipeline)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut *session)
            .with_type::<RawDocumentBuf>()
            .await?;
        cursor.stream(session).try_collect().await
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

/// Reads the stream until it is lost or nobody listens. The stream lives here alone: a read that is
/// given up half-way would leave it unusable.
async fn pump(mut stream: ChangeStream<Event>, replies: mpsc::Sender<Reply>) {
    let mut pause = Pause::default();
    loop {
        let next = stream.next_if_any().await;
        let at = Instant::now();
        let reply = match next {
            Ok(event) => {
                pause = Pause::default();
                event.map_or(Reply::Empty { at }, |event| reply_to(event, at))
            }
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "stream interrupted, the driver resumes it");
                pause.wait().await;
                if replies.is_closed() {
                    return;
                }
                continue;
            }
            Err(error) => Reply::Lost(Lost(error.kind.to_string())),
        };
        let is_last = matches!(reply, Reply::Lost(_));
        if replies.send(reply).await.is_err() || is_last {
            return;
        }
    }
}

fn reply_to(event: Event, at: Instant) -> Reply {
    let Event { operation_type, document_key, cluster_time } = event;
    match document_key.and_then(|mut key| key.remove("_id")) {
        Some(id) => Reply::Changed { id, cluster_time, at },
        // drop, rename, dropDatabase, invalidate
        None => Reply::Lost(Lost(format!("the collection had a {operation_type}"))),
    }
}

/// Whether the driver resumes the stream by itself when it is asked again. Any error of the server
/// that reaches us is one that it could not resume from, whatever the stream says of itself.
fn is_passing(error: &Error) -> bool {
    matches!(
        *error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
    )
}

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

fn key_of(id: &Bson) -> DocumentKey {
    let mut wrapped = RawDocumentBuf::new();
    match bson::RawBson::try_from(id.clone()) {
        Ok(raw) => wrapped.append("_id", raw),
        Err(_) => wrapped.append("_id", bson::RawBson::Null),
    }
    DocumentKey::of(&wrapped).expect("the document has just been given an _id")
}

/// Waits longer each time, at random between half and all of the span, and never gives up.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}
