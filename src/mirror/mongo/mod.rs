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
//! - Reads come from the primary, and show the state at the cluster time of the last change.
//! - One fetch runs at a time.
//! - Records are keyed by `_id`, type included.
//!
//! So the index always shows one moment of the collection. The server may no longer know the state
//! at that time. Then the follower reads the newest state, and what it publishes is *ahead of the
//! stream*: a key that has moved between two documents may be in neither of them. A miss is not
//! believed until the stream has reported everything up to the end of the read. The same holds for
//! a load.

mod address;
mod authorities;
mod client;
mod driver;
mod look_up;
mod lost;
mod options;
mod survey;
mod reason;
mod server;
mod servers;
mod settings;
#[cfg(test)]
mod simulation;
mod source;
mod stream;

pub use crate::mirror::mongo::client::Mongo;
pub use crate::mirror::mongo::settings::MongoSettings;

use crate::metrics::LoadReason;
use crate::mirror::collection_indexes::DocumentChanges;
use crate::mirror::document::DocumentKey;
use crate::mirror::mongo::client::Connected;
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::server::{Address, Database, Session};
use crate::mirror::mongo::source::{CollectionSource, Position};
use crate::mirror::mongo::stream::{StreamReplies, StreamReply, pump};
use crate::mirror::{Mirror, MirroredCollection};
use crate::process::backoff::Backoff;
use crate::process::lifecycle::Condition;
use bson::{Binary, Bson, RawDocument, Timestamp};
use std::collections::{HashMap, HashSet};
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
pub async fn follow<C: MirroredCollection>(
    mongo: Arc<Mongo>,
    collection: String,
    mirror: Mirror<C>,
) {
    follow_at(mongo, collection, mirror).await;
}

async fn follow_at<A: Address, C: MirroredCollection>(
    mongo: Arc<A>,
    collection: String,
    mut mirror: Mirror<C>,
) {
    let mut follow = FollowState {
        mongo,
        collection,
        connected: None,
        position: None,
        uuid: None,
        ahead: None,
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
fn not_followed<C: MirroredCollection>(mirror: &Mirror<C>, lost: &StreamLoss) -> Condition {
    if mirror.freshness.is_loaded() {
        Condition::Degraded(vec![format!("not followed: {}", lost.reason)])
    } else {
        Condition::NotReady(format!("not loaded: {}", lost.reason))
    }
}

/// The state of a follower that outlives a change stream.
struct FollowState<A: Address> {
    mongo: Arc<A>,
    collection: String,
    connected: Option<Connected<A::Database>>,
    /// Where the next stream continues: after everything that has been applied. `None` if the
    /// collection has to be loaded.
    position: Option<Position>,
    /// The UUID of the collection, if known. After a server has been set up again, its stream may
    /// resume although the collection of the same name is a different one.
    uuid: Option<Binary>,
    /// The end of the last read, if the stream has not passed it yet.
    ahead: Option<ReadEnd>,
    /// Whether a reply of the last stream has been applied.
    has_advanced: bool,
    /// The reason of the next load.
    reason: LoadReason,
    /// The time limit of a reply.
    limit: Duration,
}

/// The end of a read whose documents may be newer than what the stream has reported.
#[derive(Debug)]
struct ReadEnd {
    /// The cluster time of the state that was read last.
    at: Option<Timestamp>,
    /// The local time.
    by: Instant,
}

impl ReadEnd {
    fn new(session: &impl Session) -> Self {
        Self { at: session.operation_time(), by: Instant::now() }
    }

    /// Whether a reply shows that the stream has reported everything that was read.
    fn is_before(&self, reply: &StreamReply) -> bool {
        match reply.changed_at {
            Some(changed_at) => Some(changed_at) > self.at,
            None => reply.as_of > self.by,
        }
    }
}

impl<A: Address> FollowState<A> {
    /// Follows the collection until the stream is lost. Loads it first, unless the stream continues
    /// at the position of the last one.
    async fn until_lost<C: MirroredCollection>(
        &mut self,
        mirror: &mut Mirror<C>,
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
        // A collection that exists without a known UUID may be the same: not every user may read
        // it.
        let is_replaced =
            self.uuid.is_some() && uuid != self.uuid && (is_missing || uuid.is_some());
        if self.position.is_some() && is_replaced {
            return Err(StreamLoss::permanent("the collection is not the one that was loaded"));
        }
        self.uuid = uuid;
        if self.position.is_none() {
            source.load(mirror, &mut session, self.reason).await?;
            self.reason = LoadReason::StreamLost;
            self.ahead = Some(ReadEnd::new(&session));
            mirror.set_age_origin(begun_at);
        }
        StreamFollower { source, session, is_missing, follow: self }.run(mirror, replies).await
    }
}

/// Applies a change stream to a mirror that has been loaded.
struct StreamFollower<'a, A: Address> {
    source: CollectionSource<A::Database>,
    session: <A::Database as Database>::Session,
    /// Whether the collection does not exist.
    is_missing: bool,
    follow: &'a mut FollowState<A>,
}

impl<A: Address> StreamFollower<'_, A> {
    /// Applies replies until the stream is lost.
    async fn run<C: MirroredCollection>(
        mut self,
        mirror: &mut Mirror<C>,
        mut replies: StreamReplies,
    ) -> Result<Infallible, StreamLoss> {
        loop {
            match tokio::time::timeout(AGE_CHECK_INTERVAL, replies.recv()).await {
                // A silent stream may have become stale.
                Err(_) if self.follow.ahead.is_none() => mirror.report(self.condition()),
                Err(_) => {}
                Ok(None) => {
                    return Err(StreamLoss::permanent("the task that reads the stream has ended"));
                }
                Ok(Some(reply)) => self.handle(mirror, reply?, &mut replies).await?,
            }
        }
    }

    /// Applies a reply together with those that wait after it, up to the size of a fetch.
    async fn handle<C: MirroredCollection>(
        &mut self,
        mirror: &mut Mirror<C>,
        mut reply: StreamReply,
        replies: &mut StreamReplies,
    ) -> Result<(), StreamLoss> {
        let mut changes = Changes::default();
        let mut lost = None;
        self.take_changes(&mut reply, &mut changes);
        while changes.documents.len() < FETCHED_DOCUMENTS && lost.is_none() {
            match replies.try_recv() {
                Err(_) => break,
                Ok(Err(reason)) => lost = Some(reason),
                Ok(Ok(next)) => {
                    reply = next;
                    self.take_changes(&mut reply, &mut changes);
                }
            }
        }
        if reply.is_full {
            // The rest of a transaction may be missing.
            mirror.mark_inconsistent();
        }
        if !changes.documents.is_empty() {
            self.apply(mirror, changes).await?;
        }
        if self.is_missing {
            // The stream does not report the creation of an empty collection.
            let exists = self.source.exists(&mut self.session).await;
            self.is_missing = !exists.unwrap_or_default();
        }
        self.follow.position = Some(reply.position);
        self.follow.has_advanced = true;
        if self.follow.ahead.is_none() && !reply.is_full {
            mirror.mark_current(reply.as_of);
            mirror.report(self.condition());
        }
        lost.map_or(Ok(()), Err)
    }

    /// Takes the changes out of a reply, and records whether the stream has passed the last read.
    fn take_changes(&mut self, reply: &mut StreamReply, changes: &mut Changes) {
        self.follow.ahead.take_if(|ahead| ahead.is_before(reply));
        if let Some(time) = reply.changed_at {
            self.session.advance_operation_time(time);
            changes.last_at = Some(time);
        }
        changes.documents.extend(std::mem::take(&mut reply.changed));
    }

    /// Fetches the changed documents and applies them.
    async fn apply<C: MirroredCollection>(
        &mut self,
        mirror: &mut Mirror<C>,
        changes: Changes,
    ) -> mongodb::error::Result<()> {
        self.is_missing = false;
        // What is ahead of the stream must not go back to an earlier state.
        if let Some(moment) = changes.last_at.filter(|_| self.follow.ahead.is_none()) {
            let mut fetch = Fetch::new(mirror, &changes);
            let (ids, query) = (changes.ids(), fetch.mirror.query());
            let visit = |key: DocumentKey, document: &RawDocument| fetch.visit(key, document);
            if self.source.fetch_at(moment, ids, query, visit).await? {
                fetch.publish();
                return Ok(());
            }
        }
        let mut fetch = Fetch::new(mirror, &changes);
        let (ids, query) = (changes.ids(), fetch.mirror.query());
        let visit = |key: DocumentKey, document: &RawDocument| fetch.visit(key, document);
        self.source.fetch(ids, query, &mut self.session, visit).await?;
        self.follow.ahead = Some(ReadEnd::new(&self.session));
        fetch.mirror.mark_inconsistent();
        fetch.publish();
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

/// The documents that the stream reports as changed.
#[derive(Debug, Default)]
struct Changes {
    documents: HashMap<DocumentKey, Bson>,
    /// The cluster time of the last change.
    last_at: Option<Timestamp>,
}

impl Changes {
    fn ids(&self) -> Vec<Bson> {
        self.documents.values().cloned().collect()
    }
}

/// The changed documents as they are fetched.
struct Fetch<'a, C: MirroredCollection> {
    mirror: &'a mut Mirror<C>,
    /// The documents that were not found yet.
    missing: HashSet<DocumentKey>,
    updates: DocumentChanges<C>,
}

impl<'a, C: MirroredCollection> Fetch<'a, C> {
    fn new(mirror: &'a mut Mirror<C>, changes: &Changes) -> Self {
        let missing: HashSet<DocumentKey> = changes.documents.keys().cloned().collect();
        let updates = Vec::with_capacity(missing.len());
        Self { mirror, missing, updates }
    }

    fn visit(&mut self, key: DocumentKey, document: &RawDocument) {
        if self.missing.remove(&key) {
            self.mirror.upsert(&mut self.updates, key, document);
        }
    }

    /// Publishes the documents, and removes those that were not found.
    fn publish(mut self) {
        for key in self.missing {
            self.mirror.remove(&mut self.updates, key);
        }
        self.mirror.apply(self.updates);
    }
}
