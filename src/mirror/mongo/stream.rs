//! Reading a change stream in a separate task.

use crate::mirror::document::DocumentKey;
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::server::{Batch, Database};
use crate::mirror::mongo::source::{
    CHANGES_BATCH, CollectionSource, MAX_AWAIT, Position, Stream, StreamBatch, documents,
};
use crate::process::failpoint;
use bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp};
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
    /// Whether the reply has no room for more changes. Then the server may hold others, which may
    /// be as old as the last one, or belong to the same transaction.
    pub(super) is_full: bool,
    /// Where a stream continues after this reply.
    pub(super) position: Position,
}

/// The replies that are not applied yet. The last one is the reason for the end of the stream.
pub(super) type StreamReplies = mpsc::Receiver<Result<StreamReply, StreamLoss>>;

/// Reads a stream until it is lost or the receiver is dropped. The cursor is not cancel-safe, so
/// one task owns it.
pub(super) async fn pump<D: Database>(
    source: CollectionSource<D>,
    mut stream: Stream<D>,
    mut position: Position,
    replies: mpsc::Sender<Result<StreamReply, StreamLoss>>,
) {
    // The server sends the first reply immediately. If it is empty, there may still be changes.
    let mut is_first = true;
    loop {
        failpoint::pass("stream");
        let reply = match source.next(&mut stream).await {
            Ok(batch) => read_reply(&batch, &position),
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

/// Reads a reply. A stream that lags reports changes that are older than their arrival.
fn read_reply<B: Batch>(
    StreamBatch { batch, requested_at, sent_at }: &StreamBatch<B>,
    before: &Position,
) -> Result<StreamReply, StreamLoss> {
    let position = token_after(batch.reply())?.map_or_else(|| before.clone(), Position::After);
    let (mut changed, mut changed_at) = (Vec::new(), None);
    for event in documents(batch).map_err(StreamLoss::from)? {
        let Some(event) = event.map_err(unreadable)?.as_document() else { continue };
        changed.push(changed_document(event)?);
        changed_at = event.get_timestamp("clusterTime").ok();
    }
    let as_of = match (sent_at, changed_at) {
        (Some(now), Some(then)) => {
            let lag = Duration::from_secs(now.time.saturating_sub(then.time).into());
            requested_at.checked_sub(lag).unwrap_or(*requested_at)
        }
        (_, Some(_)) => *requested_at,
        (_, None) => empty_as_of(*requested_at, Instant::now()),
    };
    let is_full = changed.len() >= CHANGES_BATCH as usize;
    Ok(StreamReply { changed, changed_at, as_of, is_full, position })
}

/// The moment up to which an empty reply has shown that nothing has changed. The server holds it
/// back for [`MAX_AWAIT`], and the network may delay it for longer.
fn empty_as_of(requested_at: Instant, arrived_at: Instant) -> Instant {
    let sent_at = requested_at + MAX_AWAIT;
    if sent_at <= arrived_at { sent_at } else { requested_at }
}

/// The resume token after the last event of a reply, or after the last entry of the oplog that the
/// server has scanned.
fn token_after(reply: &RawDocument) -> Result<Option<RawDocumentBuf>, StreamLoss> {
    let cursor = reply.get_document("cursor").map_err(unreadable)?;
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
