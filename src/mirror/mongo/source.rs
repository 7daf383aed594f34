//! What is asked of a collection: a stream of changed keys, all documents, some documents.

use super::stream::Event;
use crate::metrics::LoadReason;
use crate::mirror::document::DocumentKey;
use crate::mirror::{Mirror, View};
use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::change_stream::event::ResumeToken;
use mongodb::change_stream::session::SessionChangeStream;
use mongodb::error::Result;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{ClientSession, Collection, Database};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// How long the server holds an empty reply of the stream: the freshness of an idle collection.
const MAX_AWAIT: Duration = Duration::from_millis(500);

/// Documents in one batch of a complete load.
const LOADED_BATCH: u32 = 10_000;

/// A collection and its database.
#[derive(Clone)]
pub(super) struct Source {
    database: Database,
    collection: Collection<RawDocumentBuf>,
    /// How long each reply is waited for.
    pub(super) limit: Duration,
}

/// Where a stream begins.
pub(super) enum Position {
    Time(Option<Timestamp>),
    Behind(ResumeToken),
}

/// A stream of changes, in a session whose operation time tells how far it is behind.
pub(super) struct Stream {
    pub(super) events: SessionChangeStream<Event>,
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

    pub(super) async fn open_stream(&self, from: &Position) -> Result<Stream> {
        let mut session = self.session().await?;
        let keys_only = doc! { "$project": { "operationType": 1, "documentKey": 1, "clusterTime": 1, "ns": 1 } };
        let mut watch = self
            .collection
            .watch()
            .pipeline([keys_only])
            .max_await_time(MAX_AWAIT)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary());
        watch = match from {
            Position::Time(Some(time)) => watch.start_at_operation_time(*time),
            Position::Time(None) => watch,
            Position::Behind(token) => watch.resume_after(token.clone()),
        };
        let events = self.in_time(watch.session(&mut session).into_future()).await?.with_type();
        Ok(Stream { events, session })
    }

    /// What the stream says next, if anything. After an error it is of no more use.
    pub(super) async fn next(&self, stream: &mut Stream) -> Result<Option<Event>> {
        let Stream { events, session } = stream;
        let event = self.in_time(Box::pin(events.next_if_any(session))).await?;
        if event.is_none() && !events.is_alive() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream has ended").into());
        }
        Ok(event)
    }

    pub(super) async fn exists(&self, session: &mut ClientSession) -> Result<bool> {
        let list = doc! {
            "listCollections": 1,
            "filter": { "name": self.collection.name() },
            "nameOnly": true,
            "authorizedCollections": true,
        };
        let list = self.database.run_command(list).session(session);
        let reply = self.in_time(list.into_future()).await?;
        let first_batch =
            reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        Ok(first_batch.is_ok_and(|collections| !collections.is_empty()))
    }

    pub(super) async fn load<V: View>(
        &self,
        mirror: &mut Mirror<V>,
        session: &mut ClientSession,
        reason: LoadReason,
    ) -> Result<()> {
        let mut load = mirror.begin_load();
        let projection = mirror.view.projection();
        let take =
            |key: DocumentKey, document: &RawDocument| mirror.load(&mut load, &key, document);
        self.read_all(projection, session, take).await?;
        mirror.finish_load(load, reason);
        Ok(())
    }

    /// Shows every document.
    pub(super) async fn read_all(
        &self,
        projection: Document,
        session: &mut ClientSession,
        mut see: impl FnMut(DocumentKey, &RawDocument),
    ) -> Result<()> {
        let aggregate = self
            .collection
            .aggregate([doc! { "$project": projection }])
            .batch_size(LOADED_BATCH)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut *session);
        let mut cursor = self.in_time(aggregate.into_future()).await?;
        while self.in_time(cursor.advance(session)).await? {
            let document = cursor.current();
            if let Some(key) = DocumentKey::of(document) {
                see(key, document);
            }
        }
        Ok(())
    }

    /// The documents that there are among these.
    pub(super) async fn fetch(
        &self,
        ids: Vec<Bson>,
        projection: Document,
        session: &mut ClientSession,
    ) -> Result<Vec<RawDocumentBuf>> {
        let pipeline =
            [doc! { "$match": { "_id": { "$in": ids } } }, doc! { "$project": projection }];
        let aggregate = self
            .collection
            .aggregate(pipeline)
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .session(&mut *session)
            .with_type::<RawDocumentBuf>();
        let mut cursor = self.in_time(aggregate.into_future()).await?;
        self.in_time(cursor.stream(session).try_collect()).await
    }

    async fn in_time<T>(&self, reply: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no reply in time").into());
        timeout(self.limit, reply).await.unwrap_or_else(late)
    }
}

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}
