//! The operators' port: health, metrics, a page for people. It has a thread of its own, so that it
//! answers while the workers are saturated.

mod status;

use crate::lifecycle::{Readiness, Stage, Stopping};
use crate::log_rate::LogRate;
use crate::metrics::Metrics;
use crate::mirror::Freshness;
use crate::settings::Section;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

/// What both listeners serve, for programs; held to the code by `tests/openapi.rs`.
const OPENAPI: &str = include_str!("openapi.json");

/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at a time. They come out of the descriptors that are kept from callers; the others wait.
const MOST_CONNECTIONS: usize = 64;

/// The section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    pub listen: SocketAddr,
}

impl AdminSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self { listen: section.address("listen", ([127, 0, 0, 1], 9464).into()) }
    }
}

/// What the operators' port shows.
#[derive(Debug, Clone)]
pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    /// Of everything that is mirrored.
    pub freshness: Vec<Arc<Freshness>>,
    /// Version and commit.
    pub build: &'static str,
}

/// Serves until it is cut off.
pub async fn serve(
    listener: std::net::TcpListener,
    admin: Admin,
    mut stopping: Stopping,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut log_rate = LogRate::new(1, Duration::from_secs(1));
    loop {
        let accepted = tokio::select! {
            () = stopping.reached(Stage::Cut) => return Ok(()),
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let admin = admin.clone();
                tasks.spawn(async move {
                    let _place = place;
                    let service = service_fn(move |request| {
                        let response = admin.respond(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service);
                    // Errors here are the other side's.
                    let _ = connection.await;
                });
            }
            Err(error) => {
                if log_rate.allows() {
                    tracing::warn!(%error, "connection to the admin port could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The next connection, when there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place.expect("the semaphore is never closed")))
}

impl Admin {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" | "/healthz" | "/health" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" => page(StatusCode::OK, PROMETHEUS_TEXT, self.render_metrics()),
            "/openapi.json" => page(StatusCode::OK, "application/json", OPENAPI.to_owned()),
            "/" => page(StatusCode::OK, "text/html; charset=utf-8", status::page(self)),
            _ => text(StatusCode::NOT_FOUND, "try /, /livez, /readyz, /metrics or /openapi.json\n"),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let json = serde_json::to_string(&report).expect("a report has only texts and a flag");
        page(status, "application/json", json)
    }

    fn render_metrics(&self) -> String {
        let age = self.index_age();
        self.metrics.ready.set(f64::from(u8::from(self.readiness.report().ready)));
        for (part, is_degraded) in self.readiness.degraded() {
            self.metrics.degraded(part, is_degraded);
        }
        self.metrics.index_age.set(age.map_or(-1.0, |age| age.as_secs_f64()));
        self.metrics.render()
    }

    /// The age of the oldest mirror; `None` while one is not loaded.
    fn index_age(&self) -> Option<Duration> {
        let ages: Option<Vec<Duration>> = self.freshness.iter().map(|each| each.age()).collect();
        ages?.into_iter().max()
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", text.to_owned())
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
