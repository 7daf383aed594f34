//! What a follower needs of MongoDB: connections, sessions, commands, and pipelines with their
//! batches. The driver is the only implementation outside of tests, where a simulated MongoDB
//! stands in its place.

use crate::mirror::mongo::client::Connected;
use crate::mirror::mongo::lost::StreamLoss;
use bson::{Document, RawDocument, Timestamp};
use mongodb::error::Result;
use std::time::Duration;

/// The address of a database.
pub(super) trait Address: Send + Sync + 'static {
    type Database: Database;

    /// Makes a client, which connects when it is used.
    fn connect(
        &self,
    ) -> impl Future<Output = std::result::Result<Connected<Self::Database>, StreamLoss>> + Send;
}

/// A database, through one client.
pub(super) trait Database: Clone + Send + Sync + 'static {
    type Session: Session;
    type Cursor: Send;
    type Batch: Batch;

    fn name(&self) -> &str;

    fn session(&self, kind: SessionKind) -> impl Future<Output = Result<Self::Session>> + Send;

    fn run(
        &self,
        command: Document,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<Document>> + Send;

    /// Opens a cursor on the primary: with majority read concern, or at the moment of the session.
    fn aggregate(
        &self,
        aggregate: Aggregate<'_>,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<Self::Cursor>> + Send;

    /// The next batch, which may be empty; `None` after the last one. After an error, or if the
    /// future is dropped, the cursor is unusable.
    fn next(
        &self,
        cursor: &mut Self::Cursor,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<Option<Self::Batch>>> + Send;
}

/// What the reads of a session return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionKind {
    /// No state older than one that the session has seen.
    Causal,
    /// The state at this moment of the cluster.
    At(Timestamp),
}

pub(super) trait Session: Send {
    /// The latest cluster time that the session has seen.
    fn operation_time(&self) -> Option<Timestamp>;

    /// Makes later reads return no state older than this one.
    fn advance_operation_time(&mut self, time: Timestamp);
}

/// A pipeline over a collection.
#[derive(Debug)]
pub(super) struct Aggregate<'a> {
    pub(super) collection: &'a str,
    pub(super) pipeline: Vec<Document>,
    pub(super) batch_size: u32,
    /// How long the server holds back an empty reply of a change stream.
    pub(super) max_await: Option<Duration>,
}

/// A reply with a batch of documents.
pub(super) trait Batch: Send + Sync {
    fn reply(&self) -> &RawDocument;
}
