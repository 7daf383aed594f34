//! Traces: spans of requests, exported by OTLP over gRPC.
//!
//! The code that knows the times of a span builds it and hands it to a bounded queue. A thread
//! exports what is in the queue. A request never waits for either: a span that finds the queue full
//! is dropped and counted.

mod exporter;
mod settings;
mod span;
mod tracer;

pub use crate::traces::exporter::{EXPORT_BYTES, Traces, survey};
pub use crate::traces::settings::TracesSettings;
pub use crate::traces::span::{CallerSpan, ParentSpan, Span};
pub use crate::traces::tracer::Tracer;
