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

/// Errors in a row after which the connections that the kernel has queued are given up: 1 s.
const MAX_ERRORS: usize = 20;

/// At most one error is logged in this interval.
const ERRORS_LOGGED: Duration = Duration::from_secs(1);

/// A listening socket.
pub(crate) trait Accept {
    /// A stream and its peer.
    type Accepted;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>>;
}

/// A listening socket whose queued connections can be accepted without waiting for more.
pub(crate) trait AcceptQueued: Accept {
    /// Accepts a connection from the queue of the kernel; `WouldBlock` if it is empty.
    ///
    /// `poll_accept` cannot do this: it reports an empty queue also before the runtime has learned
    /// of the connections, and when the task has used up its budget.
    fn accept_queued(&self) -> io::Result<Self::Accepted>;
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
    pub(crate) async fn accept_queued(&mut self) -> Option<L::Accepted>
    where
        L: AcceptQueued,
    {
        let mut errors = 0;
        while errors < MAX_ERRORS {
            match self.listener.accept_queued() {
                Ok(accepted) => return Some(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // The caller has left the queue; the others are still in it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.record(&error);
                    errors += 1;
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
        None
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

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::iter::repeat_n;

    /// A listener with these results in its queue.
    struct Queue(Mutex<Vec<io::Result<u32>>>);

    impl Accept for Queue {
        type Accepted = u32;

        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<u32>> {
            Poll::Pending
        }
    }

    impl AcceptQueued for Queue {
        fn accept_queued(&self) -> io::Result<u32> {
            self.0.lock().pop().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
        }
    }

    async fn accepted(results: impl IntoIterator<Item = Result<u32, io::ErrorKind>>) -> Vec<u32> {
        let mut results: Vec<_> =
            results.into_iter().map(|result| result.map_err(io::Error::from)).collect();
        results.reverse();
        let mut acceptor = Acceptor::new(Queue(Mutex::new(results)), "test", None);
        let mut accepted = Vec::new();
        while let Some(number) = acceptor.accept_queued().await {
            accepted.push(number);
        }
        accepted
    }

    #[tokio::test(start_paused = true)]
    async fn errors_do_not_end_the_queue() {
        let gone = || Err(io::ErrorKind::ConnectionAborted);
        let full = || Err(io::ErrorKind::OutOfMemory);
        let mixed = [Ok(1), gone(), Ok(2), full(), full(), Ok(3), gone(), Ok(4)];
        assert_eq!(accepted(mixed).await, [1, 2, 3, 4]);
        let left = repeat_n(gone(), 1000).chain([Ok(5)]);
        assert_eq!(accepted(left).await, [5], "callers that have left are passed over");
        let endless = repeat_n(full(), MAX_ERRORS).chain([Ok(6)]);
        assert_eq!(accepted(endless).await, [0; 0], "an error that does not pass ends it");
    }
}
