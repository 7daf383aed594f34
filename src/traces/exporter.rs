//! The exporter: a thread that sends spans to the collector.
//!
//! The batch processor of the SDK is not used, because nobody can read how many spans it has
//! dropped.

use crate::metrics::{Metrics, SpanResult};
use crate::process::backoff::Backoff;
use crate::process::findings::Findings;
use crate::process::log_throttle::LogThrottle;
use crate::traces::settings::TracesSettings;
use crate::traces::tracer::Tracer;
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use std::sync::Arc;
use std::time::Duration;
use std::{env, io, thread};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Spans that wait for their export. A request that is traced has about three.
const QUEUED_SPANS: usize = 4096;

/// Spans of one export.
const BATCH_SPANS: usize = 512;

/// Maximum bytes of memory of the spans that wait or are being exported. A span has at most four
/// kilobytes: an organization, a request id and two addresses are its longest attributes. A batch
/// that is being exported is in memory three times, as spans, as messages and encoded.
pub const EXPORT_BYTES: usize = (QUEUED_SPANS + 3 * BATCH_SPANS) * (4 << 10);

/// Longest time from the first span of a batch to its export.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// How often the queue is looked at while a batch is built. No span wakes the thread meanwhile.
const TICK: Duration = Duration::from_millis(50);

/// Time limit of one export with its retries.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses after failed exports.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Time for the last exports when the process stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a failed export is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Traces of the running process. Dropping it does not stop the exporter.
#[derive(Debug)]
pub struct Traces {
    pub tracer: Arc<Tracer>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Traces {
    /// Starts the exporter. `None` unless `telemetry.otlp.endpoint` is set.
    pub fn start(settings: &TracesSettings, metrics: &Arc<Metrics>) -> io::Result<Option<Self>> {
        let Some(endpoint) = settings.endpoint.clone() else { return Ok(None) };
        let (sender, spans) = mpsc::channel(QUEUED_SPANS);
        let stop = CancellationToken::new();
        let worker = ExportWorker {
            spans,
            stop: stop.clone(),
            metrics: Arc::clone(metrics),
            pause: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            failures: LogThrottle::new(1, LOG_INTERVAL),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(worker.run(&endpoint));
            // A name lookup may hang, and dropping the runtime would wait for it.
            runtime.shutdown_background();
            let _ = end.send(());
        })?;
        let tracer = Tracer::new(sender, settings.sample_ratio, Arc::clone(metrics));
        Ok(Some(Self { tracer, stop, ended }))
    }

    /// Exports the spans that still wait, for at most 3 s.
    pub async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(FLUSH_TIMEOUT, self.ended).await.is_err() {
            tracing::warn!("the collector does not answer; the last spans are lost");
        }
    }
}

/// Exports an empty batch. `None` unless `telemetry.otlp.endpoint` is set. A collector that does not
/// accept it is a warning, because requests do not need it.
pub async fn survey(settings: &TracesSettings) -> Option<Findings> {
    let endpoint = settings.endpoint.as_deref()?;
    let mut findings = Findings::default();
    findings.fact("endpoint", endpoint);
    let failure = match client(endpoint) {
        Ok(client) => export(&client, Vec::new()).await.err(),
        Err(reason) => Some(reason),
    };
    if let Some(reason) = failure {
        findings.warning(format!("spans would not be exported: {reason}"));
    }
    Some(findings)
}

struct ExportWorker {
    spans: mpsc::Receiver<SpanData>,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    pause: Backoff,
    failures: LogThrottle,
}

impl ExportWorker {
    /// Exports batches until the process stops and the queue is empty, or until an export fails
    /// after that.
    async fn run(mut self, endpoint: &str) {
        let client = match client(endpoint) {
            Ok(client) => client,
            Err(reason) => {
                tracing::error!(reason, "spans cannot be exported; all are dropped");
                return;
            }
        };
        tracing::info!(endpoint, "exporting spans");
        while let Some(batch) = self.next_batch().await {
            let count = batch.len() as u64;
            let Err(reason) = export(&client, batch).await else {
                self.metrics.spans(SpanResult::Exported).increment(count);
                self.pause.reset();
                continue;
            };
            self.metrics.spans(SpanResult::Failed).increment(count);
            self.log(&reason);
            tokio::select! {
                () = self.pause.wait() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Waits for a span, and returns it with those that follow it within [`BATCH_TIME`]. `None`
    /// after the last one.
    async fn next_batch(&mut self) -> Option<Vec<SpanData>> {
        let mut batch = Vec::with_capacity(BATCH_SPANS);
        tokio::select! {
            biased;
            _ = self.spans.recv_many(&mut batch, 1) => {}
            () = self.stop.cancelled() => self.spans.close(),
        }
        let until = Instant::now() + BATCH_TIME;
        while self.spans.len() < BATCH_SPANS && Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.stop.cancelled() => break,
            }
        }
        while batch.len() < BATCH_SPANS
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn log(&mut self, reason: &str) {
        if self.failures.allows() {
            tracing::warn!(
                reason,
                "spans not exported; further ones are counted in hookgate_spans_total"
            );
        }
    }
}

/// The client of the collector, which connects when it is first used. Must be called on the runtime
/// that exports.
fn client(endpoint: &str) -> Result<SpanExporter, String> {
    let builder = SpanExporter::builder().with_tonic();
    let builder = builder.with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    let builder = if endpoint.starts_with("https://") {
        builder.with_tls_config(ClientTlsConfig::new().with_native_roots())
    } else {
        builder
    };
    let mut client = builder.build().map_err(|error| error.to_string())?;
    client.set_resource(&resource());
    Ok(client)
}

/// Exports spans within [`EXPORT_TIMEOUT`], or returns why it could not.
async fn export(client: &SpanExporter, spans: Vec<SpanData>) -> Result<(), String> {
    match tokio::time::timeout(EXPORT_TIMEOUT, client.export(spans)).await {
        Ok(exported) => exported.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// What the process is: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before the defaults.
fn resource() -> Resource {
    let defaults = [
        KeyValue::new("service.name", "hookgate"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
    ];
    let builder = Resource::builder_empty().with_attributes(defaults).with_detectors(&[
        Box::new(TelemetryResourceDetector),
        Box::new(EnvResourceDetector::new()),
    ]);
    #[expect(
        clippy::disallowed_methods,
        reason = "the SDK reads the other variables of OpenTelemetry"
    )]
    let name = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    match name {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}
