//! The spans of a batch: how long its traced requests wait, and the calls that carry them.
//!
//! Each traced request of a batch gets a span of its own for each call that they share.

use crate::metrics::RedisError;
use crate::queue::batch::pending::PendingRequest;
use crate::queue::batch::script::ScriptError;
use crate::queue::bullmq::job::{Jobs, TracedJobs};
use crate::traces::Span;
use std::time::SystemTime;
use tokio::time::error::Elapsed;

/// The name of the time before the first call.
const WAIT: &str = "batch wait";

/// The name of a call, by the command that it nearly always is.
const CALL: &str = "EVALSHA";

/// The name of a delivery over connections of its own, which may take several calls.
const ISOLATED: &str = "isolated batch";

/// Records the spans of a batch. The wait ends with the first call, or when this is dropped.
#[derive(Debug)]
pub(super) struct BatchSpans<'a> {
    requests: &'a [Jobs],
    queue: &'a str,
    /// When the last call began.
    called_at: Option<SystemTime>,
}

impl<'a> BatchSpans<'a> {
    /// `None` unless a request of the batch is traced.
    pub(super) fn new(requests: &'a [Jobs], queue: &'a str) -> Option<Self> {
        let is_traced = requests.iter().any(|jobs| jobs.traced.is_some());
        is_traced.then_some(Self { requests, queue, called_at: None })
    }

    fn begin_call(&mut self) {
        let now = SystemTime::now();
        if self.called_at.replace(now).is_none() {
            self.end_wait(now, None);
        }
    }

    /// Ends the call that has begun last.
    pub(super) fn end_call(&self, server: &str, error: Option<&'static str>) {
        let jobs: usize = self.requests.iter().map(|jobs| jobs.heads.len()).sum();
        self.end(CALL, |span| {
            span.set("db.system.name", "redis");
            span.set("db.operation.name", CALL);
            set_server(span, server);
            span.set("hookgate.queue", self.queue.to_owned());
            span.set("hookgate.batch.requests", count(self.requests.len()));
            span.set("hookgate.batch.jobs", count(jobs));
            set_error(span, error);
        });
    }

    /// Ends the delivery over connections of its own that has begun last.
    fn end_isolated(&self) {
        self.end(ISOLATED, |span| {
            span.set("db.system.name", "redis");
            span.set("hookgate.queue", self.queue.to_owned());
            span.set("hookgate.batch.requests", count(self.requests.len()));
        });
    }

    fn end(&self, name: &'static str, describe: impl Fn(&mut Span)) {
        let Some(called_at) = self.called_at else { return };
        let now = SystemTime::now();
        for TracedJobs { parent, .. } in self.traced() {
            let mut span = Span::of_call(parent, name, called_at);
            describe(&mut span);
            span.end(now);
        }
    }

    fn end_wait(&self, at: SystemTime, error: Option<&'static str>) {
        for traced in self.traced() {
            end_wait(traced, self.queue, at, error);
        }
    }

    fn traced(&self) -> impl Iterator<Item = &TracedJobs> {
        self.requests.iter().filter_map(|jobs| jobs.traced.as_deref())
    }
}

impl Drop for BatchSpans<'_> {
    fn drop(&mut self) {
        if self.called_at.is_none() {
            self.end_wait(SystemTime::now(), Some(RedisError::Connection.as_str()));
        }
    }
}

/// Begins a call, if a request of the batch is traced.
pub(super) fn begin_call(spans: &mut Option<&mut BatchSpans<'_>>) {
    if let Some(spans) = spans {
        spans.begin_call();
    }
}

/// Ends the delivery over connections of its own, if a request of the batch is traced.
pub(super) fn end_isolated(spans: Option<&mut BatchSpans<'_>>) {
    if let Some(spans) = spans {
        spans.end_isolated();
    }
}

/// Records the wait of requests whose batch came too late to be sent.
pub(super) fn end_late(requests: &[PendingRequest], queue: &str) {
    for traced in requests.iter().filter_map(|request| request.jobs.traced.as_deref()) {
        end_wait(traced, queue, SystemTime::now(), Some(RedisError::Timeout.as_str()));
    }
}

fn end_wait(traced: &TracedJobs, queue: &str, at: SystemTime, error: Option<&'static str>) {
    let mut span = Span::of_step(&traced.parent, WAIT, traced.encoded_at);
    span.set("hookgate.queue", queue.to_owned());
    set_error(&mut span, error);
    span.end(at);
}

/// The word for the failure of an attempt, if it has failed.
pub(super) fn error<T>(sent: &Result<Result<T, ScriptError>, Elapsed>) -> Option<&'static str> {
    match sent {
        Ok(Ok(_)) => None,
        Ok(Err(ScriptError::Refused(kind, _) | ScriptError::Lost(kind))) => Some(kind.as_str()),
        Ok(Err(ScriptError::Late)) | Err(_) => Some(RedisError::Timeout.as_str()),
        Ok(Err(ScriptError::NotSent)) => Some(RedisError::Connection.as_str()),
        Ok(Err(ScriptError::Withdrawn)) => Some("withdrawn"),
        Ok(Err(ScriptError::TooFewReplicas)) => Some(RedisError::TooFewReplicas.as_str()),
    }
}

fn set_error(span: &mut Span, error: Option<&'static str>) {
    if let Some(error) = error {
        span.set("error.type", error);
        span.fail();
    }
}

/// Host and port, or the path of a socket.
fn set_server(span: &mut Span, server: &str) {
    let parts = server.rsplit_once(':');
    match parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        Some((host, port)) => {
            span.set("server.address", host.trim_matches(['[', ']']).to_owned());
            span.set("server.port", i64::from(port));
        }
        None => span.set("server.address", server.to_owned()),
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
