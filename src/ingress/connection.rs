//! One connection, of either version of HTTP, with the time limits that hyper does not have.
//!
//! hyper has one timer for reading a head and for waiting for one, set anew at every request, and
//! none for HTTP/2. Here each phase has its own limit, and one timer for the connection, which is
//! looked at when it fires.

use super::activity::{Activity, Watched};
use super::closing::{Closing, ConnectionLimits, Decision, Version};
use super::tls::{self, TlsAcceptor};
use super::unread::Rest;
use super::{Answer, AnswerBody, Ingress};
use crate::failpoint;
use crate::lifecycle::Stopping;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// Bytes of a head at the most, in either version, and of what is read ahead in HTTP/1.1.
const HEAD_BYTES: usize = 32 << 10;

/// Requests at a time over one connection of HTTP/2; RFC 9113 asks for no fewer.
const STREAMS: u32 = 100;

/// What a caller may have sent of all bodies of an HTTP/2 connection, and of one of them, that has
/// not been read yet. A body is read as it comes, and what has been read counts as in flight
/// (`limits.in_flight_bytes`), so that these bound only what nobody has asked for yet, however
/// large `server.max_body` is: 1 MiB for a connection, and not 100 streams times the body. Besides,
/// a connection holds one frame of 16 KiB each way, and 100 answers of less than 1 KiB, or the last pieces of
/// 100 previews, of 12 KiB each. 100 heads of 32 KiB by HPACK's count become some 110 KiB each in memory
/// if they are a thousand empty headers; a head lives as long as its request, only that of an admitted
/// caller with a valid credential lives on, and that counts as in flight.
const UNREAD_BYTES: u32 = 1 << 20;
const UNREAD_BYTES_OF_STREAM: u32 = 256 << 10;
const FRAME_BYTES: u32 = 16 << 10;
const UNSENT_BYTES_OF_STREAM: usize = 8 << 10;

/// Streams that a caller has opened and reset before we have looked at them, and streams that we
/// have had to reset for the caller's faults, over the life of a connection. Beyond them the connection
/// is given up (CVE-2023-44487 and its kin). A proxy that brings many callers together resets
/// some, hence the room for the second.
const RESET_UNSEEN: usize = 20;
const RESET_FOR_FAULTS: usize = 1024;

/// What the connections of a worker have in common.
pub(super) struct Host {
    pub(super) ingress: Arc<Ingress>,
    pub(super) limits: ConnectionLimits,
    pub(super) tls: Option<TlsAcceptor>,
    /// Connections, and the streams of HTTP/2.
    pub(super) tasks: TaskTracker,
    pub(super) stopping: Stopping,
}

impl Host {
    /// Serves a connection until it is closed, by whichever side.
    pub(super) async fn serve(&self, stream: TcpStream, activity: Arc<Activity>) {
        match &self.tls {
            None => self.serve_http1(stream, activity).await,
            // On the heap, so that a connection without TLS does not pay for its state.
            Some(tls) => Box::pin(self.serve_tls(tls, stream, activity)).await,
        }
    }

    async fn serve_tls(&self, tls: &TlsAcceptor, stream: TcpStream, activity: Arc<Activity>) {
        let until = activity.opened() + self.limits.header_timeout;
        let shaken = tls::shake_hands(tls, stream, until, self.stopping.clone()).await;
        match shaken {
            Ok(stream) if tls::is_http2(&stream) => self.serve_http2(stream, activity).await,
            Ok(stream) => self.serve_http1(stream, activity).await,
            // The caller's fault, and there may be many of them.
            Err(error) => {
                self.ingress.metrics.connections.tls_handshake_errors.increment(1);
                tracing::debug!(%error, "TLS handshake has failed");
            }
        }
    }

    async fn serve_http1(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        activity: Arc<Activity>,
    ) {
        let watched = Watched::new(stream, Arc::clone(&activity));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            // Answers are small: one piece of memory costs less than a list of them.
            .writev(false)
            .max_buf_size(HEAD_BYTES)
            .max_header_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(watched), self.service(&activity, Version::Http1));
        self.drive(connection, &activity, Version::Http1).await;
    }

    async fn serve_http2(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        activity: Arc<Activity>,
    ) {
        let head_bytes = u32::try_from(HEAD_BYTES).expect("a small constant");
        let connection = http2::Builder::new(Streams(self.tasks.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(head_bytes)
            .max_frame_size(FRAME_BYTES)
            .initial_connection_window_size(UNREAD_BYTES)
            .initial_stream_window_size(UNREAD_BYTES_OF_STREAM)
            .max_send_buf_size(UNSENT_BYTES_OF_STREAM)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(RESET_FOR_FAULTS)
            // Nothing may come between the frames of a head, and so no answer to a ping either: this
            // is the limit for heads too.
            .keep_alive_interval(self.limits.header_timeout / 2)
            .keep_alive_timeout(self.limits.header_timeout / 2)
            .serve_connection(TokioIo::new(stream), self.service(&activity, Version::Http2));
        self.drive(connection, &activity, Version::Http2).await;
    }

    fn service(
        &self,
        activity: &Arc<Activity>,
        version: Version,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<AnswerBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let (ingress, activity) = (Arc::clone(&self.ingress), Arc::clone(activity));
        service_fn(move |request| {
            let (ingress, activity) = (Arc::clone(&ingress), Arc::clone(&activity));
            async move {
                // Not before it has its turn: until then the end of the connection is held back.
                let Some(mut answering) = activity.answer() else {
                    // The task is being stopped.
                    return std::future::pending().await;
                };
                let Answer { mut response, rest } = ingress.respond(request).await;
                failpoint::pass("connection");
                if version == Version::Http1 {
                    if answering.is_last() || matches!(rest, Rest::Large) {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    answering.leave(rest);
                }
                Ok::<_, Infallible>(response)
            }
        })
    }

    async fn drive(
        &self,
        connection: impl GracefulConnection,
        activity: &Activity,
        version: Version,
    ) {
        let limits = &self.limits;
        let mut stopping = self.stopping.clone();
        let mut connection = pin!(connection);
        let mut closing = Closing::new(version, limits);
        // The first request may be answered before anything else is looked at.
        closing.enter(stopping.stage(), activity);
        let mut timer = pin!(tokio::time::sleep_until(closing.next_look(activity, limits)));
        loop {
            tokio::select! {
                // What has arrived is served before anything else is looked at.
                biased;
                // Errors here are the other side's: half heads, resets. hyper has answered what can be.
                _ = connection.as_mut() => return,
                stage = stopping.beyond(closing.stage()) => closing.enter(stage, activity),
                () = timer.as_mut() => {}
            }
            match closing.decide(activity, limits) {
                Decision::Wait => {}
                Decision::Ask => connection.as_mut().graceful_shutdown(),
                Decision::Drop => return,
            }
            timer.as_mut().reset(closing.next_look(activity, limits));
        }
    }
}

/// Runs the streams of an HTTP/2 connection as tasks for which the worker waits when it ends. They
/// end with their connection.
#[derive(Clone)]
struct Streams(TaskTracker);

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
