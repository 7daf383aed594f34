//! Following a collection of MongoDB without a gap.
//!
//! The follower notes the cluster's operation time, opens a change stream from there, *then* reads
//! the collection, then applies the stream. So no change in between is lost, and applying a change
//! twice does no harm.
//!
//! The stream carries keys only. Changed documents are fetched: a document that is found replaces
//! its earlier version, and one that is missing is removed. Three rules make moved documents and
//! racing deletions correct:
//!
//! - Reads are majority reads from the primary, in a session that has seen the change.
//! - One fetch runs at a time.
//! - Records are keyed by `_id`, type included.

mod address;
mod authorities;
mod client;
mod look_up;
mod lost;
mod options;
mod survey;
mod reason;
mod servers;
mod settings;
mod source;
mod stream;

pub use crate::mirror::mongo::client::Mongo;
pub use crate::mirror::mongo::settings::MongoSettings;

use crate::metrics::LoadReason;
use crate::mirror::document::DocumentKey;
use crate::mirror::mongo::client::Connected;
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::source::{CollectionSource, Position};
use crate::mirror::mongo::stream::{StreamReplies, StreamReply, pump};
use crate::mirror::tables::DocumentChanges;
use crate::mirror::{Mirror, View};
use crate::process::backoff::Backoff;
use crate::process::lifecycle::Condition;
use bson::{Binary, Bson, RawDocument, Timestamp};
use mongodb::ClientSession;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The number of replies that wait to be applied. The stream is not read while this many wait.
const WAITING_REPLIES: usize = 4;

/// How often the age of a silent stream is checked.
const AGE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The number of changed documents at which no more replies are added to a fetch.
const FETCHED_DOCUMENTS: usize = 1000;

/// The initial time limit of a reply. The driver itself has none: it waits forever for a server
/// that holds back a reply and is otherwise healthy.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// The time limit of a reply grows up to this, because a large collection on a slow disk may need
/// it.
const LONGEST_REPLY_LIMIT: Duration = Duration::from_mins(10);

/// How long a client without progress is kept while its stream may continue. A client may have
/// discovered servers that the address does not name.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// Keeps a mirror equal to a collection. Never returns.
pub async fn follow<V: View>(mongo: Arc<Mongo>, collection: String, mut mirror: Mirror<V>) {
    let mut follow = FollowState {
        mongo,
        collection,
        connected: None,
        position: None,
        uuid: None,
        has_advanced: false,
        reason: LoadReason::Start,
        limit: REPLY_LIMIT,
    };
    let mut backoff = Backoff::default();
    let mut advanced_at = Instant::now();
    loop {
        follow.has_advanced = false;
        let Err(lost) = follow.until_lost(&mut mirror).await;
        let lost = lost.with_servers(follow.connected.as_ref().map(|connected| &connected.servers));
        if !lost.is_transient {
            follow.position = None;
        }
        if follow.has_advanced {
            advanced_at = Instant::now();
            follow.limit = REPLY_LIMIT;
            backoff.reset();
        } else {
            follow.limit = (follow.limit * 2).min(LONGEST_REPLY_LIMIT);
        }
        if follow.position.is_none() || advanced_at.elapsed() > CLIENT_PATIENCE {
            follow.connected = None;
        }
        if follow.has_advanced && follow.position.is_some() {
            // Worth a warning only if the next attempt fails too.
            tracing::debug!(
                collection = follow.collection,
                reason = lost.reason,
                "change stream interrupted"
            );
        } else {
            mirror.report(not_followed(&mirror, &lost));
        }
        backoff.wait().await;
    }
}

/// The condition of a mirror that is not followed at the moment.
fn not_followed<V: View>(mirror: &Mirror<V>, lost: &StreamLoss) -> Condition {
    if mirror.freshness.is_loaded() {
        Condition::Degraded(vec![format!("not followed: {}", lost.reason)])
    } else {
        Condition::NotReady(format!("not loaded: {}", lost.reason))
    }
}

/// The state of a follower that outlives a change stream.
struct FollowState {
    mongo: Arc<Mongo>,
    collection: String,
    connected: Option<Connected>,
    /// Where the next stream continues: after everything that has been applied. `None` if the
    /// collection has to be loaded.
    position: Option<Position>,
    /// The UUID of the collection, if known. After a server has been set up again, its stream may
    /// resume although the collection of the same name is a different one.
    uuid: Option<Binary>,
    /// Whether a reply of the last stream has been applied.
    has_advanced: bool,
    /// The reason of the next load.
    reason: LoadReason,
    /// The time limit of a reply.
    limit: Duration,
}

impl FollowState {
    /// Follows the collection until the stream is lost. Loads it first, unless the stream continues
    /// at the position of the last one.
    async fn until_lost<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
    ) -> Result<Infallible, StreamLoss> {
        let connected = match &self.connected {
            Some(connected) => connected,
            None => self.connected.insert(self.mongo.connect().await?),
        };
        let source = CollectionSource::new(&connected.database, &self.collection, self.limit);
        let begun_at = Instant::now();
        let mut session = source.session().await?;
        let now = session.operation_time();
        let from = self.position.clone().unwrap_or(Position::Time(now));
        let stream = source.open_stream(&from).await?;
        let (sender, replies) = mpsc::channel(WAITING_REPLIES);
        // The task ends when the receiver is dropped.
        tokio::spawn(pump(source.clone(), stream, from, sender));
        let (exists, uuid) = source.identity(&mut session).await?;
        let is_missing = !exists;
        let caught_up = self.position.is_some();
        // A collection that exists without a known UUID may be the same: not every user may read
        // it.
        let is_replaced =
            self.uuid.is_some() && uuid != self.uuid && (is_missing || uuid.is_some());
        if caught_up && is_replaced {
            return Err(StreamLoss::permanent("the collection is not the one that was loaded"));
        }
        self.uuid = uuid;
        if !caught_up {
            source.load(mirror, &mut session, self.reason).await?;
            self.reason = LoadReason::StreamLost;
            mirror.loaded_as_of(begun_at);
        }
        let (loaded_at, loaded_by) = (session.operation_time(), Instant::now());
        let follower = StreamFollower {
            source,
            session,
            loaded_at,
            loaded_by,
            caught_up,
            is_missing,
            follow: self,
        };
        follower.run(mirror, replies).await
    }
}

/// Applies a change stream to a mirror that has been loaded.
struct StreamFollower<'a> {
    source: CollectionSource,
    session: ClientSession,
    /// The cluster time at the end of the load.
    loaded_at: Option<Timestamp>,
    /// The end of the load by the local clock.
    loaded_by: Instant,
    /// Whether every change up to the end of the load has been applied.
    caught_up: bool,
    /// Whether the collection does not exist.
    is_missing: bool,
    follow: &'a mut FollowState,
}

impl StreamFollower<'_> {
    /// Applies replies until the stream is lost.
    async fn run<V: View>(
        mut self,
        mirror: &mut Mirror<V>,
        mut replies: StreamReplies,
    ) -> Result<Infallible, StreamLoss> {
        loop {
            match tokio::time::timeout(AGE_CHECK_INTERVAL, replies.recv()).await {
                // A silent stream may have become stale.
                Err(_) if self.caught_up => mirror.report(self.condition()),
                Err(_) => {}
                Ok(None) => {
                    return Err(StreamLoss::permanent("the task that reads the stream has ended"));
                }
                Ok(Some(reply)) => self.handle(mirror, reply?, &mut replies).await?,
            }
        }
    }

    /// Applies a reply together with those that wait after it, up to the size of a fetch.
    async fn handle<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        mut reply: StreamReply,
        replies: &mut StreamReplies,
    ) -> Result<(), StreamLoss> {
        let mut changed = self.take_changes(&mut reply);
        let mut lost = None;
        while changed.len() < FETCHED_DOCUMENTS && lost.is_none() {
            match replies.try_recv() {
                Err(_) => break,
                Ok(Err(reason)) => lost = Some(reason),
                Ok(Ok(next)) => {
                    reply = next;
                    changed.extend(self.take_changes(&mut reply));
                }
            }
        }
        if !changed.is_empty() {
            self.apply(mirror, changed).await?;
        }
        if self.is_missing && self.caught_up {
            // The stream does not report the creation of an empty collection.
            let exists = self.source.exists(&mut self.session).await;
            self.is_missing = !exists.unwrap_or_default();
        }
        if self.caught_up {
            self.follow.position = Some(reply.position);
            self.follow.has_advanced = true;
            mirror.current_as_of(reply.as_of);
            mirror.report(self.condition());
        }
        lost.map_or(Ok(()), Err)
    }

    /// Takes the changes out of a reply, and records whether the stream has caught up with the
    /// load.
    fn take_changes(&mut self, reply: &mut StreamReply) -> HashMap<DocumentKey, Bson> {
        let is_after_load = match reply.changed_at {
            Some(changed_at) => Some(changed_at) > self.loaded_at,
            None => reply.as_of > self.loaded_by,
        };
        self.caught_up |= is_after_load;
        if let Some(time) = reply.changed_at {
            self.session.advance_operation_time(time);
        }
        std::mem::take(&mut reply.changed).into_iter().collect()
    }

    /// Fetches the changed documents and applies them.
    async fn apply<V: View>(
        &mut self,
        mirror: &mut Mirror<V>,
        changed: HashMap<DocumentKey, Bson>,
    ) -> mongodb::error::Result<()> {
        self.is_missing = false;
        let ids = changed.values().cloned().collect();
        let projection = mirror.projection();
        let mut missing = changed;
        let mut updates: DocumentChanges<V> = Vec::with_capacity(missing.len());
        let visit = |key: DocumentKey, document: &RawDocument| {
            if missing.remove(&key).is_some() {
                mirror.upsert(&mut updates, key, document);
            }
        };
        self.source.fetch(ids, projection, &mut self.session, visit).await?;
        for key in missing.into_keys() {
            mirror.remove(&mut updates, key);
        }
        mirror.apply(updates);
        Ok(())
    }

    fn condition(&self) -> Condition {
        if self.is_missing {
            let name = self.source.name();
            return Condition::Degraded(vec![format!(
                "{name} does not exist and is served as empty"
            )]);
        }
        Condition::Ready
    }
}
