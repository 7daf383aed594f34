//! What happens on a connection before its first request.

use crate::http::closing::FIRST_BYTE_GRACE;
use crate::process::lifecycle::{Stage, Stopping};
use std::io;
use tokio::time::Instant;

/// Runs a part of the opening of a connection, until the deadline `until` or until
/// [`FIRST_BYTE_GRACE`] after the process begins to drain.
pub(crate) async fn within<T>(
    part: impl Future<Output = io::Result<T>>,
    until: Instant,
    mut stopping: Stopping,
) -> io::Result<T> {
    let last_chance = async {
        stopping.reached(Stage::Draining).await;
        tokio::time::sleep(FIRST_BYTE_GRACE).await;
    };
    tokio::select! {
        done = part => done,
        () = tokio::time::sleep_until(until) => Err(io::ErrorKind::TimedOut.into()),
        () = last_chance => Err(io::Error::other("the process is stopping")),
    }
}
