//! Why a change stream or a client is given up.

use crate::mirror::mongo::reason::reason;
use crate::mirror::mongo::servers::Servers;
use mongodb::error::{Error, ErrorKind, RESUMABLE_CHANGE_STREAM_ERROR};

/// The server's codes for a cursor that it has closed (`CursorNotFound`) or that was killed
/// (`CursorKilled`).
const CURSOR_IS_GONE: [i32; 2] = [43, 237];

/// Why a change stream, or a read that belongs to it, was given up.
#[derive(Debug)]
pub(super) struct StreamLoss {
    pub(super) reason: String,
    /// Whether the next stream may continue at the position of this one.
    pub(super) is_transient: bool,
    /// Whether the state of each server explains the reason.
    needs_servers: bool,
}

impl StreamLoss {
    /// The position of the stream is of no more use: everything has to be loaded.
    pub(super) fn permanent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_transient: false, needs_servers: false }
    }

    /// The next stream may continue where this one was.
    pub(super) fn transient(reason: String) -> Self {
        Self { reason, is_transient: true, needs_servers: false }
    }

    /// Adds the last known state of each server, if the driver found none to use.
    pub(super) fn with_servers(mut self, servers: Option<&Servers>) -> Self {
        if let Some(servers) = servers.filter(|_| self.needs_servers) {
            let servers = servers.describe();
            self.reason.push_str(": ");
            self.reason.push_str(&servers);
        }
        self
    }
}

impl From<Error> for StreamLoss {
    fn from(error: Error) -> Self {
        let is_transient = is_transient(&error);
        match &*error.kind {
            ErrorKind::ServerSelection { message, .. } => {
                let reason = selection_reason(message);
                Self {
                    reason: reason.to_owned(),
                    is_transient,
                    needs_servers: reason == NO_PRIMARY,
                }
            }
            _ => Self { reason: reason(&error), is_transient, needs_servers: false },
        }
    }
}

const NO_PRIMARY: &str = "no primary can be reached";

/// Why the driver has found no server. Its own message lists all that it knows of every server, and
/// differs each time.
fn selection_reason(message: &str) -> &'static str {
    if message.contains("Type: RsGhost") {
        "the replica set is not initialized"
    } else if !message.contains("Servers: [") {
        "no server at the address is a member of the replica set that it names; a standalone server has no change streams"
    } else {
        NO_PRIMARY
    }
}

/// Whether the same operation may succeed soon: the network or the primary is away, or only the
/// cursor is gone. Any other error of the server is assumed to concern the position in the stream.
fn is_transient(error: &Error) -> bool {
    match *error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. } => true,
        ErrorKind::Command(ref command) if CURSOR_IS_GONE.contains(&command.code) => true,
        _ => error.contains_label(RESUMABLE_CHANGE_STREAM_ERROR),
    }
}
