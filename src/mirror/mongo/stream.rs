//! Reading the stream of changes, in a task of its own.

use super::source::{Position, Source, Stream};
use super::{CLIENT_PATIENCE, longer};
use crate::pause::Pause;
use bson::{Bson, Document, Timestamp};
use mongodb::error::{Error, ErrorKind, RESUMABLE_CHANGE_STREAM_ERROR};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Why a stream was given up.
pub(super) struct Lost(pub(super) String);

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        match *error.kind {
            ErrorKind::ServerSelection { ref message, .. } => {
                tracing::debug!(%error, "no server was found");
                Self(why_no_server(message).to_owned())
            }
            ref kind => Self(without_command(&kind.to_string()).to_owned()),
        }
    }
}

/// MongoDB repeats the command that it refuses, with its times and signatures: never twice the same.
fn without_command(message: &str) -> &str {
    message.split(" to execute command").next().unwrap_or(message)
}

/// What the driver's message comes to, which is a list of all that it knows of every server and is never twice the same.
fn why_no_server(message: &str) -> &'static str {
    if message.contains("Type: RsGhost") {
        "the replica set is not initialised"
    } else if !message.contains("Servers: [") {
        "at the address is no member of the replica set that it names; a standalone server has no change streams"
    } else {
        "no primary can be reached"
    }
}

/// One reply of the stream.
pub(super) enum Reply {
    /// Nothing new.
    Empty {
        at: Instant,
    },
    Changed {
        id: Bson,
        cluster_time: Option<Timestamp>,
        /// The moment of the change, as well as it is known.
        at: Instant,
    },
    Lost(Lost),
}

/// A change event, less all that we do not ask for.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    operation_type: String,
    document_key: Option<Document>,
    cluster_time: Option<Timestamp>,
}

/// Reads a stream, which lives here alone: a read that is given up half-way leaves it unusable.
pub(super) struct Pump {
    source: Source,
    /// Where the stream was opened.
    from: Position,
    stream: Stream,
    replied_at: Instant,
    first_limit: Duration,
}

impl Pump {
    pub(super) fn new(source: Source, from: Position, stream: Stream) -> Self {
        let first_limit = source.limit;
        Self { source, from, stream, replied_at: Instant::now(), first_limit }
    }

    /// Reads until the stream is lost or nobody listens.
    pub(super) async fn run(mut self, replies: mpsc::Sender<Reply>) {
        loop {
            let next = self.source.next(&mut self.stream).await;
            let at = Instant::now();
            let reply = match next {
                Ok(event) => {
                    self.replied_at = at;
                    self.source.limit = self.first_limit;
                    let now = self.stream.session.operation_time();
                    event.map_or(Reply::Empty { at }, |event| reply_to(event, at, now))
                }
                Err(error) => match self.open_again(error, &replies).await {
                    Ok(()) => continue,
                    Err(lost) => Reply::Lost(lost),
                },
            };
            let is_last = matches!(reply, Reply::Lost(_));
            if replies.send(reply).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Opens the stream from where it was. The driver has tried that once; if it failed, its stream may be at an end without
    /// saying so.
    async fn open_again(
        &mut self,
        mut error: Error,
        replies: &mpsc::Sender<Reply>,
    ) -> Result<(), Lost> {
        if let Some(token) = self.stream.events.resume_token() {
            self.from = Position::Behind(token);
        }
        let mut pause = Pause::default();
        loop {
            let is_given_up = self.replied_at.elapsed() > CLIENT_PATIENCE || replies.is_closed();
            if is_given_up || !is_passing(&error) {
                return Err(Lost::from(error));
            }
            tracing::debug!(%error, "stream interrupted");
            pause.wait().await;
            self.source.limit = longer(self.source.limit);
            match self.source.open_stream(&self.from).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(next) => error = next,
            }
        }
    }
}

/// `now` is the time of the cluster at `at`: a stream that lags behind tells of changes that are older than their coming.
fn reply_to(event: Event, at: Instant, now: Option<Timestamp>) -> Reply {
    let Event { operation_type, document_key, cluster_time } = event;
    let behind = match (now, cluster_time) {
        (Some(now), Some(then)) => now.time.saturating_sub(then.time),
        _ => 0,
    };
    let at = at.checked_sub(Duration::from_secs(behind.into())).unwrap_or(at);
    match document_key.and_then(|mut key| key.remove("_id")) {
        Some(id) => Reply::Changed { id, cluster_time, at },
        // drop, rename, dropDatabase, invalidate
        None => Reply::Lost(Lost(format!("the collection had a {operation_type}"))),
    }
}

/// Whether the same may succeed in a moment: the network or the primary is away. Any other error of the server is one from which
/// the driver could not resume, whatever the stream says of itself.
pub(super) fn is_passing(error: &Error) -> bool {
    let is_of_the_network = matches!(
        *error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
    );
    is_of_the_network || error.contains_label(RESUMABLE_CHANGE_STREAM_ERROR)
}
