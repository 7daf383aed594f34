//! The memory that callers can make this process take at most, held against the memory that there is.
//!
//! Each bound of the configuration costs so much for each of what it counts. The figures are rounded up from what the worst
//! callers that the tests have take (`tests/it/process/machine.rs`). What the index takes is a matter of the documents, and is not
//! among them.

use crate::config::Config;
use crate::file_access;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::Path;

/// Which groups the process is in.
const CGROUP: &str = "/proc/self/cgroup";

const KIBIBYTE: u64 = 1 << 10;
const MEBIBYTE: u64 = 1 << 20;

/// The program, tokens that were verified (32 MiB), and organizations that are remembered (50 MiB).
const BASE: u64 = 128 * MEBIBYTE;

/// Of a connection of HTTP/1.1: what has arrived of a head, and an answer that is not read, 64 KiB of memory each, beside
/// its own state. Heads of admitted requests count in `limits.in_flight_bytes`.
const CONNECTION: u64 = 144 * KIBIBYTE;

/// Of one with TLS, which may speak HTTP/2: the buffers of TLS, a head that is being decoded (110 KiB if it is a thousand empty
/// fields), frames, and the last 12 KiB of each of 100 answers that are not read.
const TLS_CONNECTION: u64 = 1536 * KIBIBYTE;

/// Of a request in flight, beside the bytes that it holds.
const REQUEST: u64 = 16 * KIBIBYTE;

/// What is held is copied once on its way to Redis, and the allocator keeps some.
const OF_BYTES: u64 = 2;

/// Of a worker: two decoders with the largest window of brotli, and what the parser of JSON takes for each byte of the
/// body that it is reading.
const DECODERS: u64 = 2 * 24 * MEBIBYTE;
const PARSER_OF_BYTE: u64 = 24;

/// Shares of the memory below which a key is not worth a word.
const WORTH_A_WORD: u64 = 20;

/// What all bounds together may take, and what there is.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// Bytes, the index left out.
    at_most: u64,
    /// Of these, by the key that bounds them, the largest first.
    bounds: Vec<(&'static str, u64)>,
    /// `None`: not known.
    limit: Option<SystemLimit>,
}

/// The least of the bounds that the system sets.
#[derive(Debug, Clone, Serialize)]
pub struct SystemLimit {
    bytes: u64,
    by: &'static str,
}

impl Memory {
    pub fn new(config: &Config) -> Self {
        Self { limit: limit(), ..Self::of(config) }
    }

    /// For the service: the files that say what there is may hang, also those of the kernel, where a container has its own.
    pub fn when_it_answers(config: &Config) -> impl Future<Output = io::Result<Self>> + use<> {
        let memory = Self::of(config);
        async move {
            let limit = file_access::run(Path::new(CGROUP), limit).await?;
            Ok(Self { limit, ..memory })
        }
    }

    fn of(config: &Config) -> Self {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let connection = if config.server.tls.is_some() { TLS_CONNECTION } else { CONNECTION };
        let workers = count(config.server.workers());
        let of_worker = DECODERS + PARSER_OF_BYTE * count(config.server.body.max_body);
        let mut bounds = vec![
            ("server.max_connections", connection * count(config.server.max_connections)),
            ("limits.in_flight_bytes", OF_BYTES * count(config.admission.in_flight_bytes)),
            ("limits.in_flight_requests", REQUEST * count(config.admission.in_flight_requests)),
            ("server.workers", workers * of_worker),
        ];
        bounds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let at_most = BASE + bounds.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Self { at_most, bounds, limit: None }
    }

    /// Names the keys by which it may become too much.
    pub fn warning(&self) -> Option<String> {
        let SystemLimit { bytes, by } =
            self.limit.as_ref().filter(|limit| limit.bytes < self.at_most)?;
        let large = self.bounds.iter().filter(|(_, taken)| *taken > bytes / WORTH_A_WORD);
        let keys: Vec<String> =
            large.map(|(key, taken)| format!("{key} ({})", mebibytes(*taken))).collect();
        Some(format!(
            "callers can make the process use up to {} (index not included), but {by} allows {}: lower {}",
            mebibytes(self.at_most),
            mebibytes(*bytes),
            keys.join(", ")
        ))
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(MEBIBYTE))
}

/// How much memory this process may take, and who says so.
fn limit() -> Option<SystemLimit> {
    let of_process = |resource, by| Some(SystemLimit { bytes: getrlimit(resource).current?, by });
    let limits = [
        of_process(Resource::As, "RLIMIT_AS"),
        of_process(Resource::Data, "RLIMIT_DATA"),
        of_cgroup().map(|bytes| SystemLimit { bytes, by: "the cgroup" }),
        of_machine().map(|bytes| SystemLimit { bytes, by: "the machine" }),
    ];
    limits.into_iter().flatten().min_by_key(|limit| limit.bytes)
}

/// The least that the groups of this process allow, in either version.
fn of_cgroup() -> Option<u64> {
    let groups = read(Path::new(CGROUP))?;
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        least_of_group(Path::new(root), Path::new(path.trim_start_matches('/')), file)
    };
    groups.lines().filter_map(of_line).min()
}

/// A group has no more than those around it. In a container some of the path may not be there.
fn least_of_group(root: &Path, path: &Path, file: &str) -> Option<u64> {
    let groups = path.ancestors().map(|group| root.join(group).join(file));
    groups.filter_map(|file| read(&file)?.trim().parse().ok()).min()
}

fn read(file: &Path) -> Option<String> {
    file_access::enter(file);
    fs::read_to_string(file).ok()
}

fn of_machine() -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * KIBIBYTE)
}
