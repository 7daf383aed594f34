//! The memory budget: the most memory that callers can make the process use, compared with the
//! memory that is available.
//!
//! Each limit of the configuration costs a fixed number of bytes for each unit that it allows. The
//! costs are measured with the most expensive callers of the tests (`tests/it/process/machine.rs`)
//! and rounded up. The index is not included, because its size depends on the documents.

use crate::admission::AdmissionSettings;
use crate::config::Config;
use crate::files::file_access;
use crate::queue::QueueSettings;
use crate::traces::EXPORT_BYTES;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Lists the cgroups of the process.
const CGROUP: &str = "/proc/self/cgroup";

const KIBIBYTE: u64 = 1 << 10;
const MEBIBYTE: u64 = 1 << 20;

/// The program itself, the cache of verified tokens (32 MiB) and the accounts of organizations (50
/// MiB).
const BASE: u64 = 128 * MEBIBYTE;

/// Cost of an HTTP/1.1 connection: 64 KiB for the part of a head that has arrived, 64 KiB for an
/// answer that the caller does not read, and its own state. Heads of admitted requests count in
/// `limits.in_flight_bytes`.
const PER_CONNECTION: u64 = 144 * KIBIBYTE;

/// Cost of a TLS connection, which may use HTTP/2: the buffers of TLS, a head that is being decoded
/// (110 KiB for a thousand empty fields), frames, and the last 12 KiB of each of 100 answers that
/// the caller does not read.
const TLS_CONNECTION: u64 = 1536 * KIBIBYTE;

/// Cost of a request in flight, in addition to the bytes that it has reserved.
const PER_REQUEST: u64 = 16 * KIBIBYTE;

/// Cost of a reserved byte: it is copied once on its way to Redis, and the allocator has overhead.
const PER_BYTE: u64 = 2;

/// Cost of a connection to Redis, beside the jobs on it: the buffers of both directions, and what is
/// kept for batches that are sent alone. The connections of one queue are part of [`BASE`].
const PER_REDIS_CONNECTION: u64 = MEBIBYTE;

/// Cost of a worker: two decoders with the largest window of brotli.
const DECODERS: u64 = 2 * 24 * MEBIBYTE;
/// Cost of a worker's JSON parser for each byte of the body that it parses.
const PARSER_PER_BYTE: u64 = 24;

/// The warning names a key if its part is larger than the available memory divided by this number.
const REPORT_DIVISOR: u64 = 20;

/// The most memory that callers can make the process use, and the available memory.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryBudget {
    /// Upper bound in bytes, without the index.
    at_most: u64,
    /// The part of each key in bytes, the largest first.
    bounds: Vec<(&'static str, u64)>,
    /// The available memory. `None` if it is not known.
    limit: Option<SystemLimit>,
    /// The parts of the keys that a reload does not change.
    #[serde(skip)]
    fixed: [(&'static str, u64); 4],
    #[serde(skip)]
    workers: u64,
}

/// The lowest memory limit of the system.
#[derive(Debug, Clone, Serialize)]
pub struct SystemLimit {
    bytes: u64,
    /// What sets the limit.
    by: &'static str,
}

impl MemoryBudget {
    pub fn new(config: &Config) -> Self {
        Self { limit: limit(), ..Self::without_limit(config) }
    }

    /// Like `new`, before the available memory is known.
    pub fn without_limit(config: &Config) -> Self {
        let connection = if config.server.tls.is_some() { TLS_CONNECTION } else { PER_CONNECTION };
        let workers = count(config.server.workers());
        let per_worker = DECODERS + PARSER_PER_BYTE * count(config.server.body.max_body);
        let all = config.queue.all_connections(config.server.workers());
        let of_one = config.queue.connections(config.server.workers());
        let spans = if config.traces.are_enabled() { count(EXPORT_BYTES) } else { 0 };
        let fixed = [
            ("server.max_connections", connection * count(config.server.max_connections)),
            ("server.workers", workers * per_worker),
            ("queue.shards", PER_REDIS_CONNECTION * count(all - of_one)),
            ("telemetry.otlp.endpoint", spans),
        ];
        let mut memory = Self { at_most: 0, bounds: Vec::new(), limit: None, fixed, workers };
        memory.reload(&config.admission, &config.queue);
        memory
    }

    /// Replaces the parts of the keys that a reload can change.
    pub fn reload(&mut self, admission: &AdmissionSettings, queue: &QueueSettings) {
        // Zero without further queues and without traces.
        self.bounds = self.fixed.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        self.bounds.extend([
            ("limits.in_flight_bytes", PER_BYTE * count(admission.in_flight_bytes)),
            ("limits.in_flight_requests", PER_REQUEST * count(admission.in_flight_requests)),
        ]);
        // Zero unless a template puts the body into every job of a request.
        let encoding = count(queue.encoding_bytes());
        if encoding > 0 {
            self.bounds.push(("queue.max_fanout_bytes", self.workers * encoding));
        }
        self.bounds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        self.at_most = BASE + self.bounds.iter().map(|(_, bytes)| bytes).sum::<u64>();
    }

    /// Reads the available memory and logs the warning, in the running service. The files with the
    /// limits may hang, because a container may replace those of the kernel.
    pub async fn warn(mut self) {
        match file_access::run(Path::new(CGROUP), limit).await {
            Ok(limit) => self.limit = limit,
            Err(error) => tracing::warn!(%error, "available memory is unknown"),
        }
        if let Some(warning) = self.warning() {
            tracing::warn!("{warning}");
        }
    }

    /// A warning if callers can make the process use more memory than is available. It names the
    /// keys to lower.
    pub fn warning(&self) -> Option<String> {
        let SystemLimit { bytes, by } =
            self.limit.as_ref().filter(|limit| limit.bytes < self.at_most)?;
        let large = self.bounds.iter().filter(|(_, used)| *used > bytes / REPORT_DIVISOR);
        let keys: Vec<String> =
            large.map(|(key, used)| format!("{key} ({})", mebibytes(*used))).collect();
        Some(format!(
            "callers can make the process use up to {} (index not included), but {by} allows {}: \
             lower {}",
            mebibytes(self.at_most),
            mebibytes(*bytes),
            keys.join(", ")
        ))
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(MEBIBYTE))
}

/// The lowest memory limit of this process, and what sets it.
fn limit() -> Option<SystemLimit> {
    let of_process = |resource, by| Some(SystemLimit { bytes: getrlimit(resource).current?, by });
    let limits = [
        of_process(Resource::As, "RLIMIT_AS"),
        of_process(Resource::Data, "RLIMIT_DATA"),
        cgroup_limit().map(|bytes| SystemLimit { bytes, by: "the cgroup" }),
        machine_memory().map(|bytes| SystemLimit { bytes, by: "the machine" }),
    ];
    limits.into_iter().flatten().min_by_key(|limit| limit.bytes)
}

/// The lowest limit of the cgroups of this process, in version 1 or 2.
fn cgroup_limit() -> Option<u64> {
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
        lowest_limit(Path::new(root), Path::new(path.trim_start_matches('/')), file)
    };
    groups.lines().filter_map(of_line).min()
}

/// The lowest limit of a cgroup and its ancestors. In a container, parts of the path may not exist.
fn lowest_limit(root: &Path, path: &Path, file: &str) -> Option<u64> {
    let groups = path.ancestors().map(|group| root.join(group).join(file));
    groups.filter_map(|file| read(&file)?.trim().parse().ok()).min()
}

fn read(file: &Path) -> Option<String> {
    file_access::enter(file);
    fs::read_to_string(file).ok()
}

fn machine_memory() -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * KIBIBYTE)
}
