//! The catalogue of metrics: every metric and its help, and in `queries.toml` a query for it.
//!
//! Handles are created once, so that a request only updates them, and every series exists from the
//! start. No label contains an organization, a webhook or a workflow, so that callers cannot add
//! series.

mod config;
mod connections;
mod cpu_time;
mod labels;
mod redis;
mod register;

use crate::metrics::config::ConfigMetrics;
pub use crate::metrics::connections::ConnectionMetrics;
pub use crate::metrics::labels::{
    ChangeKind, Collection, DeliveryLimit, JobState, Limit, LoadReason, Outcome, RedisError,
    ReloadResult, ReplicaState, SpanResult,
};
pub use crate::metrics::redis::RedisMetrics;
use crate::metrics::register::{handle, register_counter, register_gauge, register_histogram};

use metrics::{Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use std::sync::Arc;

/// Buckets of durations in seconds. They start at 50 µs, because a request that is answered from
/// memory with one call to a Redis nearby takes some hundred microseconds. The last one, 10 s, is
/// longer than every deadline.
const SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// Buckets of numbers of jobs. They double up to the default of `queue.max_matches`.
const JOBS: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Handles to every metric, and the page that exposes them.
#[derive(Debug)]
pub struct Metrics {
    page: Registry,
    requests: Vec<Counter>,
    pub request_duration: Histogram,
    pub unmatched: Counter,
    pub replayed: Counter,
    pub requests_in_flight: Gauge,
    pub ready: Gauge,
    pub connections: ConnectionMetrics,
    pub index_triggers: Gauge,
    pub index_workflows: Gauge,
    pub index_api_keys: Gauge,
    pub index_conflicting_api_keys: Gauge,
    pub index_conflicting_user_ids: Gauge,
    pub index_age: Gauge,
    pub snapshot_age: Gauge,
    index_changes: Vec<Vec<Counter>>,
    index_loads: Vec<Vec<Counter>>,
    index_skipped: Vec<Counter>,
    index_skipped_parts: Vec<Counter>,
    config: ConfigMetrics,
    pub certificate_not_after: Gauge,
    pub jwks: JwksMetrics,
    over_limit_in_dry_run: Vec<Counter>,
    deliveries_over_limit: Vec<Counter>,
    spans: Vec<Counter>,
}

/// Handles to the metrics of the JWK set.
#[derive(Debug)]
pub struct JwksMetrics {
    pub age: Gauge,
    pub skipped_keys: Counter,
}

impl JwksMetrics {
    fn register() -> Self {
        Self {
            age: register_gauge(
                "hookgate_jwks_age_seconds",
                "Seconds since the JWK set in use last matched its file or URL, or since the start before the first fetch; -1 if none is configured.",
            ),
            skipped_keys: register_counter(
                "hookgate_jwks_skipped_keys_total",
                "Entries of the JWK set that cannot be read or used, counted each time the set changes.",
            ),
        }
    }
}

impl Metrics {
    pub fn new(version: &'static str, commit: &'static str) -> Result<Arc<Self>, BuildError> {
        let page = Registry::new()?;
        let recorder = Arc::clone(&page.recorder);
        Ok(Arc::new(metrics::with_local_recorder(&*recorder, || {
            Self::register(page, version, commit)
        })))
    }

    fn register(page: Registry, version: &'static str, commit: &'static str) -> Self {
        describe_labelled(version, commit);
        page.process.describe();
        Self {
            page,
            requests: requests(),
            request_duration: register_histogram(
                "hookgate_request_duration_seconds",
                "Time from the head of a request to its answer.",
            ),
            unmatched: register_counter(
                "hookgate_unmatched_total",
                "Accepted requests that no trigger matched.",
            ),
            replayed: register_counter(
                "hookgate_replayed_total",
                "Accepted requests that repeat an earlier one with the same idempotency key.",
            ),
            requests_in_flight: register_gauge(
                "hookgate_requests_in_flight",
                "Requests that have begun and not ended.",
            ),
            ready: register_gauge("hookgate_ready", "1 if /readyz reports ready, else 0."),
            connections: ConnectionMetrics::register(),
            index_triggers: register_gauge("hookgate_index_triggers", "Triggers in the index."),
            index_workflows: register_gauge(
                "hookgate_index_workflows",
                "Workflows with a trigger in the index.",
            ),
            index_api_keys: register_gauge("hookgate_index_api_keys", "API keys in the index."),
            index_conflicting_api_keys: register_gauge(
                "hookgate_index_conflicting_api_keys",
                "API keys that are rejected because users of several organizations have them.",
            ),
            index_conflicting_user_ids: index_conflicting_user_ids(),
            index_age: register_gauge(
                "hookgate_index_age_seconds",
                "Age of the older of the two mirrored collections in seconds; -1 before the first load.",
            ),
            snapshot_age: register_gauge(
                "hookgate_snapshot_age_seconds",
                "Seconds since the last snapshot of the index, or since the start if there is none; 0 without triggers.snapshot_file.",
            ),
            index_changes: by_collection(
                "hookgate_index_changes_total",
                "Changes of documents that were applied to the index.",
                ("kind", ChangeKind::WORDS),
            ),
            index_loads: by_collection(
                "hookgate_index_loads_total",
                "Complete loads of a collection.",
                ("reason", LoadReason::WORDS),
            ),
            index_skipped: index_skipped(),
            index_skipped_parts: index_skipped_parts(),
            config: ConfigMetrics::register(),
            certificate_not_after: register_gauge(
                "hookgate_tls_certificate_not_after_seconds",
                "When the certificate of the ingress port expires, in seconds since 1970; 0 without server.tls.",
            ),
            jwks: JwksMetrics::register(),
            over_limit_in_dry_run: over_limit_in_dry_run(),
            deliveries_over_limit: deliveries_over_limit(),
            spans: spans(),
        }
    }

    /// Registers the metrics of a queue.
    pub fn queue(&self, name: &str) -> Arc<RedisMetrics> {
        let register = || RedisMetrics::register(name);
        Arc::new(metrics::with_local_recorder(&*self.page.recorder, register))
    }

    pub fn request(&self, outcome: Outcome) -> &Counter {
        handle(&self.requests, outcome as usize)
    }

    pub fn index_change(&self, collection: Collection, kind: ChangeKind) -> &Counter {
        handle(handle::<Vec<Counter>>(&self.index_changes, collection as usize), kind as usize)
    }

    pub fn index_load(&self, collection: Collection, reason: LoadReason) -> &Counter {
        handle(handle::<Vec<Counter>>(&self.index_loads, collection as usize), reason as usize)
    }

    pub fn index_skipped(&self, collection: Collection) -> &Counter {
        handle(&self.index_skipped, collection as usize)
    }

    /// Skipped parts of documents: nodes of workflows or API keys of users.
    pub fn index_skipped_parts(&self, collection: Collection) -> &Counter {
        handle(&self.index_skipped_parts, collection as usize)
    }

    /// Counts a reload of the configuration.
    pub fn config_reload(&self, result: ReloadResult) {
        self.config.reloaded(result);
    }

    pub fn over_limit_in_dry_run(&self, limit: Limit) -> &Counter {
        handle(&self.over_limit_in_dry_run, limit as usize)
    }

    /// Deliveries that were refused before they were verified.
    pub fn delivery_over_limit(&self, limit: DeliveryLimit) -> &Counter {
        handle(&self.deliveries_over_limit, limit as usize)
    }

    /// Spans of traced requests.
    pub fn spans(&self, result: SpanResult) -> &Counter {
        handle(&self.spans, result as usize)
    }

    /// Moves the samples of histograms into their buckets. Until then each sample is kept in
    /// memory, so this must be called every few seconds even if nothing scrapes the page.
    pub fn upkeep(&self) {
        self.page.handle.run_upkeep();
    }

    /// Records whether a part of the program is degraded. The caller passes the parts of `/readyz`,
    /// so that no part is missing.
    pub fn degraded(&self, part: String, is_degraded: bool) {
        let gauge = || gauge!("hookgate_degraded", "part" => part);
        let gauge = metrics::with_local_recorder(&*self.page.recorder, gauge);
        gauge.set(f64::from(u8::from(is_degraded)));
    }

    /// Renders the page in Prometheus' text format.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.page.recorder, || self.page.process.collect());
        cpu_time::in_fractions(self.page.handle.render())
    }
}

/// The registry behind the handles. It is not global, so that each test can have its own.
#[derive(Debug)]
struct Registry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Registry {
    fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .set_buckets_for_metric(Matcher::Full("hookgate_batch_jobs".to_owned()), &JOBS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(Self {
            recorder: Arc::new(recorder),
            handle,
            process: metrics_process::Collector::default(),
        })
    }
}

/// Describes the metrics that have no handle.
fn describe_labelled(version: &'static str, commit: &'static str) {
    describe_gauge!(
        "hookgate_build_info",
        "Always 1; the labels are the version and the commit of the running program."
    );
    gauge!("hookgate_build_info", "version" => version, "commit" => commit).set(1.0);
    describe_gauge!(
        "hookgate_degraded",
        "1 for each part that /readyz reports as degraded: it serves, but has a problem."
    );
}

fn requests() -> Vec<Counter> {
    let name = "hookgate_requests_total";
    describe_counter!(name, "Requests by result; every request is counted once.");
    Outcome::ALL.iter().map(|outcome| counter!(name, "code" => outcome.as_str())).collect()
}

/// One counter for each collection and each value of a second label.
fn by_collection(
    name: &'static str,
    help: &'static str,
    (label, values): (&'static str, &[&'static str]),
) -> Vec<Vec<Counter>> {
    describe_counter!(name, help);
    let of_collection = |collection: &Collection| {
        let values = values.iter();
        values
            .map(|value| counter!(name, "collection" => collection.as_str(), label => *value))
            .collect()
    };
    Collection::ALL.iter().map(of_collection).collect()
}

fn index_conflicting_user_ids() -> Gauge {
    register_gauge(
        "hookgate_index_conflicting_user_ids",
        "Ids that users of several organizations have; their tokens are rejected unless they name an organization.",
    )
}

fn index_skipped() -> Vec<Counter> {
    let name = "hookgate_index_skipped_documents_total";
    describe_counter!(name, "Malformed documents that were skipped.");
    let collections = Collection::ALL.iter();
    collections.map(|collection| counter!(name, "collection" => collection.as_str())).collect()
}

fn index_skipped_parts() -> Vec<Counter> {
    let of_collection = |collection: &Collection| match collection {
        Collection::Workflows => register_counter(
            "hookgate_index_skipped_nodes_total",
            "Malformed trigger nodes that were skipped in their workflows, or have no endpoint.",
        ),
        Collection::Users => register_counter(
            "hookgate_index_skipped_api_keys_total",
            "Malformed API keys that were skipped in their users.",
        ),
    };
    Collection::ALL.iter().map(of_collection).collect()
}

fn over_limit_in_dry_run() -> Vec<Counter> {
    let name = "hookgate_over_limit_dry_run_total";
    describe_counter!(
        name,
        "Requests that limits.organization would reject if limits.organization.dry_run were off."
    );
    Limit::ALL.iter().map(|limit| counter!(name, "limit" => limit.as_str())).collect()
}

fn deliveries_over_limit() -> Vec<Counter> {
    let name = "hookgate_deliveries_over_limit_total";
    describe_counter!(
        name,
        "Deliveries to endpoints that were rejected before they were verified, by limit: two of one client address (429), the share of \
         all that are in flight, and the part of one client address in it (503)."
    );
    DeliveryLimit::ALL.iter().map(|limit| counter!(name, "limit" => limit.as_str())).collect()
}

fn spans() -> Vec<Counter> {
    let name = "hookgate_spans_total";
    describe_counter!(
        name,
        "Spans of traced requests, by result: exported, failed in their export, or dropped because too many waited for it."
    );
    SpanResult::ALL.iter().map(|result| counter!(name, "result" => result.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_from_the_start() {
        let page = Metrics::new("1", "c").unwrap().render();
        for outcome in Outcome::ALL {
            assert!(
                page.contains(&format!(
                    "hookgate_requests_total{{code=\"{}\"}} 0",
                    outcome.as_str()
                ))
            );
        }
        assert!(page.contains("hookgate_request_duration_seconds_count 0"));
        assert!(
            page.contains(
                "hookgate_index_loads_total{collection=\"users\",reason=\"stream_lost\"} 0"
            )
        );
    }
}
