//! What happens on a connection before its first request.

use crate::http::closing::FIRST_BYTE_GRACE;
use crate::process::lifecycle::{Stage, Stopping};
use std::io;
use tokio::time::Instant;

/// How a part of the opening has ended.
pub(crate) enum Opening<T> {
    Done(io::Result<T>),
    /// The deadline has passed.
    Late,
    /// The process stops.
    Stopping,
}

/// Runs a part of the opening of a connection, until the deadline `until` or until
/// [`FIRST_BYTE_GRACE`] after the process begins to drain.
pub(crate) async fn within<T>(
    part: impl Future<Output = io::Result<T>>,
    until: Instant,
    mut stopping: Stopping,
) -> Opening<T> {
    let last_chance = async {
        stopping.reached(Stage::Draining).await;
        tokio::time::sleep(FIRST_BYTE_GRACE).await;
    };
    tokio::select! {
        done = part => Opening::Done(done),
        () = tokio::time::sleep_until(until) => Opening::Late,
        () = last_chance => Opening::Stopping,
    }
}
