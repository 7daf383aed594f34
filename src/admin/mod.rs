//! The admin port: health, metrics and the status. It has its own thread, so that it answers
//! while the workers are saturated.

pub mod health_command;
mod connections;
mod hosts;
mod shared_page;
mod status;

pub use crate::admin::hosts::Hosts;
pub use crate::admin::status::{CollectionSource, DocumentsSource, StatusSources};

use crate::admin::connections::{AdminConnections, MAX_AGE, MAX_STALL, TrackedAdminStream};
use crate::admin::shared_page::SharedPage;
use crate::admin::status::{Status, age};
use crate::http::acceptor::{Acceptor, BACKLOG};
use crate::metrics::Metrics;
use crate::process::heartbeat::Heartbeat;
use crate::process::lifecycle::{Readiness, Stage, Stopping};
use crate::settings::Section;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// The API description of both ports. `tests/it/contract/openapi/mod.rs` compares it with the
/// code.
const OPENAPI: &str = include_str!("openapi.json");

/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Maximum bytes of a head, and of buffered answers that the client does not read, except for the
/// last one.
const BUFFERED_BYTES: usize = 32 << 10;

/// The section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    pub hosts: Hosts,
}

impl AdminSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            listen: section.address("listen", ([127, 0, 0, 1], 9464).into()),
            hosts: Hosts::read(section),
        }
    }
}

/// The admin port and the parts that it reports.
#[derive(Debug)]
pub struct Admin {
    hosts: Hosts,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    /// The heartbeat of the control thread.
    heartbeat: Heartbeat,
    status: Status,
    metrics_page: SharedPage,
    status_page: SharedPage,
}

impl Admin {
    pub fn new(
        hosts: Hosts,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        heartbeat: Heartbeat,
        sources: StatusSources,
    ) -> Self {
        let status = Status::new(sources);
        let (metrics_page, status_page) = (SharedPage::default(), SharedPage::default());
        Self { hosts, metrics, readiness, heartbeat, status, metrics_page, status_page }
    }
}

/// Serves the port until the process aborts open connections.
pub async fn serve(
    listener: std::net::TcpListener,
    admin: Admin,
    mut stopping: Stopping,
) -> std::io::Result<()> {
    // std sets a backlog of 128, which may overflow between two polls of the listener.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    let listener = TcpListener::from_std(listener)?;
    let mut acceptor = Acceptor::new(listener, "admin", None);
    // These tasks end with the runtime.
    tokio::spawn(admin.heartbeat.clone().watch());
    let admin = Arc::new(admin);
    tokio::spawn(record(Arc::clone(&admin)));
    let mut connections = AdminConnections::default();
    loop {
        let (stream, _) = tokio::select! {
            () = stopping.reached(Stage::Aborting) => return Ok(()),
            accepted = acceptor.accept() => accepted,
        };
        let admin = Arc::clone(&admin);
        connections.serve(stream, |stream| serve_connection(stream, admin)).await;
    }
}

/// Keeps the history of the status. Never returns.
async fn record(admin: Arc<Admin>) {
    admin.status.record(|| admin.render_metrics()).await;
}

/// Serves a connection until it is closed, makes no progress for [`MAX_STALL`], or reaches its
/// maximum age.
async fn serve_connection(stream: TrackedAdminStream, admin: Arc<Admin>) {
    let progress = stream.progress();
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(BUFFERED_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let old_at = progress.opened() + MAX_AGE;
    let mut end_at = old_at;
    loop {
        let until = end_at.min(progress.last() + MAX_STALL);
        tokio::select! {
            biased;
            // An error here is caused by the client.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep_until(until) => {}
        }
        let now = Instant::now();
        if now >= progress.last() + MAX_STALL || now >= old_at + MAX_STALL {
            return;
        }
        if now >= old_at {
            connection.as_mut().graceful_shutdown();
            end_at = old_at + MAX_STALL;
        }
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = if self.hosts.allow(request) {
            self.respond(request).await
        } else {
            plain_text(
                StatusCode::MISDIRECTED_REQUEST,
                "Host must be an IP address, localhost or a name in admin.hosts\n",
            )
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let policy = HeaderValue::from_static(status::CONTENT_SECURITY_POLICY);
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        response
    }

    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response =
                plain_text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" | "/healthz" | "/health" => self.livez(),
            "/readyz" => self.readyz(),
            "/metrics" => {
                let metrics = self.metrics_page.get(|| self.render_metrics()).await;
                page(StatusCode::OK, PROMETHEUS_TEXT, metrics)
            }
            "/openapi.json" => page(StatusCode::OK, "application/json", OPENAPI),
            "/status.json" => {
                let status = self.status_page.get(|| self.render_status()).await;
                page(StatusCode::OK, "application/json", status)
            }
            "/" => page(StatusCode::OK, "text/html; charset=utf-8", status::PAGE),
            _ => plain_text(
                StatusCode::NOT_FOUND,
                "try /, /status.json, /livez, /readyz, /metrics or /openapi.json\n",
            ),
        }
    }

    fn livez(&self) -> Response<Full<Bytes>> {
        if self.heartbeat.is_alive() {
            return plain_text(StatusCode::OK, "ok\n");
        }
        plain_text(
            StatusCode::SERVICE_UNAVAILABLE,
            "control thread has been unresponsive for 30 s\n",
        )
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let json = serde_json::to_string(&report).expect("a report has only strings and a flag");
        page(status, "application/json", json)
    }

    fn render_metrics(&self) -> String {
        let age = age(&self.status.sources.collections);
        self.metrics.ready.set(f64::from(u8::from(self.readiness.report().ready)));
        for (part, is_degraded) in self.readiness.degraded() {
            self.metrics.degraded(part, is_degraded);
        }
        self.metrics.index_age.set(age.map_or(-1.0, |age| age.as_secs_f64()));
        self.metrics.render()
    }

    fn render_status(&self) -> String {
        self.status.json(&self.readiness, self.heartbeat.is_alive(), &self.render_metrics())
    }
}

fn plain_text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
