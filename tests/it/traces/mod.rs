//! Traces: the spans of requests, at a collector that decodes them.

mod exporting;
mod jobs;
mod sampling;
mod spans;

use testkit::app::Builder;
use testkit::collector::Collector;
use testkit::{App, Config};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";

/// A `traceparent` with the flag `sampled`, and one without.
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// Exports to this collector, with this ratio.
fn traced(collector: &Collector, ratio: f64) -> Builder {
    App::build().config(|config| export_to(config, collector.url(), ratio))
}

fn export_to(config: &mut Config, endpoint: &str, ratio: f64) {
    config.set("telemetry.otlp.endpoint", endpoint).set("telemetry.otlp.sample_ratio", ratio);
}

/// The number of spans with this result.
async fn spans(app: &App, result: &str) -> f64 {
    app.hookgate.metrics().await.value("hookgate_spans_total", &[("result", result)])
}
