//! Spans, from their beginning to the queue of the exporter.

use crate::traces::tracer::Tracer;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A span of a traced request. [`Self::end`] hands it to the exporter.
#[derive(Debug)]
pub struct Span {
    tracer: Arc<Tracer>,
    data: SpanData,
}

/// A span that others have as their parent.
#[derive(Debug, Clone)]
pub struct ParentSpan {
    tracer: Arc<Tracer>,
    trace: TraceId,
    span: SpanId,
}

/// The span of a caller, as its `traceparent` names it.
#[derive(Debug, Clone, Copy)]
pub struct CallerSpan {
    trace: TraceId,
    span: SpanId,
    pub is_sampled: bool,
}

impl CallerSpan {
    /// Parses a `traceparent` of version 00.
    pub fn from_traceparent(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-').skip(1);
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            trace: TraceId::from_hex(trace).ok()?,
            span: SpanId::from_hex(span).ok()?,
            is_sampled: TraceFlags::new(u8::from_str_radix(flags, 16).ok()?).is_sampled(),
        })
    }
}

impl ParentSpan {
    /// The value of a `traceparent` that continues this span.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.span)
    }
}

impl Span {
    /// The span of a request, which begins a trace.
    pub fn of_request(tracer: &Arc<Tracer>, started_at: SystemTime) -> Self {
        let trace = TraceId::from_bytes(fastrand::u128(1..).to_be_bytes());
        Self::new(tracer, (trace, SpanId::INVALID), SpanKind::Server, Cow::Borrowed(""), started_at)
    }

    /// A call to another service within this parent.
    pub fn of_call(parent: &ParentSpan, name: &'static str, started_at: SystemTime) -> Self {
        Self::of_parent(parent, SpanKind::Client, name, started_at)
    }

    /// A step of the process within this parent.
    pub fn of_step(parent: &ParentSpan, name: &'static str, started_at: SystemTime) -> Self {
        Self::of_parent(parent, SpanKind::Internal, name, started_at)
    }

    fn of_parent(
        ParentSpan { tracer, trace, span }: &ParentSpan,
        kind: SpanKind,
        name: &'static str,
        started_at: SystemTime,
    ) -> Self {
        Self::new(tracer, (*trace, *span), kind, Cow::Borrowed(name), started_at)
    }

    fn new(
        tracer: &Arc<Tracer>,
        (trace, parent): (TraceId, SpanId),
        span_kind: SpanKind,
        name: Cow<'static, str>,
        start_time: SystemTime,
    ) -> Self {
        let span = SpanId::from_bytes(fastrand::u64(1..).to_be_bytes());
        let data = SpanData {
            span_context: context(trace, span),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind,
            name,
            start_time,
            end_time: start_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: tracer.scope.clone(),
        };
        Self { tracer: Arc::clone(tracer), data }
    }

    /// Makes this span a child of the caller's, in the caller's trace.
    pub fn continue_caller(&mut self, caller: &CallerSpan) {
        self.data.span_context = context(caller.trace, self.data.span_context.span_id());
        self.data.parent_span_id = caller.span;
        self.data.parent_span_is_remote = true;
    }

    /// This span as the parent of others.
    pub fn as_parent(&self) -> ParentSpan {
        let context = &self.data.span_context;
        let tracer = Arc::clone(&self.tracer);
        ParentSpan { tracer, trace: context.trace_id(), span: context.span_id() }
    }

    pub fn set_name(&mut self, name: String) {
        self.data.name = Cow::Owned(name);
    }

    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.data.attributes.push(KeyValue::new(key, value));
    }

    /// Marks the span as failed.
    pub fn fail(&mut self) {
        self.data.status = Status::error("");
    }

    /// Ends the span this long after its start.
    pub fn end_after(self, duration: Duration) {
        let end = self.data.start_time.checked_add(duration);
        let at = end.unwrap_or(self.data.start_time);
        self.end(at);
    }

    /// Ends the span. A clock that was set back makes it end when it began.
    pub fn end(mut self, at: SystemTime) {
        self.data.end_time = at.max(self.data.start_time);
        self.tracer.record(self.data);
    }
}

/// The identity of a traced span of this process.
fn context(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}
