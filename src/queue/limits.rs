//! What Redis takes of one client at most. A request beyond it is refused by Redis, or ends its connection, whenever it
//! is sent; so it is not sent.

use super::job::Jobs;
use super::server_config;
use super::session::{CallError, Session};
use bytes::Bytes;
use fred::types::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The settings of Redis. The first bounds an argument, the second what is read before an argument is complete, the third
/// the memory of all clients, the largest of which Redis disconnects.
const BULK: &str = "proto-max-bulk-len";
const QUERY_BUFFER: &str = "client-query-buffer-limit";
const CLIENTS_MEMORY: &str = "maxmemory-clients";
/// What a share of `maxmemory-clients` is a share of.
const MEMORY: &str = "maxmemory";

/// An argument is read with the line break at its end.
const LINE_BREAK: usize = 2;

/// Redis grants its clients so much, whatever `maxmemory-clients` says.
const LEAST_CLIENTS_MEMORY: usize = 128 << 10;

/// Bytes of a job besides its payload, and of a match besides the first: ids of a usual length, with room.
const ENVELOPE: usize = 1 << 10;

/// In bytes. `None`: there is no such limit, or it may not be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    bulk: Option<usize>,
    query_buffer: Option<usize>,
    clients_memory: Option<usize>,
    memory: Option<usize>,
}

/// A limit of Redis that is too small for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excess {
    /// The setting of Redis.
    pub(super) setting: &'static str,
    /// Of the request.
    pub(super) bytes: usize,
    /// The limit, if it is known.
    pub(super) max_bytes: Option<usize>,
}

impl Excess {
    /// Redis has refused these jobs for the size of an argument, and does not tell its limit.
    pub(super) fn of_unknown_limit(jobs: &Jobs) -> Self {
        Self { setting: BULK, bytes: largest_argument(jobs), max_bytes: None }
    }

    /// Asks whether these jobs have an argument that is too large, where CONFIG may not be used: Redis refuses to look at
    /// a bit beyond the largest argument that it takes. The key need not exist.
    pub(super) async fn probe(session: &Session, key: &str, jobs: &Jobs) -> Option<Self> {
        let bytes = largest_argument(jobs);
        let (mut taken, mut refused) = (0, bytes.checked_sub(1)?);
        if !is_beyond_largest(session, key, refused).await? {
            return None;
        }
        while refused - taken > 1 {
            let middle = usize::midpoint(taken, refused);
            if is_beyond_largest(session, key, middle).await? {
                refused = middle;
            } else {
                taken = middle;
            }
        }
        Some(Self { setting: BULK, bytes, max_bytes: Some(refused) })
    }
}

/// Whether the byte at this place lies beyond every argument; `None` if that cannot be asked.
async fn is_beyond_largest(session: &Session, key: &str, place: usize) -> Option<bool> {
    let words = [key.to_owned(), (place * 8).to_string()];
    let words = words.map(|word| Value::Bytes(word.into())).to_vec();
    match session.call::<u64>("GETBIT", words).await {
        Ok(_) => Some(false),
        Err(CallError::Refused(error)) => error.details().contains("bit offset").then_some(true),
        Err(CallError::NotSent | CallError::Lost) => None,
    }
}

impl Limits {
    /// `None` if there is no reply. What may not be asked for is not known.
    pub(super) async fn ask(session: &Session) -> Option<Self> {
        let keys = [BULK, QUERY_BUFFER, CLIENTS_MEMORY, MEMORY];
        let config = server_config::get(session, &keys).await.ok()?;
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
            clients_memory: clients_memory.map(|bytes| bytes.max(LEAST_CLIENTS_MEMORY)),
            memory,
        }
    }

    /// The limit that Redis holds against these jobs, for sure.
    pub(super) fn exceeded_by(&self, jobs: &Jobs) -> Option<Excess> {
        let argument = largest_argument(jobs);
        let sizes = [
            (BULK, argument, self.bulk),
            (QUERY_BUFFER, argument + LINE_BREAK, self.query_buffer),
            (CLIENTS_MEMORY, jobs.bytes, self.clients_memory),
        ];
        let exceeded =
            sizes.into_iter().find(|(_, bytes, limit)| limit.is_some_and(|limit| *bytes > limit));
        exceeded.map(|(setting, bytes, max_bytes)| Excess { setting, bytes, max_bytes })
    }

    /// Jobs of so many bytes exceed none.
    fn least(&self) -> usize {
        let limits = [self.bulk, self.query_buffer, self.clients_memory];
        limits.into_iter().flatten().min().unwrap_or(usize::MAX).saturating_sub(LINE_BREAK)
    }

    /// What the service takes and Redis does not.
    pub(super) fn warnings(
        &self,
        max_body: usize,
        max_matches: usize,
        max_fanout: usize,
    ) -> Vec<String> {
        let argument = max_body + ENVELOPE;
        let call = max_body + max_matches * ENVELOPE;
        let mut warnings = Vec::new();
        let mut compare = |setting: &str, limit: Option<usize>, bytes: usize, what: String| {
            if let Some(limit) = limit.filter(|&limit| limit < bytes) {
                warnings.push(format!("{setting} is {limit} bytes, which is too small for {what}"));
            }
        };
        let body = || {
            format!(
                "every job of a body of server.max_body ({max_body}): such requests are answered 413"
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

/// What is known of them: `proto-max-bulk-len 1048576, maxmemory-clients none or not known`.
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
                None => write!(formatter, "{comma}{setting} none or not known")?,
            }
        }
        Ok(())
    }
}

fn largest_argument(jobs: &Jobs) -> usize {
    let shared = jobs.tail.len().max(jobs.options.len());
    jobs.heads.iter().map(Bytes::len).fold(shared, usize::max)
}

/// The limits as they were read last, for what is asked with every request.
#[derive(Debug)]
pub(super) struct KnownLimits {
    least: AtomicUsize,
    all: Mutex<Limits>,
}

impl Default for KnownLimits {
    fn default() -> Self {
        Self { least: AtomicUsize::new(usize::MAX), all: Mutex::default() }
    }
}

impl KnownLimits {
    pub(super) fn set(&self, limits: Limits) {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.least.store(limits.least(), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Limits {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn exceeded_by(&self, jobs: &Jobs) -> Option<Excess> {
        if jobs.bytes <= self.least.load(Ordering::Relaxed) {
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
    fn each_limit_is_held_against_what_it_bounds() {
        let none = limits(&[(MEMORY, "0"), (CLIENTS_MEMORY, "0")]);
        assert_eq!(none, Limits::default());
        let bulk = limits(&[(BULK, "1000")]);
        let buffer = limits(&[(QUERY_BUFFER, "1000")]);
        let clients = limits(&[(CLIENTS_MEMORY, "200000")]);
        for (limits, jobs, expected) in [
            (bulk, jobs(&[1000], 0), None),
            (bulk, jobs(&[1001], 0), Some((BULK, 1001, 1000))),
            (bulk, jobs(&[10; 200], 1000), None),
            (bulk, jobs(&[10; 2], 1001), Some((BULK, 1001, 1000))),
            (buffer, jobs(&[998], 0), None),
            (buffer, jobs(&[999], 0), Some((QUERY_BUFFER, 1001, 1000))),
            (clients, jobs(&[1000; 199], 1000), None),
            (clients, jobs(&[1000; 200], 1000), Some((CLIENTS_MEMORY, 201_000, 200_000))),
            (none, jobs(&[1 << 20], 0), None),
        ] {
            let excess = expected.map(|(setting, bytes, limit)| Excess {
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
    fn a_share_of_the_memory_is_a_limit_and_redis_grants_a_least_one() {
        let share = |memory, share| limits(&[(MEMORY, memory), (CLIENTS_MEMORY, share)]);
        assert_eq!(share("100000000", "5%").clients_memory, Some(5_000_000));
        assert_eq!(share("0", "5%").clients_memory, None);
        assert_eq!(share("100000000", "0%").clients_memory, None);
        assert_eq!(share("0", "1").clients_memory, Some(LEAST_CLIENTS_MEMORY));
    }

    #[test]
    fn what_redis_does_not_take_is_said() {
        let as_shipped =
            limits(&[(BULK, "536870912"), (QUERY_BUFFER, "1073741824"), (MEMORY, "0")]);
        assert!(as_shipped.warnings(1 << 20, 4096, 32 << 20).is_empty());
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
