//! Accepts connections, for the ingress port and the admin port.

use crate::process::log_throttle::LogThrottle;
use metrics::Counter;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel queues before they are accepted. The kernel queues fewer if
/// `net.core.somaxconn` is lower.
pub(crate) const BACKLOG: i32 = 4096;

/// The pause after an error. The usual cause is that the process has no file descriptor or memory
/// for another connection.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// At most one error is logged in this interval.
const ERRORS_LOGGED: Duration = Duration::from_secs(1);

/// A listening socket.
pub(crate) trait Accept {
    /// A stream and its peer.
    type Accepted;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>>;
}

impl Accept for TcpListener {
    type Accepted = (TcpStream, SocketAddr);

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>> {
        Self::poll_accept(self, context)
    }
}

/// Accepts connections from one listener. Errors are logged at a bounded rate and never returned.
#[derive(Debug)]
pub(crate) struct Acceptor<L> {
    listener: L,
    /// The name of the port in the log.
    port: &'static str,
    errors: Option<Counter>,
    log_throttle: LogThrottle,
}

impl<L: Accept> Acceptor<L> {
    /// Errors are counted in `errors`, if given.
    pub(crate) fn new(listener: L, port: &'static str, errors: Option<Counter>) -> Self {
        Self { listener, port, errors, log_throttle: LogThrottle::new(1, ERRORS_LOGGED) }
    }

    /// Waits for the next connection. Cancel-safe: a connection is either returned or still queued.
    pub(crate) async fn accept(&mut self) -> L::Accepted {
        loop {
            match poll_fn(|context| self.listener.poll_accept(context)).await {
                Ok(accepted) => return accepted,
                Err(error) => self.record(&error),
            }
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }

    /// Returns a connection that the kernel has queued, if there is one.
    pub(crate) async fn accept_queued(&self) -> Option<L::Accepted> {
        poll_fn(|context| match self.listener.poll_accept(context) {
            Poll::Ready(Ok(accepted)) => Poll::Ready(Some(accepted)),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn record(&mut self, error: &io::Error) {
        if let Some(errors) = &self.errors {
            errors.increment(1);
        }
        if self.log_throttle.allows() {
            tracing::warn!(port = self.port, %error, "connection could not be accepted");
        }
    }
}
