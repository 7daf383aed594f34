//! File descriptors: as many as the system lets us have, and no more connections than that.

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::unix::net::UnixDatagram;

/// Before the configuration is known: what a runtime, signals and reading a file take.
pub const TO_BEGIN: usize = 16;

/// Not for callers: MongoDB, operators, files.
const RESERVED: usize = 128;

/// Of a worker: its listener, what its runtime waits with, and the connection in its hand when all places are taken.
const OF_WORKER: usize = 6;

/// Of a connection to Redis: the next one is made while the last is being closed, and Sentinel asked which that is; two more
/// are for batches that are sent alone.
const OF_REDIS_CONNECTION: usize = 6;

/// Of the process itself: its runtimes, the admin port, signals, and a file at a time that is read.
const OF_PROCESS: usize = 24;

/// Raises the limit of this process as far as it may be raised, and fails unless so many files can be opened beside those
/// that are.
///
/// Libraries that find none left when they start do not say so: they panic.
pub fn require(files: usize) -> anyhow::Result<()> {
    let limit = raise();
    let opened: Result<Vec<_>, _> = (0..files).map(|_| UnixDatagram::unbound()).collect();
    opened.map(drop).with_context(|| {
        let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        format!(
            "too few files can be opened: {files} more are needed, and the limit of all is {limit} (ulimit -n, LimitNOFILE)"
        )
    })
}

/// What a service needs to start and to serve anybody.
pub fn needed(workers: usize, redis_connections: usize) -> usize {
    OF_PROCESS + OF_WORKER * workers + OF_REDIS_CONNECTION * redis_connections
}

/// Raises the limit of this process as far as it may be raised, and answers it. `None`: there is no limit.
fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    if is_raised { limit.maximum } else { limit.current }
}

/// For how many of the `wanted` connections there is room beside so many workers and connections to Redis.
///
/// Without a bound, callers alone could take every descriptor, and Redis could not be reached again.
pub fn room_for(wanted: usize, workers: usize, redis_connections: usize) -> usize {
    let open_files = raise().map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(wanted));
    let reserved = RESERVED + OF_WORKER * workers + OF_REDIS_CONNECTION * redis_connections;
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
