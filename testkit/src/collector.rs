//! A collector of OTLP over gRPC that decodes and keeps the spans it gets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::deliveries::hex;
use super::ports;
use super::tls::Authority;
use super::wait::until_some;

/// How exports are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accept,
    /// With `PERMISSION_DENIED` and a message that repeats the `authorization` of the request.
    Refuse,
    /// Never.
    Hang,
}

/// A span that was received.
#[derive(Debug, Clone)]
pub struct Span {
    /// In hex, like the other ids.
    pub trace: String,
    pub id: String,
    /// Empty for the first span of a trace.
    pub parent: String,
    pub name: String,
    /// The number of `SpanKind`: 1 internal, 2 server, 3 client.
    pub kind: i32,
    pub attributes: BTreeMap<String, Value>,
    /// Whether its status is an error.
    pub failed: bool,
    /// In nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
}

#[derive(Debug)]
struct State {
    answer: Answer,
    spans: Vec<Span>,
    resource: BTreeMap<String, Value>,
    headers: Vec<(String, String)>,
    exports: usize,
}

/// Listens on a port of its own. Dropping it closes the port.
#[derive(Debug)]
pub struct Collector {
    url: String,
    state: Arc<Mutex<State>>,
    server: AbortHandle,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_on(ports::free()).await
    }

    /// Starts on a port from [`ports::free`].
    pub async fn start_on(port: u16) -> Self {
        Self::serve(port, "http", Server::builder()).await
    }

    /// Starts with the certificate of this authority.
    pub async fn start_tls(authority: &Authority) -> Self {
        let issued = authority.issue();
        let identity = Identity::from_pem(issued.chain_pem, issued.key_pem);
        let tls = ServerTlsConfig::new().identity(identity);
        let server = Server::builder().tls_config(tls).expect("a certificate");
        Self::serve(ports::free(), "https", server).await
    }

    async fn serve(port: u16, scheme: &str, mut server: Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        let state = State {
            answer: Answer::Accept,
            spans: Vec::new(),
            resource: BTreeMap::new(),
            headers: Vec::new(),
            exports: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let service = TraceServiceServer::new(Service(Arc::clone(&state)))
            .accept_compressed(CompressionEncoding::Gzip);
        let serving = server.add_service(service);
        let serving = serving.serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move { serving.await.expect("the collector serves") });
        let url = format!("{scheme}://127.0.0.1:{port}");
        Self { url, state, server: server.abort_handle() }
    }

    /// The value of `telemetry.otlp.endpoint`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers exports like this from now on.
    pub fn answer(&self, answer: Answer) {
        self.lock().answer = answer;
    }

    /// Every accepted span so far.
    pub fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// Number of exports so far, accepted or not.
    pub fn exports(&self) -> usize {
        self.lock().exports
    }

    /// The attributes of the resource of the last export.
    pub fn resource(&self) -> BTreeMap<String, Value> {
        self.lock().resource.clone()
    }

    /// The value of a metadata field of the last export.
    pub fn header(&self, name: &str) -> Option<String> {
        let state = self.lock();
        state.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    }

    /// Waits until a request with this id has `count` spans, and returns them: that of the request,
    /// and its children by their start.
    pub async fn request(&self, id: &str, count: usize) -> (Span, Vec<Span>) {
        let what = format!("{count} spans of request {id} arrive");
        until_some(&what, async || {
            let spans = self.spans();
            let own = |span: &&Span| span.attributes.get("hookgate.request_id") == Some(&json!(id));
            let request = spans.iter().find(own)?.clone();
            let mut children = spans;
            children.retain(|span| span.parent == request.id && span.trace == request.trace);
            children.sort_by_key(|span| (span.start, span.end));
            (children.len() + 1 >= count).then_some((request, children))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Service(Arc<Mutex<State>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = headers.iter();
        let headers: Vec<(String, String)> = headers
            .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
            .collect();
        let answer = {
            let mut state = lock(&self.0);
            state.exports += 1;
            state.headers.clone_from(&headers);
            state.answer
        };
        match answer {
            Answer::Accept => {}
            Answer::Refuse => return Err(Status::permission_denied(format!("{headers:?}"))),
            Answer::Hang => return std::future::pending().await,
        }
        let mut state = lock(&self.0);
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.map(|resource| resource.attributes);
            state.resource = attributes(resource.unwrap_or_default());
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            state.spans.extend(spans.map(received));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn received(sent: Sent) -> Span {
    Span {
        trace: hex(sent.trace_id),
        id: hex(sent.span_id),
        parent: hex(sent.parent_span_id),
        name: sent.name,
        kind: sent.kind,
        attributes: attributes(sent.attributes),
        failed: sent.status.is_some_and(|status| status.code == 2),
        start: sent.start_time_unix_nano,
        end: sent.end_time_unix_nano,
    }
}

fn attributes(sent: Vec<KeyValue>) -> BTreeMap<String, Value> {
    let value = |value: Any| match value {
        Any::StringValue(text) => json!(text),
        Any::IntValue(number) => json!(number),
        Any::BoolValue(truth) => json!(truth),
        other => panic!("an attribute of an unexpected type: {other:?}"),
    };
    let sent = sent.into_iter();
    sent.filter_map(|KeyValue { key, value: any, .. }| Some((key, value(any?.value?)))).collect()
}
