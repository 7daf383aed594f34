//! Reading a change stream in a separate task.

use crate::mirror::document::DocumentKey;
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::source::{CollectionSource, Position, Stream};
use crate::process::failpoint;
use bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp};
use mongodb::raw_batch_cursor::RawBatch;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A reply of the stream.
pub(super) struct StreamReply {
    /// The changed documents: the key and the `_id` of each.
    pub(super) changed: Vec<(DocumentKey, Bson)>,
    /// The cluster time of the last change.
    pub(super) changed_at: Option<Timestamp>,
    /// The moment whose state is known once this reply is applied, as far as the clocks agree.
    pub(super) as_of: Instant,
    /// Where a stream continues after this reply.
    pub(super) position: Position,
}

/// The replies that are not applied yet. The last one is the reason for the end of the stream.
pub(super) type StreamReplies = mpsc::Receiver<Result<StreamReply, StreamLoss>>;

/// Reads a stream until it is lost or the receiver is dropped. The cursor is not cancel-safe, so
/// one task owns it.
pub(super) async fn pump(
    source: CollectionSource,
    mut stream: Stream,
    mut position: Position,
    replies: mpsc::Sender<Result<StreamReply, StreamLoss>>,
) {
    // The server sends the first reply immediately. If it is empty, there may still be changes.
    let mut is_first = true;
    loop {
        failpoint::pass("stream");
        let reply = match source.next(&mut stream).await {
            Ok(batch) => read_reply(&batch, stream.session.operation_time(), &position),
            Err(error) => Err(StreamLoss::from(error)),
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

/// Reads a reply. `now` is the cluster time at which it was sent. A stream that lags reports
/// changes that are older than their arrival.
fn read_reply(
    batch: &RawBatch,
    now: Option<Timestamp>,
    before: &Position,
) -> Result<StreamReply, StreamLoss> {
    let as_of = Instant::now();
    let position = token_after(batch)?.map_or_else(|| before.clone(), Position::After);
    let mut reply = StreamReply { changed: Vec::new(), changed_at: None, as_of, position };
    for event in batch.doc_slices().map_err(StreamLoss::from)? {
        let Some(event) = event.map_err(unreadable)?.as_document() else { continue };
        reply.changed.push(changed_document(event)?);
        reply.changed_at = event.get_timestamp("clusterTime").ok();
    }
    if let (Some(now), Some(then)) = (now, reply.changed_at) {
        let lag = Duration::from_secs(now.time.saturating_sub(then.time).into());
        reply.as_of = as_of.checked_sub(lag).unwrap_or(as_of);
    }
    Ok(reply)
}

/// The resume token after the last event of a reply, or after the last entry of the oplog that the
/// server has scanned.
fn token_after(batch: &RawBatch) -> Result<Option<RawDocumentBuf>, StreamLoss> {
    let cursor = batch.as_raw_document().get_document("cursor").map_err(unreadable)?;
    let token = cursor.get("postBatchResumeToken").map_err(unreadable)?;
    Ok(token.and_then(RawBsonRef::as_document).map(RawDocument::to_owned))
}

/// The document that an event is about.
fn changed_document(event: &RawDocument) -> Result<(DocumentKey, Bson), StreamLoss> {
    let Ok(key) = event.get_document("documentKey") else {
        // A drop, rename, dropDatabase or invalidate.
        let kind = event.get_str("operationType").unwrap_or("change of an unknown kind");
        return Err(StreamLoss::permanent(format!("the collection had a {kind}")));
    };
    let id = key.get("_id").map_err(unreadable)?;
    let id =
        id.ok_or_else(|| StreamLoss::permanent("the stream reports a document without _id"))?;
    let bson = Bson::try_from(id.to_raw_bson()).map_err(unreadable)?;
    Ok((DocumentKey::from_bson(id), bson))
}

fn unreadable<E>(_: E) -> StreamLoss {
    StreamLoss::permanent("a reply of the stream is unreadable")
}
