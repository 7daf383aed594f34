//! Reading a collection: the change stream, all documents, some documents.

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

/// How long the server holds back an empty reply of the stream. It bounds the age of an idle
/// collection.
const MAX_AWAIT: Duration = Duration::from_millis(500);

/// The number of documents in a batch of a load.
const LOAD_BATCH: u32 = 10_000;

/// The number of changes in a reply of the stream.
const CHANGES_BATCH: u32 = 1000;

/// A collection and its database.
#[derive(Clone)]
pub(super) struct CollectionSource {
    database: Database,
    collection: Collection<RawDocumentBuf>,
    /// The time limit of each reply.
    pub(super) limit: Duration,
}

/// Where a change stream begins.
#[derive(Clone)]
pub(super) enum Position {
    /// At this operation time, or now.
    Time(Option<Timestamp>),
    /// After the change of this resume token.
    After(RawDocumentBuf),
}

/// A change stream. The operation time of its session shows how far the stream lags.
pub(super) struct Stream {
    cursor: SessionRawBatchCursor,
    pub(super) session: ClientSession,
}

impl CollectionSource {
    pub(super) fn new(database: &Database, collection: &str, limit: Duration) -> Self {
        Self { database: database.clone(), collection: database.collection(collection), limit }
    }

    /// The names of the database and the collection.
    pub(super) fn name(&self) -> String {
        self.collection.namespace().to_string()
    }

    /// Starts a causally consistent session that knows the cluster's time: a read in it returns no
    /// older state.
    pub(super) async fn session(&self) -> Result<ClientSession> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        let ping = self.database.run_command(doc! { "ping": 1 }).session(&mut session);
        self.within_limit(ping.into_future()).await?;
        Ok(session)
    }

    /// Opens a change stream.
    ///
    /// It is an ordinary aggregation. The driver's own change stream silently reopens itself after
    /// an error, and does so forever if the server refuses every read.
    pub(super) async fn open_stream(&self, from: &Position) -> Result<Stream> {
        let mut session = self.session().await?;
        let from = match from {
            Position::Time(Some(time)) => doc! { "startAtOperationTime": time },
            Position::Time(None) => doc! {},
            Position::After(token) => doc! { "resumeAfter": token.to_document()? },
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
        let cursor = self.within_limit(aggregate.batch()).await?;
        Ok(Stream { cursor, session })
    }

    /// The next reply of the stream, which may be empty. After an error the stream is unusable.
    pub(super) async fn next(&self, stream: &mut Stream) -> Result<RawBatch> {
        let mut replies = stream.cursor.stream(&mut stream.session);
        let reply = self.within_limit(replies.try_next()).await?;
        reply.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the stream has ended").into()
        })
    }

    /// Whether the collection exists.
    pub(super) async fn exists(&self, session: &mut ClientSession) -> Result<bool> {
        let list = doc! { "nameOnly": true, "authorizedCollections": true };
        Ok(self.listed(list, session).await?.is_some())
    }

    /// Whether the collection exists, and its UUID if the user may read it. The UUID differs from
    /// that of any other collection of the same name.
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

    /// The entry of the collection in `listCollections`.
    async fn listed(
        &self,
        options: Document,
        session: &mut ClientSession,
    ) -> Result<Option<Document>> {
        let filter = doc! { "name": self.collection.name() };
        let mut list = doc! { "listCollections": 1, "filter": filter };
        list.extend(options);
        let list = self.database.run_command(list).session(session);
        let reply = self.within_limit(list.into_future()).await?;
        let cursor = reply.get_document("cursor");
        let first = cursor.and_then(|cursor| cursor.get_array("firstBatch")).ok();
        Ok(first.and_then(|batch| batch.first()?.as_document().cloned()))
    }

    /// Reads all documents and publishes them as a load.
    pub(super) async fn load<V: View>(
        &self,
        mirror: &mut Mirror<V>,
        session: &mut ClientSession,
        reason: LoadReason,
    ) -> Result<()> {
        let mut load = mirror.begin_load();
        let projection = mirror.projection();
        let visit =
            |key: DocumentKey, document: &RawDocument| mirror.load(&mut load, &key, document);
        if let Err(error) = self.read_all(projection, session, visit).await {
            Mirror::drop_load(load).await;
            return Err(error);
        }
        // The batches were read one after the other, so they may show different moments.
        mirror.mark_inconsistent();
        mirror.finish_load(load, reason).await;
        Ok(())
    }

    /// Calls `visit` with every document.
    pub(super) async fn read_all(
        &self,
        projection: Document,
        session: &mut ClientSession,
        visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        self.read(vec![doc! { "$project": projection }], LOAD_BATCH, session, visit).await
    }

    /// Calls `visit` with each of these documents that exists.
    pub(super) async fn fetch(
        &self,
        ids: Vec<Bson>,
        projection: Document,
        session: &mut ClientSession,
        visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        // One more than are requested, so that the first batch is also the last.
        let batch_size = u32::try_from(ids.len() + 1).unwrap_or(LOAD_BATCH);
        let filter = doc! { "$match": { "_id": { "$in": ids } } };
        self.read(vec![filter, doc! { "$project": projection }], batch_size, session, visit).await
    }

    /// Calls `visit` with every document of a pipeline. The next batch is requested while one is
    /// read.
    async fn read(
        &self,
        pipeline: Vec<Document>,
        batch_size: u32,
        session: &mut ClientSession,
        mut visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        let aggregate = self
            .collection
            .aggregate(pipeline)
            .batch_size(batch_size)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut *session);
        let mut cursor = self.within_limit(aggregate.batch()).await?;
        let mut batches = cursor.stream(session);
        let mut next = self.within_limit(batches.try_next()).await?;
        while let Some(batch) = next {
            let following = self.within_limit(batches.try_next());
            let (following, read) = tokio::join!(following, read_batch(&batch, &mut visit));
            read?;
            next = following?;
        }
        Ok(())
    }

    /// Waits for a reply within the time limit.
    async fn within_limit<T>(&self, reply: impl Future<Output = Result<T>>) -> Result<T> {
        let timed_out = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no reply in time").into());
        timeout(self.limit, reply).await.unwrap_or_else(timed_out)
    }
}

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

async fn read_batch(
    batch: &RawBatch,
    visit: &mut impl FnMut(DocumentKey, &RawDocument),
) -> Result<()> {
    for (index, document) in batch.doc_slices()?.into_iter().enumerate() {
        if index % READ_AT_ONCE == 0 {
            yield_now().await;
        }
        let Some(document) = document?.as_document() else { continue };
        if let Some(key) = DocumentKey::from_document(document) {
            visit(key, document);
        }
    }
    Ok(())
}

/// Whether the user may not run this command: `Unauthorized`, or `AtlasError` on a shared tier of
/// Atlas.
fn is_denied(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Command(error) if [13, 8000].contains(&error.code))
}
