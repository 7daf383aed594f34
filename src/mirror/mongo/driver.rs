//! The driver of MongoDB, as the follower uses it.

use crate::mirror::mongo::client::{Connected, Mongo};
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::server::{Address, Aggregate, Batch, Database, Session, SessionKind};
use bson::{Document, RawDocument, RawDocumentBuf, Timestamp};
use futures_util::TryStreamExt;
use mongodb::ClientSession;
use mongodb::error::Result;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, SessionRawBatchCursor};

impl Address for Mongo {
    type Database = mongodb::Database;

    async fn connect(&self) -> std::result::Result<Connected<mongodb::Database>, StreamLoss> {
        self.connect().await
    }
}

impl Database for mongodb::Database {
    type Session = ClientSession;
    type Cursor = SessionRawBatchCursor;
    type Batch = RawBatch;

    fn name(&self) -> &str {
        self.name()
    }

    async fn session(&self, kind: SessionKind) -> Result<ClientSession> {
        let session = self.client().start_session();
        match kind {
            SessionKind::Causal => session.causal_consistency(true).await,
            SessionKind::At(moment) => session.snapshot(true).snapshot_time(moment).await,
        }
    }

    async fn run(&self, command: Document, session: &mut ClientSession) -> Result<Document> {
        self.run_command(command).session(session).await
    }

    async fn aggregate(
        &self,
        aggregate: Aggregate<'_>,
        session: &mut ClientSession,
    ) -> Result<SessionRawBatchCursor> {
        let Aggregate { collection, pipeline, batch_size, max_await } = aggregate;
        let is_snapshot = session.snapshot_time().is_some();
        let collection = self.collection::<RawDocumentBuf>(collection);
        let mut aggregate = collection
            .aggregate(pipeline)
            .batch_size(batch_size)
            .read_concern(if is_snapshot {
                ReadConcern::snapshot()
            } else {
                ReadConcern::majority()
            })
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        if let Some(max_await) = max_await {
            aggregate = aggregate.max_await_time(max_await);
        }
        aggregate.session(session).batch().await
    }

    async fn next(
        &self,
        cursor: &mut SessionRawBatchCursor,
        session: &mut ClientSession,
    ) -> Result<Option<RawBatch>> {
        cursor.stream(session).try_next().await
    }
}

impl Session for ClientSession {
    fn operation_time(&self) -> Option<Timestamp> {
        self.operation_time()
    }

    fn advance_operation_time(&mut self, time: Timestamp) {
        self.advance_operation_time(time);
    }
}

impl Batch for RawBatch {
    fn reply(&self) -> &RawDocument {
        self.as_raw_document()
    }
}
