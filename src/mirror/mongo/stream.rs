//! Reading the stream of changes, in a task of its own.

use crate::pause::Pause;
use bson::{Bson, Document, Timestamp};
use mongodb::change_stream::ChangeStream;
use mongodb::error::{Error, ErrorKind};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Why a stream was given up.
pub(super) struct Lost(pub(super) String);

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self(error.kind.to_string())
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

/// Reads the stream until it is lost or nobody listens. The stream lives here alone: a read that is
/// given up half-way would leave it unusable.
pub(super) async fn pump(mut stream: ChangeStream<Event>, replies: mpsc::Sender<Reply>) {
    let mut pause = Pause::default();
    loop {
        let next = stream.next_if_any().await;
        let at = Instant::now();
        let reply = match next {
            Ok(event) => {
                pause.reset();
                event.map_or(Reply::Empty { at }, |event| reply_to(event, at))
            }
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "stream interrupted, the driver resumes it");
                pause.wait().await;
                if replies.is_closed() {
                    return;
                }
                continue;
            }
            Err(error) => Reply::Lost(Lost::from(error)),
        };
        let is_last = matches!(reply, Reply::Lost(_));
        if replies.send(reply).await.is_err() || is_last {
            return;
        }
    }
}

fn reply_to(event: Event, at: Instant) -> Reply {
    let Event { operation_type, document_key, cluster_time } = event;
    match document_key.and_then(|mut key| key.remove("_id")) {
        Some(id) => Reply::Changed { id, cluster_time, at },
        // drop, rename, dropDatabase, invalidate
        None => Reply::Lost(Lost(format!("the collection had a {operation_type}"))),
    }
}

/// Whether the driver resumes the stream by itself when it is asked again. Any error of the server
/// that reaches us is one that it could not resume from, whatever the stream says of itself.
pub(super) fn is_passing(error: &Error) -> bool {
    matches!(
        *error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
    )
}
