//! The limits of Redis on what one client sends. Redis refuses a request that exceeds one, or
//! closes its connection, every time it is sent. So such a request is not sent.

use crate::queue::bullmq::job::Jobs;
use crate::queue::redis::connection::{CallError, RedisConnection};
use crate::queue::redis::server_config;
use bytes::Bytes;
use fred::types::Value;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The setting of Redis that limits an argument.
const BULK: &str = "proto-max-bulk-len";
/// The setting of Redis that limits what is read before an argument is complete.
const QUERY_BUFFER: &str = "client-query-buffer-limit";
/// The setting of Redis that limits the memory of all clients. Redis disconnects the largest client
/// if it is exceeded.
const CLIENTS_MEMORY: &str = "maxmemory-clients";
/// The memory that a percentage in `maxmemory-clients` refers to.
const MEMORY: &str = "maxmemory";

/// Bytes that may be read with an argument and count with it: one read of Redis. Redis before 7.2
/// removes what precedes a large argument first, and counts only the line break after it.
const READ_WITH_ARGUMENT: usize = 16 << 10;

/// The least memory that Redis grants its clients, even if `maxmemory-clients` is smaller.
const MIN_CLIENTS_MEMORY: usize = 128 << 10;

/// Bytes of a job besides its payload, and of each match after the first. The estimate is generous
/// for ids of usual length.
const JOB_OVERHEAD: usize = 1 << 10;

/// The limits, in bytes; `None` if there is no such limit or it may not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::queue) struct Limits {
    bulk: Option<usize>,
    query_buffer: Option<usize>,
    clients_memory: Option<usize>,
    memory: Option<usize>,
}

/// A limit of Redis that is too small for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct ExceededLimit {
    /// The name of the setting of Redis.
    pub(in crate::queue) setting: &'static str,
    /// The bytes of the request that count against the limit.
    pub(in crate::queue) bytes: usize,
    /// The limit, if it is known.
    pub(in crate::queue) max_bytes: Option<usize>,
}

impl ExceededLimit {
    /// The limit for jobs that Redis has refused because of the size of an argument. Redis does not
    /// report its value.
    pub(in crate::queue) fn unknown_limit(jobs: &Jobs) -> Self {
        Self { setting: BULK, bytes: largest_argument(jobs), max_bytes: None }
    }

    /// Finds the limit when CONFIG is not permitted, if these jobs have an argument that exceeds
    /// it. GETBIT fails for an offset beyond `proto-max-bulk-len`, so a binary search over offsets
    /// finds the limit. The key need not exist.
    pub(in crate::queue) async fn find(
        connection: &RedisConnection,
        key: &str,
        jobs: &Jobs,
    ) -> Option<Self> {
        let bytes = largest_argument(jobs);
        let (mut accepted, mut refused) = (0, bytes.checked_sub(1)?);
        if !is_beyond_largest(connection, key, refused).await? {
            return None;
        }
        while refused - accepted > 1 {
            let middle = usize::midpoint(accepted, refused);
            if is_beyond_largest(connection, key, middle).await? {
                refused = middle;
            } else {
                accepted = middle;
            }
        }
        Some(Self { setting: BULK, bytes, max_bytes: Some(refused) })
    }
}

/// Whether the byte at this offset is beyond the largest accepted argument; `None` if there is no
/// reply.
async fn is_beyond_largest(connection: &RedisConnection, key: &str, offset: usize) -> Option<bool> {
    let arguments = [key.to_owned(), (offset * 8).to_string()];
    let arguments = arguments.map(|argument| Value::Bytes(argument.into())).to_vec();
    match connection.call::<u64>("GETBIT", arguments).await {
        Ok(_) => Some(false),
        Err(CallError::Refused(error)) => error.details().contains("bit offset").then_some(true),
        Err(CallError::NotSent | CallError::Lost) => None,
    }
}

impl Limits {
    /// Reads the limits; `None` if there is no reply. Limits that may not be read are unknown.
    pub(in crate::queue) async fn query(connection: &RedisConnection) -> Option<Self> {
        let keys = [BULK, QUERY_BUFFER, CLIENTS_MEMORY, MEMORY];
        let config = server_config::get(connection, &keys).await.ok()?;
        Some(Self::read(&config.unwrap_or_default()))
    }

    fn read(config: &HashMap<String, String>) -> Self {
        let bytes = |key: &str| config.get(key)?.parse().ok().filter(|&bytes: &usize| bytes > 0);
        let share = |key: &str| config.get(key)?.strip_suffix('%')?.parse::<usize>().ok();
        let memory = bytes(MEMORY);
        let shared = || Some(memory? / 100 * share(CLIENTS_MEMORY).filter(|&share| share > 0)?);
        let clients_memory = bytes(CLIENTS_MEMORY).or_else(shared);
        Self {
            bulk: bytes(BULK),
            query_buffer: bytes(QUERY_BUFFER),
            clients_memory: clients_memory.map(|bytes| bytes.max(MIN_CLIENTS_MEMORY)),
            memory,
        }
    }

    /// The first known limit that these jobs exceed.
    pub(in crate::queue) fn exceeded_by(&self, jobs: &Jobs) -> Option<ExceededLimit> {
        let argument = largest_argument(jobs);
        let sizes = [
            (BULK, argument, self.bulk),
            (QUERY_BUFFER, argument + READ_WITH_ARGUMENT, self.query_buffer),
            (CLIENTS_MEMORY, jobs.bytes, self.clients_memory),
        ];
        let exceeded =
            sizes.into_iter().find(|(_, bytes, limit)| limit.is_some_and(|limit| *bytes > limit));
        exceeded.map(|(setting, bytes, max_bytes)| ExceededLimit { setting, bytes, max_bytes })
    }

    /// Jobs of at most this many bytes exceed no limit.
    fn smallest(&self) -> usize {
        let limits = [self.bulk, self.query_buffer, self.clients_memory];
        limits.into_iter().flatten().min().unwrap_or(usize::MAX).saturating_sub(READ_WITH_ARGUMENT)
    }

    /// Warnings about limits of Redis that are smaller than the limits of Hookgate.
    pub(in crate::queue) fn warnings(
        &self,
        max_body: usize,
        max_matches: usize,
        max_fanout: usize,
    ) -> Vec<String> {
        let argument = max_body + JOB_OVERHEAD;
        let call = max_body + max_matches * JOB_OVERHEAD;
        let mut warnings = Vec::new();
        let mut compare = |setting: &str, limit: Option<usize>, bytes: usize, purpose: String| {
            if let Some(limit) = limit.filter(|&limit| limit < bytes) {
                warnings
                    .push(format!("{setting} is {limit} bytes, which is too small for {purpose}"));
            }
        };
        let body = || {
            format!(
                "jobs from a body as large as server.max_body ({max_body}): such requests get 413"
            )
        };
        compare(BULK, self.bulk, argument, body());
        compare(QUERY_BUFFER, self.query_buffer, argument, body());
        compare(
            CLIENTS_MEMORY,
            self.clients_memory,
            call,
            format!(
                "a call with server.max_body ({max_body}) and queue.max_matches ({max_matches}): Redis disconnects its client"
            ),
        );
        compare(
            MEMORY,
            self.memory,
            max_fanout,
            format!("the jobs of one request of queue.max_fanout_bytes ({max_fanout})"),
        );
        warnings
    }
}

/// Lists the limits, such as `proto-max-bulk-len 1048576, maxmemory-clients none or unknown`.
impl fmt::Display for Limits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            (BULK, self.bulk),
            (QUERY_BUFFER, self.query_buffer),
            (CLIENTS_MEMORY, self.clients_memory),
        ];
        for (index, (setting, limit)) in settings.into_iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match limit {
                Some(limit) => write!(formatter, "{comma}{setting} {limit}")?,
                None => write!(formatter, "{comma}{setting} none or unknown")?,
            }
        }
        Ok(())
    }
}

fn largest_argument(jobs: &Jobs) -> usize {
    let shared = jobs.tail.len().max(jobs.options.len());
    jobs.heads.iter().map(Bytes::len).fold(shared, usize::max)
}

/// The limits as they were last read. Every request is checked against them.
#[derive(Debug)]
pub(in crate::queue) struct KnownLimits {
    /// [`Limits::smallest`], so that most requests need no lock.
    smallest: AtomicUsize,
    all: Mutex<Limits>,
}

impl Default for KnownLimits {
    fn default() -> Self {
        Self { smallest: AtomicUsize::new(usize::MAX), all: Mutex::default() }
    }
}

impl KnownLimits {
    pub(in crate::queue) fn set(&self, limits: Limits) {
        *self.all.lock() = limits;
        self.smallest.store(limits.smallest(), Ordering::Relaxed);
    }

    pub(in crate::queue) fn get(&self) -> Limits {
        *self.all.lock()
    }

    pub(in crate::queue) fn exceeded_by(&self, jobs: &Jobs) -> Option<ExceededLimit> {
        if jobs.bytes <= self.smallest.load(Ordering::Relaxed) {
            return None;
        }
        self.get().exceeded_by(jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(config: &[(&str, &str)]) -> Limits {
        let owned = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Limits::read(&owned.collect())
    }

    fn jobs(heads: &[usize], tail: usize) -> Jobs {
        let filler = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
        let bytes = heads.iter().sum::<usize>() + tail;
        let heads = heads.iter().copied().map(filler).collect();
        Jobs { heads, tail: filler(tail), bytes, ..Jobs::default() }
    }

    #[test]
    fn each_limit_is_compared_with_what_it_bounds() {
        let none = limits(&[(MEMORY, "0"), (CLIENTS_MEMORY, "0")]);
        assert_eq!(none, Limits::default());
        let bulk = limits(&[(BULK, "1000")]);
        let buffer = limits(&[(QUERY_BUFFER, "17384")]);
        let clients = limits(&[(CLIENTS_MEMORY, "200000")]);
        for (limits, jobs, expected) in [
            (bulk, jobs(&[1000], 0), None),
            (bulk, jobs(&[1001], 0), Some((BULK, 1001, 1000))),
            (bulk, jobs(&[10; 200], 1000), None),
            (bulk, jobs(&[10; 2], 1001), Some((BULK, 1001, 1000))),
            (buffer, jobs(&[1000], 0), None),
            (buffer, jobs(&[1001], 0), Some((QUERY_BUFFER, 17385, 17384))),
            (clients, jobs(&[1000; 199], 1000), None),
            (clients, jobs(&[1000; 200], 1000), Some((CLIENTS_MEMORY, 201_000, 200_000))),
            (none, jobs(&[1 << 20], 0), None),
        ] {
            let excess = expected.map(|(setting, bytes, limit)| ExceededLimit {
                setting,
                bytes,
                max_bytes: Some(limit),
            });
            assert_eq!(limits.exceeded_by(&jobs), excess);
            let known = KnownLimits::default();
            known.set(limits);
            assert_eq!(known.exceeded_by(&jobs), excess);
        }
    }

    #[test]
    fn a_percentage_of_the_memory_is_a_limit_with_a_minimum() {
        let share = |memory, share| limits(&[(MEMORY, memory), (CLIENTS_MEMORY, share)]);
        assert_eq!(share("100000000", "5%").clients_memory, Some(5_000_000));
        assert_eq!(share("0", "5%").clients_memory, None);
        assert_eq!(share("100000000", "0%").clients_memory, None);
        assert_eq!(share("0", "1").clients_memory, Some(MIN_CLIENTS_MEMORY));
    }

    #[test]
    fn limits_smaller_than_the_settings_are_warned_of() {
        let defaults = limits(&[(BULK, "536870912"), (QUERY_BUFFER, "1073741824"), (MEMORY, "0")]);
        assert!(defaults.warnings(1 << 20, 4096, 32 << 20).is_empty());
        let small = limits(&[
            (BULK, "1048576"),
            (QUERY_BUFFER, "1048576"),
            (CLIENTS_MEMORY, "1048576"),
            (MEMORY, "8388608"),
        ]);
        let warnings = small.warnings(1 << 20, 4096, 32 << 20);
        assert_eq!(warnings.len(), 4, "{warnings:#?}");
        for (warning, setting) in warnings.iter().zip([BULK, QUERY_BUFFER, CLIENTS_MEMORY, MEMORY])
        {
            assert!(warning.starts_with(setting), "{warning}");
        }
    }
}
