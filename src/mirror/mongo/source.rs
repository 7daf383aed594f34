//! What is asked of a collection: a stream of changed keys, all documents, some documents.

use super::stream::Event;
use crate::metrics::LoadReason;
use crate::mirror::document::DocumentKey;
use crate::mirror::{Load, Mirror, View};
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::change_stream::ChangeStream;
use mongodb::error::Result;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{ClientSession, Collection, Database};
use std::time::Duration;

/// How long the server holds an empty reply of the stream: the freshness of an idle collection.
const MAX_AWAIT: Duration = Duration::from_millis(500);

/// Documents in one batch of a complete load.
const LOADED_BATCH: u32 = 10_000;

/// A collection and its database.
pub(super) struct Source {
    database: Database,
    collection: Collection<RawDocumentBuf>,
}

impl Source {
    pub(super) fn new(database: Database, collection: &str) -> Self {
        Self { collection: database.collection(collection), database }
    }

    /// Database and collection.
    pub(super) fn name(&self) -> String {
        self.collection.namespace().to_string()
    }

    /// A session that has seen the cluster's time: what is read in it is no older.
    pub(super) async fn session(&self) -> Result<ClientSession> {
        let mut session = self.database.client().start_session().causal_consistency(true).await?;
        self.database.run_command(doc! { "ping": 1 }).session(&mut session).await?;
        Ok(session)
    }

    pub(super) async fn open_stream(&self, from: Option<Timestamp>) -> Result<ChangeStream<Event>> {
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

    pub(super) async fn exists(&self, session: &mut ClientSession) -> Result<bool> {
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

    pub(super) async fn load<V: View>(
        &self,
        mirror: &mut Mirror<V>,
        session: &mut ClientSession,
        reason: LoadReason,
    ) -> Result<()> {
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
    pub(super) async fn fetch(
        &self,
        ids: Vec<Bson>,
        projection: Document,
        session: &mut ClientSession,
    ) -> Result<Vec<RawDocumentBuf>> {
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

fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}
