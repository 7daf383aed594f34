//! Connections to the simulated replica set: commands with latency, and everything that may go wrong
//! with them.

use crate::mirror::mongo::client::Connected;
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::server::{Address, Aggregate, Batch, Database, Session, SessionKind};
use crate::mirror::mongo::servers::Servers;
use crate::mirror::mongo::simulation::content::{document, number};
use crate::mirror::mongo::simulation::mutation::Mutation;
use crate::mirror::mongo::simulation::server::{
    ClusterTime, Place, Server, cluster_time, is_delete, is_end, listed, place, reply, scan,
    timestamp, token,
};
use crate::mirror::mongo::simulation::world::World;
use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp};
use mongodb::error::{CommandError, Error, ErrorKind, Result};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A reply that the simulated server has made.
pub(super) struct SimulatedBatch(RawDocumentBuf);

impl Batch for SimulatedBatch {
    fn reply(&self) -> &RawDocument {
        &self.0
    }
}

pub(super) struct SimulatedSession {
    kind: SessionKind,
    operation_time: Option<ClusterTime>,
}

impl SimulatedSession {
    fn see(&mut self, time: ClusterTime) {
        self.operation_time = self.operation_time.max(Some(time));
    }
}

impl Session for SimulatedSession {
    fn operation_time(&self) -> Option<Timestamp> {
        self.operation_time.map(timestamp)
    }

    fn advance_operation_time(&mut self, time: Timestamp) {
        self.see(cluster_time(time));
    }
}

pub(super) struct SimulatedCursor {
    kind: CursorKind,
    /// The number of the primary that has the cursor.
    primary: u32,
    /// The reply that arrives with a stream.
    first: Option<SimulatedBatch>,
}

enum CursorKind {
    Stream {
        after: Place,
        has_ended: bool,
        /// With [`Mutation::StreamAfterLoad`]: the loads that had ended when the stream was opened.
        waits_after: Option<u32>,
    },
    /// Reads these documents, or all from a number on.
    Read { ids: Option<Vec<u8>>, from: Option<u8> },
}

impl Address for World {
    type Database = Arc<Self>;

    async fn connect(&self) -> std::result::Result<Connected<Arc<Self>>, StreamLoss> {
        sleep(self.latency()).await;
        if self.is_drawn(0.01) {
            return Err(StreamLoss::transient("the name cannot be looked up".to_owned()));
        }
        let database = self.itself.upgrade().unwrap();
        Ok(Connected { database, servers: Servers::default(), _authorities: None })
    }
}

impl Database for Arc<World> {
    type Session = SimulatedSession;
    type Cursor = SimulatedCursor;
    type Batch = SimulatedBatch;

    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn session(&self, kind: SessionKind) -> Result<SimulatedSession> {
        Ok(SimulatedSession { kind, operation_time: None })
    }

    async fn run(&self, command: Document, session: &mut SimulatedSession) -> Result<Document> {
        let connection = self.request("run").await?;
        let reply = {
            let mut server = self.server();
            server.commit();
            session.see(server.last());
            if command.contains_key("listCollections") {
                listed(server.newest().collection, self.mutation != Some(Mutation::NoUuid))
            } else {
                Document::new()
            }
        };
        self.respond(connection).await?;
        Ok(reply)
    }

    async fn aggregate(
        &self,
        aggregate: Aggregate<'_>,
        session: &mut SimulatedSession,
    ) -> Result<SimulatedCursor> {
        let connection = self.request("aggregate").await?;
        self.wait_for(session).await;
        let stage = aggregate.pipeline.first().unwrap();
        let kind = if let Ok(from) = stage.get_document("$changeStream") {
            self.open_stream(from)?
        } else if let Ok(filter) = stage.get_document("$match") {
            let ids = filter.get_document("_id").unwrap().get_array("$in").unwrap();
            let mut ids: Vec<u8> = ids.iter().map(number).collect();
            ids.sort_unstable();
            CursorKind::Read { ids: Some(ids), from: Some(0) }
        } else {
            CursorKind::Read { ids: None, from: Some(0) }
        };
        let is_stream = matches!(kind, CursorKind::Stream { .. });
        assert_eq!(is_stream, aggregate.max_await.is_some());
        let mut cursor = SimulatedCursor { kind, primary: self.primary(), first: None };
        if is_stream {
            cursor.first = Some(self.first_reply(&mut cursor, session));
        }
        self.respond(connection).await?;
        Ok(cursor)
    }

    async fn next(
        &self,
        cursor: &mut SimulatedCursor,
        session: &mut SimulatedSession,
    ) -> Result<Option<SimulatedBatch>> {
        if let Some(first) = cursor.first.take() {
            return Ok(Some(first));
        }
        let connection = self.request("getMore").await?;
        if cursor.primary != self.primary() {
            return Err(command_error(43));
        }
        let batch = match &mut cursor.kind {
            CursorKind::Read { ids, from } => self.read(ids.as_deref(), from, session).await?,
            CursorKind::Stream { .. } => Some(self.next_events(cursor, session).await?),
        };
        self.respond(connection).await?;
        Ok(batch)
    }
}

/// Between a request and its reply.
struct Connection(u32);

impl World {
    /// Sends a request. It fails if no server can be reached or the server refuses it.
    async fn request(&self, what: &'static str) -> Result<Connection> {
        self.trace(what, 0);
        let connection = self.connection();
        sleep(self.latency()).await;
        if self.is_down() {
            // The driver looks for a server for a while.
            sleep(Duration::from_secs(3)).await;
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        self.thaw().await;
        match self.refusal() {
            Some(0) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Some(code) => Err(command_error(code)),
            None => Ok(Connection(connection)),
        }
    }

    /// Receives a reply, unless the connection is closed meanwhile.
    async fn respond(&self, Connection(number): Connection) -> Result<()> {
        self.thaw().await;
        sleep(self.latency()).await;
        if number != self.connection() {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        self.check();
        Ok(())
    }

    /// Waits while the server is frozen.
    async fn thaw(&self) {
        while let Some(until) = self.frozen_until() {
            sleep_until(until).await;
        }
    }

    /// Waits until the state that the session has seen can be read.
    async fn wait_for(&self, session: &SimulatedSession) {
        let time = match session.kind {
            SessionKind::At(moment) => Some(cluster_time(moment)),
            SessionKind::Causal => session.operation_time,
        };
        let Some(time) = time.filter(|_| self.mutation != Some(Mutation::NotCausal)) else {
            return;
        };
        self.server().gossip(time);
        loop {
            let change = self.change();
            let majority = {
                let mut server = self.server();
                server.commit();
                server.majority()
            };
            if majority >= time {
                return;
            }
            change.await;
        }
    }

    fn open_stream(&self, from: &Document) -> Result<CursorKind> {
        let mut server = self.server();
        server.commit();
        let is_new = !from.contains_key("resumeAfter");
        let mut after =
            match (from.get_document("resumeAfter"), from.get_timestamp("startAtOperationTime")) {
                (Ok(token), _) => place(token),
                (_, Ok(time)) => (cluster_time(time), 0),
                _ => (server.majority(), u32::MAX),
            };
        if self.mutation == Some(Mutation::PositionBeforeApplying) && !is_new {
            after = after.max(self.last_sent());
        }
        if !server.has_place(after) {
            return Err(command_error(286));
        }
        let waits = is_new && self.mutation == Some(Mutation::StreamAfterLoad);
        let waits_after = waits.then(|| self.loads());
        Ok(CursorKind::Stream { after, has_ended: false, waits_after })
    }

    /// The first reply of a stream. It is often empty although there are changes.
    fn first_reply(
        &self,
        cursor: &mut SimulatedCursor,
        session: &mut SimulatedSession,
    ) -> SimulatedBatch {
        let CursorKind::Stream { after, .. } = cursor.kind else { unreachable!() };
        if self.is_drawn(0.5) {
            return SimulatedBatch(reply("firstBatch", &[], Some(token(after))));
        }
        self.reply_with_events("firstBatch", cursor, session)
    }

    /// Waits for changes, as long as the server does.
    async fn next_events(
        &self,
        cursor: &mut SimulatedCursor,
        session: &mut SimulatedSession,
    ) -> Result<SimulatedBatch> {
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            let change = self.change();
            let CursorKind::Stream { after, has_ended, waits_after } = &mut cursor.kind else {
                unreachable!()
            };
            if *has_ended {
                return Err(command_error(43));
            }
            if waits_after.take_if(|loads| self.loads() > *loads).is_some() {
                *after = (self.server().majority(), u32::MAX);
            }
            let has_events = self.has_events(*after)? && waits_after.is_none();
            if has_events || Instant::now() >= deadline {
                return Ok(self.reply_with_events("nextBatch", cursor, session));
            }
            drop(timeout_at(deadline, change).await);
            if cursor.primary != self.primary() {
                return Err(command_error(237));
            }
        }
    }

    /// Whether there are events after a place.
    fn has_events(&self, after: Place) -> Result<bool> {
        let server = self.server();
        if !server.has_place(after) {
            return Err(command_error(136));
        }
        Ok(!server.events(after, 1).0.is_empty())
    }

    fn reply_with_events(
        &self,
        batch: &str,
        cursor: &mut SimulatedCursor,
        session: &mut SimulatedSession,
    ) -> SimulatedBatch {
        let CursorKind::Stream { after, has_ended, waits_after } = &mut cursor.kind else {
            unreachable!()
        };
        let server = self.server();
        session.see(server.majority());
        let full = if self.mutation == Some(Mutation::FullReply) { 999 } else { 1000 };
        let (mut events, place) = match waits_after {
            Some(_) => (Vec::new(), *after),
            None => server.events(*after, full),
        };
        if let Some(end) = events.iter().position(is_end) {
            events.truncate(end + 1);
            *has_ended = true;
        }
        if self.mutation == Some(Mutation::NoDeletes) {
            events.retain(|event| !is_delete(event));
        }
        *after = place;
        self.sent(place);
        self.trace("events", events.len() as u64);
        SimulatedBatch(reply(batch, &events, Some(token(place))))
    }

    /// Reads some documents more. Each is read a moment after the previous one.
    async fn read(
        &self,
        ids: Option<&[u8]>,
        from: &mut Option<u8>,
        session: &mut SimulatedSession,
    ) -> Result<Option<SimulatedBatch>> {
        let Some(first) = *from else {
            if ids.is_none() {
                self.load_has_ended();
            }
            return Ok(None);
        };
        let most = if ids.is_some() { usize::MAX } else { self.draw(1..4) };
        let mut documents = Vec::new();
        let time = self.read_time(session)?;
        let numbers = match ids {
            Some(ids) => ids.to_vec(),
            None => scan(&self.server().version_at(time).state, first, most),
        };
        for number in &numbers {
            if self.is_drawn(0.2) {
                sleep(self.latency()).await;
            }
            let time = self.read_time(session)?;
            let server = self.server();
            let state = self.state_to_fetch(&server, time, ids.is_some());
            let content = state.get(number);
            documents.extend(content.map(|content| document(*number, content)));
        }
        let is_last = ids.is_some() || numbers.len() < most;
        *from = numbers.last().filter(|_| !is_last).map(|last| last + 1);
        Ok(Some(SimulatedBatch(reply("nextBatch", &documents, None))))
    }

    fn state_to_fetch(
        &self,
        server: &Server,
        time: ClusterTime,
        is_fetch: bool,
    ) -> Arc<super::content::State> {
        let time = match self.mutation {
            Some(Mutation::NotFetchedAgain) if is_fetch => self.load_began_at(),
            _ => time,
        };
        if !is_fetch {
            self.load_begins(time);
        }
        Arc::clone(&server.version_at(time).state)
    }

    /// The cluster time whose state a read of this session returns.
    fn read_time(&self, session: &mut SimulatedSession) -> Result<ClusterTime> {
        let mut server = self.server();
        server.commit();
        let majority = server.majority();
        if let SessionKind::At(moment) = session.kind {
            let moment = cluster_time(moment);
            if self.forgets_moments() || !server.is_readable_at(moment) {
                return Err(command_error(246));
            }
            let is_later = self.mutation == Some(Mutation::FetchLater);
            return Ok(if is_later { majority } else { moment });
        }
        session.see(majority);
        Ok(majority)
    }
}

fn command_error(code: i32) -> Error {
    let error = bson::doc! { "code": code, "codeName": "Simulated", "errmsg": "simulated" };
    let error: CommandError = bson::from_bson(Bson::from(error)).unwrap();
    ErrorKind::Command(error).into()
}
