//! The reconnect loop: replaces a connection to Redis whenever it is lost.

use crate::process::backoff::Backoff;
use crate::process::log_throttle::LogThrottle;
use crate::process::supervisor::Supervisor;
use crate::queue::redis::connection::RedisConnection;
use crate::queue::redis::reason::reason;
use crate::queue::settings::QueueSettings;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Bounds of the backoff between attempts to connect. The first attempt after the loss of a useful
/// connection is made at once.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// The loss of the connection is logged as a warning at most once in this time.
const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A handle to the current connection.
#[derive(Debug, Clone)]
pub(in crate::queue) struct ConnectionHandle {
    connections: watch::Receiver<Option<Arc<RedisConnection>>>,
    status: Arc<Mutex<ConnectionStatus>>,
}

#[derive(Debug)]
struct ConnectionStatus {
    /// Host and port of the last connection, or the configured ones before the first.
    server: String,
    /// Why there is no connection.
    cause: String,
}

impl ConnectionHandle {
    /// Starts the reconnect loop on the current runtime. It ends when every clone is dropped.
    pub(in crate::queue) fn start(settings: &Arc<QueueSettings>, supervisor: &Supervisor) -> Self {
        let (sender, connections) = watch::channel(None);
        let status =
            ConnectionStatus { server: settings.servers(), cause: "not connected yet".to_owned() };
        let status = Arc::new(Mutex::new(status));
        let reconnecting = keep_connected(Arc::clone(settings), sender, Arc::clone(&status));
        tokio::spawn(supervisor.clone().watch("reconnect", reconnecting));
        Self { connections, status }
    }

    /// Returns the current connection, or waits until `latest` for the next one. A connection that
    /// accepts no new calls does not count.
    pub(in crate::queue) async fn connection(
        &mut self,
        latest: Instant,
    ) -> Option<Arc<RedisConnection>> {
        let is_usable = |connection: &Option<Arc<RedisConnection>>| {
            connection.as_ref().is_some_and(|connection| !connection.is_closing())
        };
        let usable = self.connections.wait_for(is_usable);
        let connection = tokio::time::timeout_at(latest, usable).await.ok()?.ok()?;
        connection.clone()
    }

    pub(in crate::queue) fn is_up(&self) -> bool {
        self.connections.borrow().as_ref().is_some_and(|connection| !connection.is_closing())
    }

    /// Why there is no connection.
    pub(in crate::queue) fn cause(&self) -> String {
        self.status.lock().cause.clone()
    }

    /// Host and port of the last connection, or the configured ones before the first.
    pub(in crate::queue) fn server(&self) -> String {
        self.status.lock().server.clone()
    }
}

async fn keep_connected(
    settings: Arc<QueueSettings>,
    sender: watch::Sender<Option<Arc<RedisConnection>>>,
    status: Arc<Mutex<ConnectionStatus>>,
) {
    let mut loss_log = LogThrottle::new(1, LOSS_LOG_INTERVAL);
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    loop {
        let mut was_useful = false;
        let end = match RedisConnection::open(&settings).await {
            Ok((connection, mut driver)) => {
                let server = connection.server();
                tracing::debug!(server, "connected to Redis");
                status.lock().server.clone_from(&server);
                sender.send_replace(Some(Arc::clone(&connection)));
                let end = tokio::select! {
                    end = connection.ended(&mut driver, settings.reply_timeout()) => end,
                    () = sender.closed() => return,
                };
                sender.send_replace(None);
                if loss_log.allows() {
                    tracing::warn!(server, cause = end, "connection to Redis lost");
                }
                was_useful = connection.is_useful();
                end
            }
            Err(error) => reason(&error),
        };
        tracing::debug!(cause = end, "no connection to Redis");
        status.lock().cause = end;
        if was_useful {
            backoff.reset();
            continue;
        }
        tokio::select! {
            () = backoff.wait() => {}
            () = sender.closed() => return,
        }
    }
}
