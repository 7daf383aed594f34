//! File descriptors: as many as the system lets us have, and no more connections than that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Not for callers: MongoDB, operators, files.
const RESERVED: usize = 128;

/// Of a worker: its listener, what its runtime waits with, and the connection in its hand when all places are taken.
const OF_WORKER: usize = 6;

/// Of a connection to Redis: the next one is made while the last is being closed, and Sentinel asked which that is; two more
/// are for batches that are sent alone.
const OF_REDIS_CONNECTION: usize = 6;

/// Raises the limit of this process as far as it may be raised, and answers for how many of the
/// `wanted` connections there is room beside so many workers and connections to Redis.
///
/// Without a bound, callers alone could take every descriptor, and Redis could not be reached again.
pub fn room_for(wanted: usize, workers: usize, redis_connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let is_raised = setrlimit(Resource::Nofile, raised).is_ok();
    let open_files = if is_raised { limit.maximum } else { limit.current };
    // None: no limit.
    let open_files =
        open_files.map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(wanted));
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
