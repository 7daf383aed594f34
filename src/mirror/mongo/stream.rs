//! Reading the stream of changes, in a task of its own.

use super::Connected;
use super::reason::reason;
use super::source::{Position, Source, Stream};
use crate::failpoint;
use crate::mirror::document::DocumentKey;
use bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp};
use mongodb::error::{Error, ErrorKind, RESUMABLE_CHANGE_STREAM_ERROR};
use mongodb::raw_batch_cursor::RawBatch;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the server says of a cursor that it has given up, or that somebody has ended.
const CURSOR_IS_GONE: [i32; 2] = [43, 237];

/// Why the stream, or what was read for it, was given up.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// Whether another stream may go on where this one was.
    pub(super) is_passing: bool,
    /// Whether what is known of each server says more than the reason.
    is_of_servers: bool,
}

impl Lost {
    pub(super) fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_passing: false, is_of_servers: false }
    }

    pub(super) fn passing(reason: String) -> Self {
        Self { reason, is_passing: true, is_of_servers: false }
    }

    /// Adds what the driver last learnt of each server, where none could be chosen.
    pub(super) fn with_servers(mut self, connected: Option<&Connected>) -> Self {
        if let Some(connected) = connected.filter(|_| self.is_of_servers) {
            let servers = connected.servers.in_words();
            self.reason.push_str(": ");
            self.reason.push_str(&servers);
        }
        self
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        let is_passing = is_passing(&error);
        match &*error.kind {
            ErrorKind::ServerSelection { message, .. } => {
                let why = why_no_server(message);
                Self { reason: why.to_owned(), is_passing, is_of_servers: why == NO_PRIMARY }
            }
            _ => Self { reason: reason(&error), is_passing, is_of_servers: false },
        }
    }
}

const NO_PRIMARY: &str = "no primary can be reached";

/// What the driver's message comes to, which is a list of all that it knows of every server and is never twice the same.
fn why_no_server(message: &str) -> &'static str {
    if message.contains("Type: RsGhost") {
        "the replica set is not initialised"
    } else if !message.contains("Servers: [") {
        "at the address is no member of the replica set that it names; a standalone server has no change streams"
    } else {
        NO_PRIMARY
    }
}

/// Whether the same may succeed in a moment: the network or the primary is away, or the cursor alone is gone. Any other error of
/// the server speaks of the place in the stream.
fn is_passing(error: &Error) -> bool {
    match *error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. } => true,
        ErrorKind::Command(ref command) if CURSOR_IS_GONE.contains(&command.code) => true,
        _ => error.contains_label(RESUMABLE_CHANGE_STREAM_ERROR),
    }
}

/// One reply of the stream.
pub(super) struct Reply {
    /// The documents that have changed, each with its `_id`.
    pub(super) changed: Vec<(DocumentKey, Bson)>,
    /// The cluster's time of the last change.
    pub(super) changed_at: Option<Timestamp>,
    /// The moment of which the collection is known behind this reply, as well as that can be told.
    pub(super) as_of: Instant,
    /// Where a stream goes on behind this reply.
    pub(super) position: Position,
}

/// The replies of a stream that are still to be applied, the reason for its end as the last.
pub(super) type Replies = mpsc::Receiver<Result<Reply, Lost>>;

/// Reads a stream until it is lost or nobody listens. It lives here alone: a read that is given up half-way leaves it
/// unusable.
pub(super) async fn pump(
    source: Source,
    mut stream: Stream,
    mut position: Position,
    replies: mpsc::Sender<Result<Reply, Lost>>,
) {
    // The first reply comes at once; that it is empty does not say that there is nothing.
    let mut is_first = true;
    loop {
        failpoint::pass("stream");
        let reply = match source.next(&mut stream).await {
            Ok(batch) => reply_of(&batch, stream.session.operation_time(), &position),
            Err(error) => Err(Lost::from(error)),
        };
        if let Ok(reply) = &reply {
            position = reply.position.clone();
            if std::mem::take(&mut is_first) && reply.changed.is_empty() {
                continue;
            }
        }
        let is_lost = reply.is_err();
        if replies.send(reply).await.is_err() || is_lost {
            return;
        }
    }
}

/// `now` is the cluster's time: a stream that lags behind tells of changes that are older than their coming.
fn reply_of(batch: &RawBatch, now: Option<Timestamp>, before: &Position) -> Result<Reply, Lost> {
    let as_of = Instant::now();
    let position = token_behind(batch)?.map_or_else(|| before.clone(), Position::Behind);
    let mut reply = Reply { changed: Vec::new(), changed_at: None, as_of, position };
    for event in batch.doc_slices().map_err(Lost::from)? {
        let Some(event) = event.map_err(unreadable)?.as_document() else { continue };
        reply.changed.push(changed_document(event)?);
        reply.changed_at = event.get_timestamp("clusterTime").ok();
    }
    if let (Some(now), Some(then)) = (now, reply.changed_at) {
        let behind = Duration::from_secs(now.time.saturating_sub(then.time).into());
        reply.as_of = as_of.checked_sub(behind).unwrap_or(as_of);
    }
    Ok(reply)
}

/// The token that stands behind the last event of a reply, or as far as the server has looked for more.
fn token_behind(batch: &RawBatch) -> Result<Option<RawDocumentBuf>, Lost> {
    let cursor = batch.as_raw_document().get_document("cursor").map_err(unreadable)?;
    let token = cursor.get("postBatchResumeToken").map_err(unreadable)?;
    Ok(token.and_then(RawBsonRef::as_document).map(RawDocument::to_owned))
}

/// The document that an event tells of.
fn changed_document(event: &RawDocument) -> Result<(DocumentKey, Bson), Lost> {
    let Ok(key) = event.get_document("documentKey") else {
        // drop, rename, dropDatabase, invalidate
        let kind = event.get_str("operationType").unwrap_or("change of an unknown kind");
        return Err(Lost::for_good(format!("the collection had a {kind}")));
    };
    let id = key.get("_id").map_err(unreadable)?;
    let id = id.ok_or_else(|| Lost::for_good("the stream tells of a document without _id"))?;
    let bson = Bson::try_from(id.to_raw_bson()).map_err(unreadable)?;
    Ok((DocumentKey::from_bson(id), bson))
}

fn unreadable<E>(_: E) -> Lost {
    Lost::for_good("what the stream says cannot be read")
}
