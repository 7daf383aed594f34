//! File descriptors: raises the limit as far as the system allows, and bounds the number of
//! connections by it.

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::unix::net::UnixDatagram;

/// Descriptors needed before the configuration is known: a runtime, signals and reading a file.
pub const STARTUP_FILES: usize = 16;

/// Descriptors that callers cannot use: for MongoDB, operators and files.
const RESERVED_DESCRIPTORS: usize = 128;

/// Descriptors of one worker: its listener or its share of a common one, those of its runtime,
/// and a connection that was accepted while all slots are in use.
const PER_WORKER: usize = 6;

/// Descriptors of one connection to Redis. The next connection is made, and Sentinel is asked for
/// its address, while the last one is being closed. Two more are for batches that are sent in
/// isolation.
const PER_REDIS_CONNECTION: usize = 6;

/// Descriptors of the process itself: its runtimes, the admin port, a socket that the service
/// manager passes, a message to it, signals, and one open file at a time.
const PER_PROCESS: usize = 26;

/// Raises the limit of open files as far as it may be raised. Fails unless `files` more files can
/// be opened now.
///
/// Libraries that find no descriptor left at their start panic instead of returning an error.
pub fn require(files: usize) -> anyhow::Result<()> {
    let limit = raise();
    let opened: Result<Vec<_>, _> = (0..files).map(|_| UnixDatagram::unbound()).collect();
    opened.map(drop).with_context(|| {
        let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        format!(
            "too few files can be opened: {files} more are needed, and the limit of open files is \
             {limit} (ulimit -n, LimitNOFILE)"
        )
    })
}

/// Descriptors that the service needs to start and to serve its first callers.
pub fn needed(workers: usize, redis_connections: usize) -> usize {
    PER_PROCESS + PER_WORKER * workers + PER_REDIS_CONNECTION * redis_connections
}

/// Raises the limit of open files as far as it may be raised, and returns it. `None` means no
/// limit.
fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    if is_raised { limit.maximum } else { limit.current }
}

/// The number of callers' connections, at most `wanted`, that the limit of open files leaves room
/// for beside the workers, of which each may have `opening` connections that are not counted yet,
/// and the connections to Redis.
///
/// Without this bound, callers could use up all descriptors, and a lost connection to Redis could
/// not be replaced.
pub fn cap_connections(
    wanted: usize,
    (workers, opening): (usize, usize),
    redis_connections: usize,
) -> usize {
    let open_files = raise().map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(wanted));
    let of_workers = (PER_WORKER + opening) * workers;
    let reserved = RESERVED_DESCRIPTORS + of_workers + PER_REDIS_CONNECTION * redis_connections;
    let room = open_files - reserved.min(open_files / 2);
    if room < wanted {
        tracing::warn!(
            open_files,
            connections = room,
            "the limit of open files leaves no room for server.max_connections"
        );
    }
    wanted.min(room)
}
