//! One connection to Redis, from its greeting to its loss.
//!
//! A transport carries its commands, and never sends anything twice. A stuck connection is dropped
//! with its socket, whatever the transport is doing.

use crate::process::lifecycle::Condition;
use crate::queue::redis::cluster::SLOT_HAS_MOVED;
use crate::queue::redis::handshake::{Handshake, is_ping_refused};
use crate::queue::redis::reason::reason;
use crate::queue::redis::reply::is_reply;
use crate::queue::redis::transport::{Command, Driver, Reply, Target, Transport};
use crate::queue::settings::QueueSettings;
use fred::error::{Error, ErrorKind};
use fred::types::{FromValue, Value};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often a connection is checked: whether it is stuck, and whether it has been idle for
/// [`IDLE`] and the time must be read to see whether it is alive.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);

/// How often a connection that is being replaced is checked for calls under way.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);

/// A handle to a connection to Redis.
#[derive(Debug)]
pub(in crate::queue) struct RedisConnection {
    transport: Box<dyn Transport>,
    vitals: Mutex<ConnectionState>,
    given_up: CancellationToken,
    /// No new calls are made; calls under way still get their replies.
    replacement_requested: CancellationToken,
}

#[derive(Debug)]
struct ConnectionState {
    /// Number of calls that wait for a reply.
    calls: usize,
    /// The time since which there have been calls and no reply to any. A call that is dropped
    /// without a reply does not reset it, so a series of short calls cannot hide that Redis is
    /// silent.
    silent_since: Option<Instant>,
    clock: Clock,
    /// Whether the connection has settled a batch or answered a health check.
    is_useful: bool,
    /// Whether the connection was lost because the cluster is down.
    is_cluster_down: bool,
    /// Whether this user may read the configuration of Redis; `None` until that is known.
    may_use_config: Option<bool>,
}

/// The clock of Redis, as its last reply reported it.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) struct Clock {
    milliseconds: u64,
    read_at: Instant,
}

impl Clock {
    /// The time of Redis at `instant`, in milliseconds since 1970. It is too early by the time that
    /// the reply took to arrive, so a translated deadline is never later than intended.
    pub(in crate::queue) fn at(&self, instant: Instant) -> u64 {
        let elapsed = instant.saturating_duration_since(self.read_at).as_millis();
        self.milliseconds.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

/// Why a call has no successful reply.
#[derive(Debug)]
pub(in crate::queue) enum CallError {
    /// Redis has replied with this error.
    Refused(Error),
    /// The call was never written to the connection.
    NotSent,
    /// The call may have been executed.
    Lost,
}

impl RedisConnection {
    /// Connects and reads the time of Redis. If PING is refused, connects again without it. Each
    /// attempt has the reply timeout of `settings`.
    pub(in crate::queue) async fn open(
        settings: &QueueSettings,
    ) -> Result<(Arc<Self>, Driver), Error> {
        match Self::open_with(settings, Handshake::Usual).await {
            Err(error) if is_ping_refused(&error) => {
                Self::open_with(settings, Handshake::WithoutPing).await
            }
            result => result,
        }
    }

    async fn open_with(
        settings: &QueueSettings,
        handshake: Handshake,
    ) -> Result<(Arc<Self>, Driver), Error> {
        let timeout = settings.reply_timeout();
        let deadline = Instant::now() + timeout;
        let slot = settings.queue.slot();
        let target =
            Target { address: &settings.redis, tls: &settings.tls, slot, handshake, timeout };
        let opening = async {
            let (transport, driver) = settings.connector.connect(target).await?;
            let connection = Self::new(transport);
            connection.read_clock().await.map_err(|error| match error {
                CallError::Refused(error) => error,
                CallError::NotSent | CallError::Lost => {
                    Error::new(ErrorKind::IO, "connection lost")
                }
            })?;
            Ok((Arc::new(connection), driver))
        };
        let opened = tokio::time::timeout_at(deadline, opening).await;
        opened.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer in time")))
    }

    fn new(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            vitals: Mutex::new(ConnectionState {
                calls: 0,
                silent_since: None,
                clock: Clock { milliseconds: 0, read_at: Instant::now() },
                is_useful: false,
                is_cluster_down: false,
                may_use_config: None,
            }),
            given_up: CancellationToken::new(),
            replacement_requested: CancellationToken::new(),
        }
    }

    /// Waits for the end of the connection, and returns its cause. The caller then drops the
    /// driver.
    pub(in crate::queue) async fn ended(&self, driver: &mut Driver, timeout: Duration) -> String {
        let end = tokio::select! {
            biased;
            ended = driver => match ended {
                Ok(Err(error)) => reason(&error),
                Ok(Ok(())) => "connection closed".to_owned(),
                Err(error) => error.to_string(),
            },
            () = self.given_up.cancelled() => "given up".to_owned(),
            () = self.wait_until_drained() => "replaced".to_owned(),
            () = self.wait_for_silence(timeout) => "no reply".to_owned(),
        };
        // Ends the calls that still wait for a reply.
        self.given_up.cancel();
        end
    }

    /// Waits until Redis has been silent for longer than `timeout` while a reply was due.
    async fn wait_for_silence(&self, timeout: Duration) {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            let silent_since = self.vitals().silent_since;
            if silent_since.is_some_and(|since| since.elapsed() > timeout) {
                return;
            }
            if silent_since.is_none() && self.clock().read_at.elapsed() > IDLE {
                // Detects a dead idle connection before it is used.
                let _ = tokio::time::timeout(timeout, self.read_clock()).await;
            }
        }
    }

    /// Waits until a replacement was requested and the last call has its reply.
    async fn wait_until_drained(&self) {
        self.replacement_requested.cancelled().await;
        while self.vitals().calls > 0 {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
    }

    /// Closes the connection. Calls under way end without a reply.
    pub(in crate::queue) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Requests a new connection although this one answers. Calls under way still get their
    /// replies.
    pub(in crate::queue) fn request_replacement(&self) {
        self.replacement_requested.cancel();
    }

    /// Whether the connection accepts no new calls.
    pub(in crate::queue) fn is_closing(&self) -> bool {
        self.given_up.is_cancelled() || self.replacement_requested.is_cancelled()
    }

    /// Marks the connection as useful, so that the next one is opened without a backoff.
    pub(in crate::queue) fn set_useful(&self) {
        self.vitals().is_useful = true;
    }

    pub(in crate::queue) fn is_useful(&self) -> bool {
        self.vitals().is_useful
    }

    pub(in crate::queue) fn set_may_use_config(&self, may_use: bool) {
        self.vitals().may_use_config = Some(may_use);
    }

    pub(in crate::queue) fn may_use_config(&self) -> Option<bool> {
        self.vitals().may_use_config
    }

    /// Whether calls were lost because the cluster is down, and not because of their content.
    pub(in crate::queue) fn is_cluster_down(&self) -> bool {
        self.vitals().is_cluster_down
    }

    pub(in crate::queue) fn clock(&self) -> Clock {
        self.vitals().clock
    }

    /// Sets the clock to the time in a reply that has just arrived.
    pub(in crate::queue) fn set_clock(&self, milliseconds: u64) {
        self.vitals().clock = Clock { milliseconds, read_at: Instant::now() };
    }

    /// Host and port of the server that has the queue.
    pub(in crate::queue) fn server(&self) -> String {
        self.transport.server()
    }

    /// Sends a command unchanged.
    pub(in crate::queue) async fn call<T: FromValue>(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<T, CallError> {
        self.exchange(|transport| transport.send(name, arguments)).await
    }

    /// Sends commands as one transaction, and returns the reply of the last.
    pub(in crate::queue) async fn transaction<T: FromValue>(
        &self,
        commands: Vec<Command>,
    ) -> Result<T, CallError> {
        self.exchange(|transport| transport.transaction(commands)).await
    }

    async fn exchange<'a, T: FromValue>(
        &'a self,
        send: impl FnOnce(&'a dyn Transport) -> Reply<'a>,
    ) -> Result<T, CallError> {
        if self.is_closing() {
            return Err(CallError::NotSent);
        }
        let call = Call::begin(&self.vitals);
        let reply = tokio::select! {
            biased;
            reply = send(&*self.transport) => self.read_reply(reply),
            // fred may keep a command forever that arrived after its task ended.
            () = self.given_up.cancelled() => Err(CallError::Lost),
        };
        if matches!(&reply, Ok(_) | Err(CallError::Refused(_))) {
            call.replied();
        }
        reply
    }

    /// A reply of another type than the command has is that of another command. Every later reply
    /// would then be one too, and an error reply does not show which command it answers.
    fn read_reply<T: FromValue>(&self, reply: Result<Value, Error>) -> Result<T, CallError> {
        match reply {
            Ok(value) => value.convert().map_err(|_| {
                self.give_up();
                CallError::Lost
            }),
            Err(error) => {
                if is_cluster_down(&error) {
                    self.vitals().is_cluster_down = true;
                }
                if error.details() == SLOT_HAS_MOVED {
                    self.request_replacement();
                }
                Err(classify(error))
            }
        }
    }

    async fn read_clock(&self) -> Result<(), CallError> {
        let (seconds, microseconds): (u64, u64) = self.call("TIME", Vec::new()).await?;
        self.set_clock(seconds * 1000 + microseconds / 1000);
        Ok(())
    }

    fn vitals(&self) -> MutexGuard<'_, ConnectionState> {
        self.vitals.lock()
    }
}

/// Counts a call under way until it is dropped.
struct Call<'a>(&'a Mutex<ConnectionState>);

impl<'a> Call<'a> {
    fn begin(vitals: &'a Mutex<ConnectionState>) -> Self {
        let mut locked = vitals.lock();
        locked.calls += 1;
        locked.silent_since.get_or_insert_with(Instant::now);
        Self(vitals)
    }

    fn replied(&self) {
        let mut vitals = self.0.lock();
        // `calls` still includes this call.
        vitals.silent_since = (vitals.calls > 1).then(Instant::now);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.lock().calls -= 1;
    }
}

/// Classifies an error by whether the call may have been executed.
fn classify(error: Error) -> CallError {
    match error.kind() {
        // With an address that does not begin with redis-cluster://, also MOVED and ASK.
        ErrorKind::Cluster if !is_cluster_down(&error) && is_reply(error.details()) => {
            CallError::Refused(error)
        }
        // On CLUSTERDOWN, fred closes the connection and returns this error for every waiting call.
        ErrorKind::IO
        | ErrorKind::Tls
        | ErrorKind::Timeout
        | ErrorKind::Protocol
        | ErrorKind::Cluster => CallError::Lost,
        ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => CallError::NotSent,
        _ if is_reply(error.details()) => CallError::Refused(error),
        _ => CallError::Lost,
    }
}

fn is_cluster_down(error: &Error) -> bool {
    error.details().starts_with("CLUSTERDOWN")
}

/// The condition of a Redis that does not answer.
pub(in crate::queue) fn no_answer(cause: &str) -> Condition {
    Condition::NotReady(format!("does not answer: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies to every command with a string.
    #[derive(Debug)]
    struct Strings;

    impl Transport for Strings {
        fn send(&self, _: &'static str, _: Vec<Value>) -> Reply<'_> {
            Box::pin(std::future::ready(Ok(Value::from_static_str("2 1700000000000 *"))))
        }

        fn transaction(&self, _: Vec<Command>) -> Reply<'_> {
            self.send("EXEC", Vec::new())
        }

        fn server(&self) -> String {
            "strings:6379".to_owned()
        }
    }

    #[tokio::test]
    async fn a_reply_of_another_type_ends_the_connection() {
        let connection = RedisConnection::new(Box::new(Strings));
        assert!(connection.call::<String>("INFO", Vec::new()).await.is_ok());
        assert!(!connection.is_closing());
        let bit = connection.call::<u64>("GETBIT", Vec::new()).await;
        assert!(matches!(bit, Err(CallError::Lost)));
        // The error that answers GETBIT would otherwise be taken for that of the next command.
        assert!(connection.is_closing());
        let next = connection.call::<String>("INFO", Vec::new()).await;
        assert!(matches!(next, Err(CallError::NotSent)));
    }
}
