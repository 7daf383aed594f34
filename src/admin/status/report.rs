//! The document of `/status.json`. Every list and every string in it has a bound, and it contains
//! no credential, no payload and no value of a document. docs/reference/status.md describes it.

use crate::admin::status::clip::clip;
use crate::admin::status::exposition::Exposition;
use crate::admin::status::hints::hint;
use crate::admin::status::history::HistoryReport;
use crate::admin::status::index::IndexReport;
use crate::admin::status::sources::StatusSources;
use crate::admin::status::totals::Totals;
use crate::admission::OrganizationAtLimit;
use crate::metrics::JobState;
use crate::process::last_reload::{LastReload, Reloaded};
use crate::process::lifecycle::Problem;
use crate::queue::{QueueParts, QueueStatus, ServerSummary};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maximum entries of a list of problems or keys.
const MAX_ENTRIES: usize = 50;

/// Maximum queues. No installation has nearly as many.
const MAX_QUEUES: usize = 200;

/// Maximum organizations at their limit.
const MAX_ORGANIZATIONS: usize = 20;

/// The state of the process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) problems: Vec<Problem>,
    pub(super) is_alive: bool,
    pub(super) uptime: Duration,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    at: String,
    /// What `/readyz` says.
    ready: bool,
    /// What `/livez` says.
    alive: bool,
    reasons: Vec<ProblemReport>,
    degraded: Vec<ProblemReport>,
    version: &'static str,
    commit: &'static str,
    uptime_seconds: u64,
    configuration: Configuration,
    requests: Requests,
    history: HistoryReport,
    queues: Vec<QueueReport>,
    index: IndexReport,
    organizations_at_limit: Vec<AtLimit>,
}

#[derive(Debug, Serialize)]
struct ProblemReport {
    part: String,
    reason: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Configuration {
    file: String,
    /// When the configuration in effect was read.
    read_at: Option<String>,
    last_reload: Option<Reload>,
}

#[derive(Debug, Serialize)]
struct Reload {
    at: String,
    result: &'static str,
    changed: Vec<String>,
    pending: Vec<String>,
    faults: Vec<String>,
}

/// The requests since the start.
#[derive(Debug, Serialize)]
struct Requests {
    in_flight: u64,
    connections: u64,
    total: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct QueueReport {
    name: String,
    address: String,
    server: Option<ServerSummary>,
    connections: usize,
    connections_open: usize,
    /// By state; null if it is not known.
    jobs: BTreeMap<&'static str, Option<u64>>,
    jobs_enqueued: u64,
    memory_ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct AtLimit {
    organization: String,
    limit: &'static str,
    seconds: usize,
}

impl Report {
    pub(super) fn new(
        sources: &StatusSources,
        Process { problems, is_alive, uptime }: &Process,
        (totals, history): (&Totals, HistoryReport),
        metrics: &Exposition<'_>,
    ) -> Self {
        let StatusSources { config_file, last_reload, admission, queues, documents, collections } =
            sources;
        let at_limit = admission.organizations_at_limit(MAX_ORGANIZATIONS);
        Self {
            at: rfc3339(SystemTime::now()),
            ready: !problems.iter().any(|problem| problem.is_blocking),
            alive: *is_alive,
            reasons: ProblemReport::list(problems, true),
            degraded: ProblemReport::list(problems, false),
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("HOOKGATE_COMMIT"),
            uptime_seconds: uptime.as_secs(),
            configuration: Configuration::new(config_file, last_reload, metrics),
            requests: Requests::new(totals, metrics),
            history,
            queues: queues
                .iter()
                .take(MAX_QUEUES)
                .map(|parts| QueueReport::new(parts, metrics))
                .collect(),
            index: IndexReport::new(documents, collections, metrics),
            organizations_at_limit: at_limit.iter().map(AtLimit::new).collect(),
        }
    }
}

impl ProblemReport {
    /// The problems that keep the process from being ready, or the others.
    fn list(all: &[Problem], are_blocking: bool) -> Vec<Self> {
        let problems = all.iter().filter(|problem| problem.is_blocking == are_blocking);
        let report = |problem: &Problem| Self {
            part: clip(&problem.part),
            reason: clip(&problem.text),
            hint: hint(problem, all).map(|hint| clip(&hint)),
        };
        problems.take(MAX_ENTRIES).map(report).collect()
    }
}

impl Configuration {
    fn new(file: &Path, last_reload: &LastReload, metrics: &Exposition<'_>) -> Self {
        let read_at = metrics.number("hookgate_config_last_reload_success_timestamp_seconds", &[]);
        let read_at = read_at.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self {
            file: clip(&file.display().to_string()),
            read_at: read_at.and_then(|since| UNIX_EPOCH.checked_add(since)).map(rfc3339),
            last_reload: last_reload.get().as_ref().map(Reload::new),
        }
    }
}

impl Reload {
    fn new(reloaded: &Reloaded) -> Self {
        let keys = |keys: &[String]| keys.iter().take(MAX_ENTRIES).map(|key| clip(key)).collect();
        Self {
            at: rfc3339(reloaded.at),
            result: if reloaded.is_applied() { "applied" } else { "refused" },
            changed: keys(&reloaded.changed),
            pending: keys(&reloaded.pending),
            faults: keys(&reloaded.faults),
        }
    }
}

impl Requests {
    fn new(totals: &Totals, metrics: &Exposition<'_>) -> Self {
        let gauge = |name: &str| metrics.count(name, &[]).unwrap_or(0);
        Self {
            in_flight: gauge("hookgate_requests_in_flight"),
            connections: gauge("hookgate_connections"),
            total: totals.requests().filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl QueueReport {
    fn new(parts: &QueueParts, metrics: &Exposition<'_>) -> Self {
        let QueueStatus { name, address, server, connections, connections_open } = parts.status();
        let queue = ("queue", name.as_str());
        let jobs = |state: &JobState| {
            let state = state.as_str();
            (state, metrics.count("hookgate_queue_jobs", &[queue, ("state", state)]))
        };
        Self {
            jobs: JobState::ALL.iter().map(jobs).collect(),
            jobs_enqueued: metrics.count("hookgate_jobs_enqueued_total", &[queue]).unwrap_or(0),
            memory_ratio: metrics
                .number("hookgate_redis_memory_ratio", &[queue])
                .filter(|_| server.is_some()),
            name: clip(&name),
            address: clip(&address),
            server: server.map(clip_server),
            connections,
            connections_open,
        }
    }
}

fn clip_server(server: ServerSummary) -> ServerSummary {
    let clip = |value: Option<String>| value.map(|value| clip(&value));
    ServerSummary {
        software: clip(server.software),
        version: clip(server.version),
        mode: clip(server.mode),
        role: clip(server.role),
    }
}

impl AtLimit {
    fn new(at_limit: &OrganizationAtLimit) -> Self {
        Self {
            organization: clip(at_limit.organization.as_str()),
            limit: at_limit.limit.as_str(),
            seconds: at_limit.seconds,
        }
    }
}

/// A time to the second. A clock before 1970 counts as 1970.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time.max(UNIX_EPOCH)).to_string()
}
