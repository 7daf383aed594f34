//! Reading a collection: the change stream, all documents, some documents.

use crate::metrics::LoadReason;
use crate::mirror::document::DocumentKey;
use crate::mirror::mongo::server::{Aggregate, Batch, Database, Session, SessionKind};
use crate::mirror::query::{Query, first_documents};
use crate::mirror::{Mirror, MirroredCollection, READ_AT_ONCE};
use bson::{
    Binary, Bson, Document, RawArray, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, doc,
};
use mongodb::error::{Error, ErrorKind, Result};
use serde::de::Error as _;
use std::io;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

/// How long the server holds back an empty reply of the stream. It bounds the age of an idle
/// collection.
pub(super) const MAX_AWAIT: Duration = Duration::from_millis(500);

/// The number of documents in a batch of a load.
const LOAD_BATCH: u32 = 10_000;

/// The number of changes in a reply of the stream at most.
pub(super) const CHANGES_BATCH: u32 = 1000;

/// A collection and its database.
#[derive(Clone)]
pub(super) struct CollectionSource<D> {
    database: D,
    collection: String,
    /// The time limit of each reply.
    limit: Duration,
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
pub(super) struct Stream<D: Database> {
    cursor: D::Cursor,
    session: D::Session,
    /// When the stream was requested, until its first reply is read.
    opened_at: Option<Instant>,
}

/// A reply of a change stream.
pub(super) struct StreamBatch<B> {
    pub(super) batch: B,
    /// When the reply was requested. The server has looked for changes after this moment.
    pub(super) requested_at: Instant,
    /// The time of the cluster when the reply was sent.
    pub(super) sent_at: Option<Timestamp>,
}

impl<D: Database> CollectionSource<D> {
    pub(super) fn new(database: &D, collection: &str, limit: Duration) -> Self {
        Self { database: database.clone(), collection: collection.to_owned(), limit }
    }

    /// The names of the database and the collection.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.database.name(), self.collection)
    }

    /// Starts a causally consistent session that knows the cluster's time: a read in it returns no
    /// older state.
    pub(super) async fn session(&self) -> Result<D::Session> {
        let mut session = self.database.session(SessionKind::Causal).await?;
        self.within_limit(self.database.run(doc! { "ping": 1 }, &mut session)).await?;
        Ok(session)
    }

    /// Opens a change stream.
    ///
    /// It is an ordinary aggregation. The driver's own change stream silently reopens itself after
    /// an error, and does so forever if the server refuses every read.
    pub(super) async fn open_stream(&self, from: &Position) -> Result<Stream<D>> {
        let mut session = self.session().await?;
        let from = match from {
            Position::Time(Some(time)) => doc! { "startAtOperationTime": time },
            Position::Time(None) => doc! {},
            Position::After(token) => doc! { "resumeAfter": token.to_document()? },
        };
        let keys_only = doc! { "operationType": 1, "documentKey": 1, "clusterTime": 1 };
        let aggregate = Aggregate {
            collection: &self.collection,
            pipeline: vec![doc! { "$changeStream": from }, doc! { "$project": keys_only }],
            batch_size: CHANGES_BATCH,
            max_await: Some(MAX_AWAIT),
        };
        let opened_at = Some(Instant::now());
        let cursor = self.within_limit(self.database.aggregate(aggregate, &mut session)).await?;
        Ok(Stream { cursor, session, opened_at })
    }

    /// The next reply of the stream, which may be empty. After an error the stream is unusable.
    pub(super) async fn next(&self, stream: &mut Stream<D>) -> Result<StreamBatch<D::Batch>> {
        // The first reply arrived when the stream was opened.
        let requested_at = stream.opened_at.take().unwrap_or_else(Instant::now);
        let next = self.database.next(&mut stream.cursor, &mut stream.session);
        let batch = self.within_limit(next).await?.ok_or_else(|| {
            Error::from(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream has ended"))
        })?;
        Ok(StreamBatch { batch, requested_at, sent_at: stream.session.operation_time() })
    }

    /// Whether the collection exists.
    pub(super) async fn exists(&self, session: &mut D::Session) -> Result<bool> {
        let list = doc! { "nameOnly": true, "authorizedCollections": true };
        Ok(self.listed(list, session).await?.is_some())
    }

    /// Whether the collection exists, and its UUID if the user may read it. The UUID differs from
    /// that of any other collection of the same name.
    pub(super) async fn identity(
        &self,
        session: &mut D::Session,
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
        session: &mut D::Session,
    ) -> Result<Option<Document>> {
        let filter = doc! { "name": &self.collection };
        let mut list = doc! { "listCollections": 1, "filter": filter };
        list.extend(options);
        let reply = self.within_limit(self.database.run(list, session)).await?;
        let cursor = reply.get_document("cursor");
        let first = cursor.and_then(|cursor| cursor.get_array("firstBatch")).ok();
        Ok(first.and_then(|batch| batch.first()?.as_document().cloned()))
    }

    /// Reads all documents and publishes them as a load.
    pub(super) async fn load<C: MirroredCollection>(
        &self,
        mirror: &mut Mirror<C>,
        session: &mut D::Session,
        reason: LoadReason,
    ) -> Result<()> {
        let mut load = mirror.begin_load();
        let query = mirror.query();
        let visit =
            |key: DocumentKey, document: &RawDocument| mirror.load(&mut load, &key, document);
        if let Err(error) = self.read_all(query, session, visit).await {
            Mirror::drop_load(load).await;
            return Err(error);
        }
        // The batches were read one after the other, so they may show different moments.
        mirror.mark_inconsistent();
        mirror.finish_load(load, reason).await;
        Ok(())
    }

    /// Calls `visit` with every document of a query.
    pub(super) async fn read_all(
        &self,
        query: Query,
        session: &mut D::Session,
        visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        self.read(query.all(), LOAD_BATCH, session, visit).await
    }

    /// Calls `visit` with the first whole documents that match a filter.
    pub(super) async fn read_first(
        &self,
        filter: Document,
        count: u32,
        session: &mut D::Session,
        visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        self.read(first_documents(filter, count), count + 1, session, visit).await
    }

    /// Calls `visit` with each of these documents that a query finds, all as they were at one moment
    /// of the cluster. Returns `false` if the server no longer knows the state of that moment;
    /// `visit` may have been called then.
    pub(super) async fn fetch_at(
        &self,
        moment: Timestamp,
        ids: Vec<Bson>,
        query: Query,
        visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<bool> {
        let mut session = self.database.session(SessionKind::At(moment)).await?;
        match self.fetch(ids, query, &mut session, visit).await {
            Ok(()) => Ok(true),
            Err(error) if is_moment_unknown(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Calls `visit` with each of these documents that a query finds.
    pub(super) async fn fetch(
        &self,
        ids: Vec<Bson>,
        query: Query,
        session: &mut D::Session,
        visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        // One more than are requested, so that the first batch is also the last.
        let batch_size = u32::try_from(ids.len() + 1).unwrap_or(LOAD_BATCH);
        self.read(query.some(ids), batch_size, session, visit).await
    }

    /// Calls `visit` with every document of a pipeline. The next batch is requested while one is
    /// read.
    async fn read(
        &self,
        pipeline: Vec<Document>,
        batch_size: u32,
        session: &mut D::Session,
        mut visit: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        let aggregate =
            Aggregate { collection: &self.collection, pipeline, batch_size, max_await: None };
        let cursor = self.database.aggregate(aggregate, session);
        let mut cursor = self.within_limit(cursor).await?;
        let mut next = self.within_limit(self.database.next(&mut cursor, session)).await?;
        while let Some(batch) = next {
            let following = self.within_limit(self.database.next(&mut cursor, session));
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

/// The documents of a reply.
pub(super) fn documents(batch: &impl Batch) -> Result<&RawArray> {
    let cursor = batch.reply().get_document("cursor")?;
    let documents = match cursor.get("firstBatch")? {
        Some(first) => Some(first),
        None => cursor.get("nextBatch")?,
    };
    let missing = || Error::from(bson::de::Error::custom("a reply has no documents"));
    documents.and_then(RawBsonRef::as_array).ok_or_else(missing)
}

async fn read_batch(
    batch: &impl Batch,
    visit: &mut impl FnMut(DocumentKey, &RawDocument),
) -> Result<()> {
    for (index, document) in documents(batch)?.into_iter().enumerate() {
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

/// Whether the server cannot read at a moment: `SnapshotTooOld` (by default after 5 minutes),
/// `SnapshotUnavailable` (the collection or its indexes were changed since), or a server that never
/// can (`InvalidOptions`, `CommandNotSupported`, versions before 5.0).
fn is_moment_unknown(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Command(error) => [239, 246, 72, 115].contains(&error.code),
        ErrorKind::IncompatibleServer { .. } => true,
        _ => false,
    }
}
