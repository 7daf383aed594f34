//! Serves one connection, over either version of HTTP, with the time limits that hyper lacks.
//!
//! hyper has a single timer for reading a head and for waiting for one, which restarts at every
//! request, and no timer for HTTP/2. Here each phase has its own limit. A connection has one timer;
//! when it fires, the limits are checked.

use crate::http::activity::{Activity, TrackedStream};
use crate::http::client_stream::ClientStream;
use crate::http::closing::{Closing, ConnectionLimits, Decision, HttpVersion};
use crate::http::connection_slots::{ConnectionGuard, ConnectionSlots};
use crate::http::handler::{Answer, Handler};
use crate::http::opening;
use crate::http::opening::Opening;
use crate::http::peer::Peer;
use crate::http::tls;
use crate::http::tls::Tls;
use crate::http::unread_body::UnreadBody;
use crate::metrics::Metrics;
use crate::process::failpoint;
use crate::process::lifecycle::Stopping;
use crate::process::log_throttle::LogThrottle;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

/// Maximum bytes of a head, in either version, and of the read buffer of HTTP/1.1.
const HEAD_BYTES: usize = 32 << 10;

/// Maximum requests at a time over one HTTP/2 connection. RFC 9113 recommends at least this many.
const MAX_STREAMS: u32 = 100;

/// Maximum bytes of request bodies that an HTTP/2 connection has received and not read. A body is
/// read as it arrives, and read bytes count as in flight (`limits.in_flight_bytes`). So this bounds
/// only the unread bytes, whatever `server.max_body` is: 1 MiB a connection, not 100 streams times
/// the body.
///
/// The rest of the memory of a connection is bounded too. It has one frame of 16 KiB each way, and
/// 100 answers of less than 1 KiB or the last pieces of 100 previews, 12 KiB each. A head of 32 KiB
/// by HPACK's count needs some 110 KiB in memory if it consists of a thousand empty headers. A head
/// lives as long as its request. Only the request of an admitted, authenticated caller lives on
/// after its head has arrived, and such a head counts as in flight.
const UNREAD_BYTES: u32 = 1 << 20;

/// Maximum bytes of one request body that an HTTP/2 stream has received and not read.
const UNREAD_BYTES_OF_STREAM: u32 = 256 << 10;

/// Maximum bytes of an HTTP/2 frame.
const FRAME_BYTES: u32 = 16 << 10;

/// Maximum bytes of an answer that hyper buffers for an HTTP/2 stream.
const UNSENT_BYTES_OF_STREAM: usize = 8 << 10;

/// Maximum streams that a caller opens and resets before hyper accepts them. Beyond this number the
/// connection is closed (CVE-2023-44487 and similar attacks).
const MAX_UNACCEPTED_RESETS: usize = 20;

/// Maximum streams that the server resets for the caller's faults over the life of a connection.
/// Beyond this number the connection is closed. It is higher because a proxy that serves many
/// callers legitimately causes some.
const MAX_FAULT_RESETS: usize = 1024;

/// A stream over which HTTP is spoken.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Serves connections. All connections of a worker share it.
pub(crate) struct ConnectionHandler<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: ConnectionLimits,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) slots: Arc<ConnectionSlots>,
    /// The tasks of connections and of HTTP/2 streams.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: Stopping,
    /// Bounds the log lines about client certificates that are refused.
    pub(crate) certificate_refusals: Mutex<LogThrottle>,
}

impl<H: Handler> ConnectionHandler<H> {
    /// Starts the task that serves a connection. The connection has a slot until the task ends.
    pub(crate) fn spawn(
        &self,
        guard: ConnectionGuard,
        serving: impl Future<Output = ()> + Send + 'static,
    ) {
        let key = guard.key();
        let task = self.tasks.spawn(async move {
            let _held = guard;
            serving.await;
        });
        self.slots.attach(key, task.abort_handle());
    }

    /// Serves a connection until either side closes it.
    pub(crate) async fn serve(&self, stream: ClientStream, peer: Peer, activity: Arc<Activity>) {
        // TCP has code of its own, which does not ask at each read and write what the stream is. The
        // others are on the heap, so that a connection of plain TCP reserves no memory for them.
        match (stream, &self.tls) {
            (ClientStream::Tcp(stream), None) => self.serve_http1(stream, peer, activity).await,
            (ClientStream::Tcp(stream), Some(tls)) => {
                Box::pin(self.serve_tls(tls, stream, peer, activity)).await;
            }
            (stream, None) => Box::pin(self.serve_http1(stream, peer, activity)).await,
            (stream, Some(tls)) => Box::pin(self.serve_tls(tls, stream, peer, activity)).await,
        }
    }

    async fn serve_tls(&self, tls: &Tls, stream: impl Stream, peer: Peer, activity: Arc<Activity>) {
        let until = activity.opened() + self.limits.header_timeout;
        let handshake = tls.handshake(stream);
        let stream = match opening::within(handshake, until, self.stopping.clone()).await {
            Opening::Done(Ok(stream)) => stream,
            Opening::Done(Err(error)) => return self.record_failed_handshake(peer, &error),
            Opening::Late => {
                return self.record_failed_handshake(peer, &io::ErrorKind::TimedOut.into());
            }
            Opening::Stopping => return,
        };
        if tls::is_http2(&stream) {
            self.serve_http2(stream, peer, activity).await;
        } else {
            self.serve_http1(stream, peer, activity).await;
        }
    }

    fn record_failed_handshake(&self, peer: Peer, error: &io::Error) {
        self.metrics.connections.tls_handshake_errors.increment(1);
        match tls::refused_certificate(error) {
            Some(reason) if self.certificate_refusals.lock().allows() => {
                tracing::warn!(%peer, reason, "client certificate refused");
            }
            // Logged at debug level, because callers cause these errors and may cause many.
            _ => tracing::debug!(%peer, %error, "TLS handshake failed"),
        }
    }

    async fn serve_http1(&self, stream: impl Stream, peer: Peer, activity: Arc<Activity>) {
        let tracked = TrackedStream::new(stream, Arc::clone(&activity));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            // Answers are small: one contiguous write costs less than a vectored one.
            .writev(false)
            .max_buf_size(HEAD_BYTES)
            .max_header_size(HEAD_BYTES)
            .serve_connection(
                TokioIo::new(tracked),
                self.service(peer, &activity, HttpVersion::Http1),
            );
        self.drive(connection, &activity, HttpVersion::Http1).await;
    }

    async fn serve_http2(&self, stream: impl Stream, peer: Peer, activity: Arc<Activity>) {
        let head_bytes = u32::try_from(HEAD_BYTES).expect("a small constant");
        let connection = http2::Builder::new(StreamExecutor(self.tasks.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(head_bytes)
            .max_frame_size(FRAME_BYTES)
            .initial_connection_window_size(UNREAD_BYTES)
            .initial_stream_window_size(UNREAD_BYTES_OF_STREAM)
            .max_send_buf_size(UNSENT_BYTES_OF_STREAM)
            .max_pending_accept_reset_streams(MAX_UNACCEPTED_RESETS)
            .max_local_error_reset_streams(MAX_FAULT_RESETS)
            // No other frame may come between the frames of a head, not even the answer to a ping.
            // So pings bound the time of a head too.
            .keep_alive_interval(self.limits.header_timeout / 2)
            .keep_alive_timeout(self.limits.header_timeout / 2)
            .serve_connection(
                TokioIo::new(stream),
                self.service(peer, &activity, HttpVersion::Http2),
            );
        self.drive(connection, &activity, HttpVersion::Http2).await;
    }

    fn service(
        &self,
        peer: Peer,
        activity: &Arc<Activity>,
        version: HttpVersion,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<H::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<H> {
        let (handler, activity) = (Arc::clone(&self.handler), Arc::clone(activity));
        service_fn(move |request| {
            let (handler, activity) = (Arc::clone(&handler), Arc::clone(&activity));
            async move {
                // The request begins here and not earlier: until then `TrackedStream` delays the
                // end of the stream.
                let Some(mut active) = activity.begin_request() else {
                    // The connection is evicted, and its task is being aborted.
                    return std::future::pending().await;
                };
                let Answer { mut response, unread } = handler.respond(request, &peer).await;
                failpoint::pass("connection");
                if version == HttpVersion::Http1 {
                    if active.is_last() || matches!(unread, UnreadBody::Large) {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    active.finish_with_unread(unread);
                }
                Ok::<_, Infallible>(response)
            }
        })
    }

    async fn drive(
        &self,
        connection: impl GracefulConnection,
        activity: &Activity,
        version: HttpVersion,
    ) {
        let limits = &self.limits;
        let mut stopping = self.stopping.clone();
        let mut connection = pin!(connection);
        let mut closing = Closing::new(version, limits);
        // The first request may be answered before the loop checks the stage.
        closing.enter(stopping.stage(), activity);
        let mut timer = pin!(tokio::time::sleep_until(closing.next_check(activity, limits)));
        loop {
            tokio::select! {
                // Arrived requests are served before the stage and the timer are checked.
                biased;
                // An error here is caused by the caller, such as a partial head or a reset. hyper
                // has sent an answer if that is possible.
                _ = connection.as_mut() => return,
                stage = stopping.beyond(closing.stage()) => closing.enter(stage, activity),
                () = timer.as_mut() => {}
            }
            match closing.decide(activity, limits) {
                Decision::Wait => {}
                Decision::ShutDown => connection.as_mut().graceful_shutdown(),
                Decision::Drop => return,
            }
            timer.as_mut().reset(closing.next_check(activity, limits));
        }
    }
}

/// Runs the streams of an HTTP/2 connection as tasks, which end with their connection. A worker
/// waits for them before it ends.
#[derive(Clone)]
struct StreamExecutor(TaskTracker);

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
