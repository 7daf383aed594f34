//! What is asked of a collection: a stream of changed keys, all documents, some documents.

use crate::metrics::LoadReason;
use crate::mirror::document::DocumentKey;
use crate::mirror::{Mirror, READ_AT_ONCE, View};
use bson::{Binary, Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::error::{Error, ErrorKind, Result};
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, SessionRawBatchCursor};
use mongodb::{ClientSession, Collection, Database};
use std::io;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::timeout;

/// How long the server holds an empty reply of the stream: the freshness of an idle collection.
const MAX_AWAIT: Duration = Duration::from_millis(500);

/// Documents in one batch of a complete load.
const LOADED_BATCH: u32 = 10_000;

/// Changes in one reply of the stream.
const CHANGES_BATCH: u32 = 1000;

/// A collection and its database.
#[derive(Clone)]
pub(super) struct Source {
    database: Database,
    collection: Collection<RawDocumentBuf>,
    /// How long each reply is waited for.
    pub(super) limit: Duration,
}

/// Where a stream begins.
#[derive(Clone)]
pub(super) enum Position {
    Time(Option<Timestamp>),
    /// Behind what this resume token stands for.
    Behind(RawDocumentBuf),
}

/// A stream of changes, in a session whose operation time tells how far it is behind.
pub(super) struct Stream {
    cursor: SessionRawBatchCursor,
    pub(super) session: ClientSession,
}

impl Source {
    pub(super) fn new(database: &Database, collection: &str, limit: Duration) -> Self {
        Self { database: database.clone(), collection: database.collection(collection), limit }
    }

    /// Database and collection.
    pub(super) fn name(&self) -> String {
        self.collection.namespace().to_string()
    }

    /// A session that has seen the cluster's time: what is read in it is no older.
    pub(super) async fn session(&self) -> Result<ClientSession> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        let ping = self.database.run_command(doc! { "ping": 1 }).session(&mut session);
        self.in_time(ping.into_future()).await?;
        Ok(session)
    }

    /// Opens it as an aggregation like any other: the driver's own streams are opened again behind our back, without
    /// end where the server refuses every read of them.
    pub(super) async fn open_stream(&self, from: &Position) -> Result<Stream> {
        let mut session = self.session().await?;
        let from = match from {
            Position::Time(Some(time)) => doc! { "startAtOperationTime": time },
            Position::Time(None) => doc! {},
            Position::Behind(token) => doc! { "resumeAfter": token.to_document()? },
        };
        let keys_only = doc! { "operationType": 1, "documentKey": 1, "clusterTime": 1 };
        let aggregate = self
            .collection
            .aggregate([doc! { "$changeStream": from }, doc! { "$project": keys_only }])
            .batch_size(CHANGES_BATCH)
            .max_await_time(MAX_AWAIT)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut session);
        let cursor = self.in_time(aggregate.batch()).await?;
        Ok(Stream { cursor, session })
    }

    /// The next reply of the stream, which may be empty. After an error the stream is of no more use.
    pub(super) async fn next(&self, stream: &mut Stream) -> Result<RawBatch> {
        let mut replies = stream.cursor.stream(&mut stream.session);
        let reply = self.in_time(replies.try_next()).await?;
        reply.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the stream has ended").into()
        })
    }

    pub(super) async fn exists(&self, session: &mut ClientSession) -> Result<bool> {
        let list = doc! { "nameOnly": true, "authorizedCollections": true };
        Ok(self.listed(list, session).await?.is_some())
    }

    /// Whether the collection exists, and the UUID that tells it from any other that has had its name, if the server says
    /// it.
    pub(super) async fn identity(
        &self,
        session: &mut ClientSession,
    ) -> Result<(bool, Option<Binary>)> {
        let listed = match self.listed(doc! {}, session).await {
            Err(error) if is_denied(&error) => return Ok((self.exists(session).await?, None)),
            listed => listed?,
        };
        let info = listed.as_ref().and_then(|listed| listed.get_document("info").ok());
        let uuid = match info.and_then(|info| info.get("uuid")) {
            Some(Bson::Binary(uuid)) => Some(uuid.clone()),
            _ => None,
        };
        Ok((listed.is_some(), uuid))
    }

    /// What `listCollections` says of the collection.
    async fn listed(
        &self,
        options: Document,
        session: &mut ClientSession,
    ) -> Result<Option<Document>> {
        let filter = doc! { "name": self.collection.name() };
        let mut list = doc! { "listCollections": 1, "filter": filter };
        list.extend(options);
        let list = self.database.run_command(list).session(session);
        let reply = self.in_time(list.into_future()).await?;
        let cursor = reply.get_document("cursor");
        let first = cursor.and_then(|cursor| cursor.get_array("firstBatch")).ok();
        Ok(first.and_then(|batch| batch.first()?.as_document().cloned()))
    }

    pub(super) async fn load<V: View>(
        &self,
        mirror: &mut Mirror<V>,
        session: &mut ClientSession,
        reason: LoadReason,
    ) -> Result<()> {
        let mut load = mirror.begin_load();
        let projection = mirror.view().projection();
        let take =
            |key: DocumentKey, document: &RawDocument| mirror.load(&mut load, &key, document);
        if let Err(error) = self.read_all(projection, session, take).await {
            Mirror::drop_load(load).await;
            return Err(error);
        }
        // It was read batch by batch.
        mirror.tear();
        mirror.finish_load(load, reason).await;
        Ok(())
    }

    /// Shows every document.
    pub(super) async fn read_all(
        &self,
        projection: Document,
        session: &mut ClientSession,
        see: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        self.read(vec![doc! { "$project": projection }], LOADED_BATCH, session, see).await
    }

    /// Shows the documents that there are among these.
    pub(super) async fn fetch(
        &self,
        ids: Vec<Bson>,
        projection: Document,
        session: &mut ClientSession,
        see: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        // Batches hold more than were asked for, so that there is but one.
        let batch_size = u32::try_from(ids.len() + 1).unwrap_or(LOADED_BATCH);
        let those = doc! { "$match": { "_id": { "$in": ids } } };
        self.read(vec![those, doc! { "$project": projection }], batch_size, session, see).await
    }

    /// Shows what a pipeline gives. The next batch is on its way while one is read.
    async fn read(
        &self,
        pipeline: Vec<Document>,
        batch_size: u32,
        session: &mut ClientSession,
        mut see: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        let aggregate = self
            .collection
            .aggregate(pipeline)
            .batch_size(batch_size)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut *session);
        let mut cursor = self.in_time(aggregate.batch()).await?;
        let mut batches = cursor.stream(session);
        let mut next = self.in_time(batches.try_next()).await?;
        while let Some(batch) = next {
            let following = self.in_time(batches.try_next());
            let (following, read) = tokio::join!(following, read_batch(&batch, &mut see));
            read?;
            next = following?;
        }
        Ok(())
    }

    async fn in_time<T>(&self, reply: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no reply in time").into());
        timeout(self.limit, reply).await.unwrap_or_else(late)
    }
}

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

async fn read_batch(
    batch: &RawBatch,
    see: &mut impl FnMut(DocumentKey, &RawDocument),
) -> Result<()> {
    for (index, document) in batch.doc_slices()?.into_iter().enumerate() {
        if index % READ_AT_ONCE == 0 {
            yield_now().await;
        }
        let Some(document) = document?.as_document() else { continue };
        if let Some(key) = DocumentKey::of(document) {
            see(key, document);
        }
    }
    Ok(())
}

/// Whether the user has no right to this command: `Unauthorized`, or `AtlasError` of a shared tier.
fn is_denied(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Command(error) if [13, 8000].contains(&error.code))
}
