//! The reconnect loop: replaces a connection to Redis whenever it is lost.

use crate::process::backoff::Backoff;
use crate::process::log_throttle::LogThrottle;
use crate::process::supervisor::Supervisor;
use crate::queue::redis::connection::RedisConnection;
use crate::queue::redis::reason::reason;
use crate::queue::settings::QueueSettings;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bounds of the backoff between attempts to connect. The first attempt after the loss of a
/// connection that was useful, or that has lasted for the longest backoff, is made at once.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// How long a connection may be lost before that counts. If Redis is reachable and near, a new one
/// is open by then, and requests have waited for it.
pub(in crate::queue) const RECONNECT_TIME: Duration = Duration::from_millis(250);

/// The loss of the connection is logged as a warning at most once in this time.
const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A handle to the current connection.
#[derive(Debug, Clone)]
pub(in crate::queue) struct CurrentConnection {
    current: Arc<Current>,
    /// Ends the reconnect loop when the last handle is dropped.
    _guard: Arc<DropGuard>,
}

/// The current connection. Those that wait for the next one are woken in the order in which they
/// began to wait; a `watch` channel would wake them in a random order, which no simulation could
/// repeat.
#[derive(Debug)]
struct Current {
    connection: Mutex<Option<Arc<RedisConnection>>>,
    /// Whether an attempt to open a connection has failed since there was one.
    has_failed: AtomicBool,
    replaced: Notify,
    status: Mutex<ConnectionStatus>,
}

impl Current {
    fn replace(&self, connection: Option<Arc<RedisConnection>>) {
        match connection {
            Some(_) => self.has_failed.store(false, Ordering::Relaxed),
            None => self.status.lock().lost_at = Instant::now(),
        }
        *self.connection.lock() = connection;
        self.replaced.notify_waiters();
    }

    /// The connection, unless it accepts no new calls.
    fn usable(&self) -> Option<Arc<RedisConnection>> {
        self.connection.lock().as_ref().filter(|connection| !connection.is_closing()).cloned()
    }

    async fn next_usable(&self) -> Arc<RedisConnection> {
        loop {
            // It is woken by every replacement from now on.
            let replaced = self.replaced.notified();
            if let Some(connection) = self.usable() {
                return connection;
            }
            replaced.await;
        }
    }
}

#[derive(Debug)]
struct ConnectionStatus {
    /// Host and port of the last connection, or the configured ones before the first.
    server: String,
    /// Why there is no connection.
    cause: String,
    /// When the last connection was lost, or when the first attempt began.
    lost_at: Instant,
}

impl CurrentConnection {
    /// Starts the reconnect loop on the current runtime. It ends when every clone is dropped.
    pub(in crate::queue) fn start(settings: &Arc<QueueSettings>, supervisor: &Supervisor) -> Self {
        let status = ConnectionStatus {
            server: settings.servers(),
            cause: "not connected yet".to_owned(),
            lost_at: Instant::now(),
        };
        let current = Arc::new(Current {
            connection: Mutex::new(None),
            has_failed: AtomicBool::new(false),
            replaced: Notify::new(),
            status: Mutex::new(status),
        });
        let unused = CancellationToken::new();
        let reconnecting =
            keep_connected(Arc::clone(settings), Arc::clone(&current), unused.clone());
        tokio::spawn(supervisor.clone().watch("reconnect", reconnecting));
        Self { current, _guard: Arc::new(unused.drop_guard()) }
    }

    /// Returns the current connection, or waits until `latest` for the next one. A connection that
    /// accepts no new calls does not count.
    pub(in crate::queue) async fn connection(
        &self,
        latest: Instant,
    ) -> Option<Arc<RedisConnection>> {
        tokio::time::timeout_at(latest, self.current.next_usable()).await.ok()
    }

    /// Requests a new connection although this one answers.
    pub(in crate::queue) fn request_replacement(&self) {
        if let Some(connection) = self.current.usable() {
            connection.request_replacement();
        }
    }

    pub(in crate::queue) fn is_up(&self) -> bool {
        self.current.usable().is_some()
    }

    /// Whether there has been no connection for longer than [`RECONNECT_TIME`], and an attempt to
    /// open one has failed. An attempt that is slow may still succeed in time for a request.
    #[inline]
    pub(in crate::queue) fn is_lost(&self) -> bool {
        self.current.has_failed.load(Ordering::Relaxed)
            && self.current.status.lock().lost_at.elapsed() > RECONNECT_TIME
    }

    /// Why there is no connection.
    pub(in crate::queue) fn cause(&self) -> String {
        self.current.status.lock().cause.clone()
    }

    /// Host and port of the last connection, or the configured ones before the first.
    pub(in crate::queue) fn server(&self) -> String {
        self.current.status.lock().server.clone()
    }
}

async fn keep_connected(
    settings: Arc<QueueSettings>,
    current: Arc<Current>,
    unused: CancellationToken,
) {
    let queue = settings.shard_name();
    let mut loss_log = LogThrottle::new(1, LOSS_LOG_INTERVAL);
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    loop {
        let mut was_useful = false;
        let end = match RedisConnection::open(&settings).await {
            Ok((connection, mut driver)) => {
                let opened_at = Instant::now();
                let server = connection.server();
                tracing::debug!(server, queue, "connected to Redis");
                current.status.lock().server.clone_from(&server);
                current.replace(Some(Arc::clone(&connection)));
                let end = tokio::select! {
                    biased;
                    end = connection.ended(&mut driver, settings.reply_timeout()) => end,
                    () = unused.cancelled() => return,
                };
                current.replace(None);
                if loss_log.allows() {
                    tracing::warn!(server, queue, cause = end, "connection to Redis lost");
                }
                // A connection without requests may have been closed because it was idle.
                was_useful = connection.is_useful() || opened_at.elapsed() >= LONGEST_BACKOFF;
                end
            }
            Err(error) => {
                current.has_failed.store(true, Ordering::Relaxed);
                reason(&error)
            }
        };
        tracing::debug!(queue, cause = end, "no connection to Redis");
        current.status.lock().cause = end;
        if was_useful {
            backoff.reset();
            continue;
        }
        tokio::select! {
            biased;
            () = backoff.wait() => {}
            () = unused.cancelled() => return,
        }
    }
}
