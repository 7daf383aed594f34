//! A simulated replica set: the collection, its oplog, and what has reached a majority.

use crate::mirror::mongo::simulation::content::{
    Answer, Content, DOCUMENTS, KEYS, State, answer, id,
};
use bson::{Document, RawArrayBuf, RawDocumentBuf, Timestamp, doc, rawdoc};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A time of the cluster: seconds in the upper half, the increment in the lower one.
pub(super) type ClusterTime = u64;

pub(super) fn timestamp(time: ClusterTime) -> Timestamp {
    let [time, increment] = [time >> 32, time & u64::from(u32::MAX)];
    Timestamp { time: time.try_into().unwrap(), increment: increment.try_into().unwrap() }
}

pub(super) fn cluster_time(timestamp: Timestamp) -> ClusterTime {
    u64::from(timestamp.time) << 32 | u64::from(timestamp.increment)
}

/// A position in the oplog: after this entry.
pub(super) type Place = (ClusterTime, u32);

/// The seconds of the cluster when the simulation begins.
const EPOCH: u64 = 1_700_000_000;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Upsert(u8),
    Delete(u8),
    /// The end of the collection.
    Drop(&'static str),
    Noop,
}

#[derive(Debug)]
struct OplogEntry {
    place: Place,
    kind: Kind,
}

/// A collection as of a write.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) time: ClusterTime,
    /// When it reached a majority, or will.
    pub(super) at: Instant,
    pub(super) state: Arc<State>,
    /// What a lookup of each key finds.
    pub(super) answers: [Answer; KEYS as usize],
    pub(super) collection: Option<Identity>,
}

impl Version {
    fn new(time: ClusterTime, at: Instant, state: State, collection: Option<Identity>) -> Self {
        let answers = std::array::from_fn(|key| answer(&state, u8::try_from(key).unwrap(), true));
        Self { time, at, state: Arc::new(state), answers, collection }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uuid: u8,
    created: ClusterTime,
}

/// The replica set, as its primary sees it.
#[derive(Debug)]
pub(super) struct Server {
    begin: Instant,
    /// How much the clock of the primary is ahead, in seconds.
    skew: u64,
    /// The last entry of the oplog.
    last: ClusterTime,
    oplog: Vec<OplogEntry>,
    /// Positions before this are lost, unless the set has just been initiated.
    oplog_begin: ClusterTime,
    is_just_initiated: bool,
    /// The versions that have reached a majority.
    pub(super) history: Vec<Version>,
    /// Versions that have not reached a majority.
    pending: VecDeque<Version>,
    /// After an election the primary may not know yet how far the majority is: the time that it
    /// knows, and until when.
    known: Option<(ClusterTime, Instant)>,
    committed: ClusterTime,
    uuids: u8,
}

impl Server {
    pub(super) fn new(state: State) -> Self {
        let now = Instant::now();
        let time = EPOCH << 32 | 1;
        let collection = Some(Identity { uuid: 1, created: time });
        Self {
            begin: now,
            skew: 0,
            last: time,
            oplog: Vec::new(),
            oplog_begin: time,
            is_just_initiated: false,
            history: vec![Version::new(time, now, state, collection)],
            pending: VecDeque::new(),
            known: None,
            committed: time,
            uuids: 1,
        }
    }

    /// The newest version, which may not have reached a majority.
    pub(super) fn newest(&self) -> &Version {
        self.pending.back().or_else(|| self.history.last()).unwrap()
    }

    /// The newest version that has reached a majority.
    pub(super) fn current(&self) -> &Version {
        self.history.last().unwrap()
    }

    pub(super) fn last(&self) -> ClusterTime {
        self.last
    }

    /// How far the primary knows that the majority is.
    pub(super) fn majority(&self) -> ClusterTime {
        match self.known {
            Some((known, until)) if Instant::now() < until => known.min(self.committed),
            _ => self.committed,
        }
    }

    /// The newest version that a majority read returns.
    pub(super) fn version_at(&self, time: ClusterTime) -> &Version {
        let at = self.history.partition_point(|version| version.time <= time);
        self.history.get(at.saturating_sub(1)).unwrap()
    }

    /// Whether the collection can be read as of a time. The catalogue has no history.
    pub(super) fn is_readable_at(&self, time: ClusterTime) -> bool {
        let collection = self.newest().collection;
        time >= self.oplog_begin_of_life() && collection.is_none_or(|one| one.created <= time)
    }

    fn oplog_begin_of_life(&self) -> ClusterTime {
        if self.is_just_initiated { self.oplog_begin } else { 0 }
    }

    fn tick(&mut self) -> ClusterTime {
        let seconds = EPOCH + self.begin.elapsed().as_secs() + self.skew;
        self.last = (self.last + 1).max(seconds << 32 | 1);
        self.last
    }

    fn log(&mut self, time: ClusterTime, kinds: &[Kind]) {
        for (index, kind) in (1..).zip(kinds) {
            self.oplog.push(OplogEntry { place: (time, index), kind: *kind });
        }
    }

    /// Adds a version that reaches the majority after `lag`.
    fn push(
        &mut self,
        time: ClusterTime,
        state: State,
        collection: Option<Identity>,
        lag: Duration,
    ) {
        let due = self.pending.back().map_or_else(Instant::now, |version| version.at);
        let at = due.max(Instant::now() + lag);
        self.pending.push_back(Version::new(time, at, state, collection));
    }

    /// Writes documents in one transaction.
    pub(super) fn write(&mut self, changes: Vec<(u8, Option<Content>)>, lag: Duration) {
        let newest = self.newest();
        let (mut state, mut collection) = (State::clone(&newest.state), newest.collection);
        let time = self.tick();
        let mut kinds = Vec::new();
        for (document, content) in changes {
            match content {
                Some(content) => {
                    state.insert(document, content);
                    kinds.push(Kind::Upsert(document));
                }
                None if state.remove(&document).is_some() => kinds.push(Kind::Delete(document)),
                None => {}
            }
        }
        if collection.is_none() && !state.is_empty() {
            collection = Some(self.new_collection(time));
        }
        self.log(time, &kinds);
        self.push(time, state, collection, lag);
    }

    fn new_collection(&mut self, created: ClusterTime) -> Identity {
        self.uuids += 1;
        Identity { uuid: self.uuids, created }
    }

    pub(super) fn noop(&mut self) {
        let time = self.tick();
        let Version { state, collection, .. } = self.newest().clone();
        self.log(time, &[Kind::Noop]);
        self.push(time, State::clone(&state), collection, Duration::ZERO);
    }

    pub(super) fn drop_collection(&mut self) {
        let time = self.tick();
        self.log(time, &[Kind::Drop("drop")]);
        self.push(time, State::new(), None, Duration::ZERO);
    }

    /// Renames another collection over this one.
    pub(super) fn swap(&mut self, state: State) {
        let time = self.tick();
        let collection = Some(self.new_collection(time));
        self.log(time, &[Kind::Drop("rename")]);
        self.push(time, state, collection, Duration::ZERO);
    }

    /// When the next version reaches the majority.
    pub(super) fn next_commit(&self) -> Option<Instant> {
        let pending = self.pending.front().map(|version| version.at);
        let known = self.known.map(|(_, until)| until).filter(|until| *until > Instant::now());
        pending.into_iter().chain(known).min()
    }

    /// Commits what is due.
    pub(super) fn commit(&mut self) {
        while let Some(version) = self.pending.pop_front_if(|next| next.at <= Instant::now()) {
            self.push_committed(version);
        }
    }

    fn push_committed(&mut self, version: Version) {
        self.committed = version.time;
        let current = self.current();
        if !Arc::ptr_eq(&version.state, &current.state)
            && (*version.state != *current.state || version.collection != current.collection)
        {
            self.history.push(version);
        }
    }

    /// Another member becomes primary. Some writes that have not reached a majority are rolled
    /// back. `kept` of them have reached the new primary.
    pub(super) fn elect(&mut self, kept: usize, known: (usize, Duration), skew: u64) {
        let now = Instant::now();
        for _ in 0..kept {
            let Some(version) = self.pending.pop_front() else { break };
            self.push_committed(Version { at: now, ..version });
        }
        self.pending.clear();
        let committed = self.committed;
        self.oplog.retain(|entry| entry.place.0 <= committed);
        self.last = committed;
        let (versions, lag) = known;
        let known = self.history.iter().rev().nth(versions).map_or(committed, |known| known.time);
        self.known = Some((known.max(self.oplog_begin).min(committed), now + lag));
        self.skew = skew;
        self.noop();
    }

    /// Moves the cluster's clock to a time that a client has seen, if it is later.
    pub(super) fn gossip(&mut self, time: ClusterTime) {
        if time > self.last {
            self.last = time - 1;
            self.noop();
        }
    }

    /// Drops the oplog before the last entry of the majority.
    pub(super) fn trim(&mut self) {
        self.oplog_begin = self.committed;
        self.is_just_initiated = false;
    }

    /// The set is set up again with other collections of the same names. Its oplog begins with its
    /// initiation, so that it accepts every position.
    pub(super) fn set_up_again(&mut self, state: State) {
        self.pending.clear();
        self.oplog.clear();
        self.known = None;
        let time = self.tick();
        let collection = Some(self.new_collection(time));
        self.oplog_begin = time;
        self.is_just_initiated = true;
        self.committed = time;
        self.history.push(Version::new(time, Instant::now(), state, collection));
    }

    /// Whether a stream can begin after this place.
    pub(super) fn has_place(&self, (time, _): Place) -> bool {
        time >= self.oplog_begin || self.is_just_initiated
    }

    /// The events after a place, up to `most`, and the place after them.
    pub(super) fn events(&self, after: Place, most: usize) -> (Vec<RawDocumentBuf>, Place) {
        let majority = self.majority();
        let first = self.oplog.partition_point(|entry| entry.place <= after);
        let mut events = Vec::new();
        for entry in self.oplog.get(first..).unwrap_or_default() {
            if entry.place.0 > majority {
                break;
            }
            if let Some(event) = event(entry) {
                events.push(event);
                if events.len() == most {
                    return (events, entry.place);
                }
            }
        }
        let last = self.oplog.iter().rev().find(|entry| entry.place.0 <= majority);
        let last = last.map_or((majority, 0), |entry| entry.place.max((majority, 0)));
        (events, last.max(after))
    }
}

fn event(entry: &OplogEntry) -> Option<RawDocumentBuf> {
    let (kind, document) = match entry.kind {
        Kind::Upsert(document) => ("replace", Some(document)),
        Kind::Delete(document) => ("delete", Some(document)),
        Kind::Drop(kind) => (kind, None),
        Kind::Noop => return None,
    };
    let mut event = rawdoc! {
        "_id": { "_data": "" }, "operationType": kind, "clusterTime": timestamp(entry.place.0),
    };
    if let Some(document) = document {
        let mut key = RawDocumentBuf::new();
        key.append("_id", id(document));
        event.append("documentKey", key);
    }
    Some(event)
}

/// Whether a stream ends with this event.
pub(super) fn is_end(event: &RawDocumentBuf) -> bool {
    event.get("documentKey").is_ok_and(|key| key.is_none())
}

/// Whether an event is a deletion.
pub(super) fn is_delete(event: &RawDocumentBuf) -> bool {
    event.get_str("operationType") == Ok("delete")
}

pub(super) fn token((time, index): Place) -> RawDocumentBuf {
    rawdoc! { "_data": format!("{time:016x}{index:08x}") }
}

pub(super) fn place(token: &Document) -> Place {
    let data = token.get_str("_data").unwrap();
    let (time, index) = data.split_at(16);
    (u64::from_str_radix(time, 16).unwrap(), u32::from_str_radix(index, 16).unwrap())
}

/// The reply of a cursor.
pub(super) fn reply(
    batch: &str,
    documents: &[RawDocumentBuf],
    token: Option<RawDocumentBuf>,
) -> RawDocumentBuf {
    let mut array = RawArrayBuf::new();
    for document in documents {
        array.push(document.clone());
    }
    let mut cursor = RawDocumentBuf::new();
    cursor.append(batch, array);
    if let Some(token) = token {
        cursor.append("postBatchResumeToken", token);
    }
    rawdoc! { "cursor": cursor, "ok": 1 }
}

/// The entry of the collection in `listCollections`.
pub(super) fn listed(collection: Option<Identity>, knows_uuid: bool) -> Document {
    let entry = collection.map(|Identity { uuid, .. }| {
        let uuid = if knows_uuid { uuid } else { 0 };
        let bytes = vec![uuid; 16];
        let uuid = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes };
        doc! { "name": "collection", "info": { "uuid": uuid } }
    });
    doc! { "cursor": { "firstBatch": entry.into_iter().collect::<Vec<_>>() } }
}

/// The documents after this one in the order of a scan.
pub(super) fn scan(state: &State, from: u8, most: usize) -> Vec<u8> {
    (from..DOCUMENTS).filter(|document| state.contains_key(document)).take(most).collect()
}
