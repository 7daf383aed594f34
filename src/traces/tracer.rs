//! Which requests are traced, and the queue of spans.

use crate::metrics::{Metrics, SpanResult};
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::SpanData;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Samples requests, and hands their spans to the exporter. All threads share it.
#[derive(Debug)]
pub struct Tracer {
    spans: mpsc::Sender<SpanData>,
    sample_ratio: f64,
    metrics: Arc<Metrics>,
    pub(super) scope: InstrumentationScope,
}

impl Tracer {
    pub(super) fn new(
        spans: mpsc::Sender<SpanData>,
        sample_ratio: f64,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let scope = InstrumentationScope::builder("hookgate");
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        Arc::new(Self { spans, sample_ratio, metrics, scope })
    }

    /// Whether to trace another request. It does not depend on the trace id, which callers choose.
    pub fn samples(&self) -> bool {
        fastrand::f64() < self.sample_ratio
    }

    /// Hands a span to the exporter, or drops it if too many wait for that.
    pub(super) fn record(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans(SpanResult::Dropped).increment(1);
        }
    }
}
