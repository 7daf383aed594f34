//! One connection to Redis, from its making to its loss.
//!
//! fred makes the connection and speaks the protocol (TLS, Sentinel and Cluster included), and
//! nothing else is left to it: without a policy for reconnecting it never sends anything twice, and
//! its state, its bounds and its time limits are not asked. A session that is stuck is dropped with
//! its socket, whatever fred is busy with.

use super::QueueSettings;
use super::address::host_and_port;
use super::greeting::{Greeting, is_ping_refused};
use super::reason::reason;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::prelude::{Builder, Client, Config, ConnectionConfig, TcpConfig};
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How often a session is looked at: whether it is stuck, and whether it has been idle so long that
/// it is asked for the time.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);

/// How often a session that was left is looked at.
const LEAVING_INTERVAL: Duration = Duration::from_millis(5);

/// A connection to Redis, as those see it who use it.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    vitals: Mutex<Vitals>,
    given_up: CancellationToken,
    /// No more calls are made; those under way are waited for.
    left: CancellationToken,
    /// Where the keys of the queue lie in a cluster.
    slot: u16,
}

/// fred's task, which owns the socket. Dropping it closes the connection.
pub(super) type Driver = AbortOnDropHandle<Result<(), Error>>;

#[derive(Debug)]
struct Vitals {
    /// Calls that are waited for.
    calls: usize,
    /// Since when there have been calls and no reply to any. It stays where nobody waits for a call any more, so that
    /// a row of short ones cannot hide that nothing comes back.
    silent_since: Option<Instant>,
    clock: Clock,
    /// Whether it has been good for anything.
    is_useful: bool,
    /// Whether its loss is due to the state of the cluster.
    is_cluster_down: bool,
    /// Whether this user may read the configuration of Redis; `None` until that was asked.
    may_use_config: Option<bool>,
}

/// The clock of Redis, as read off its last reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    milliseconds: u64,
    read_at: Instant,
}

impl Clock {
    /// What it shows then, or less by as long as that reply was on its way: a deadline that is
    /// translated so is never later than it was meant.
    pub(super) fn at(&self, instant: Instant) -> u64 {
        let ahead = instant.saturating_duration_since(self.read_at).as_millis();
        self.milliseconds.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
    }
}

/// Why there is no reply to a call.
#[derive(Debug)]
pub(super) enum CallError {
    /// Redis has answered with this error.
    Refused(Error),
    /// It was never written.
    NotSent,
    /// It may have been carried out.
    Lost,
}

impl Session {
    /// Connects and asks for the time, for as long as `queue.enqueue_timeout` allows.
    pub(super) async fn open(settings: &QueueSettings) -> Result<(Arc<Self>, Driver), Error> {
        match Self::open_by(settings, Greeting::Usual).await {
            Err(error) if is_ping_refused(&error) => {
                Self::open_by(settings, Greeting::WithoutPing).await
            }
            result => result,
        }
    }

    async fn open_by(
        settings: &QueueSettings,
        greeting: Greeting,
    ) -> Result<(Arc<Self>, Driver), Error> {
        let limit = settings.patience();
        let until = Instant::now() + limit;
        // A file that hangs leaves time to connect by what it held last.
        let config = greeting.config(&settings.redis, limit / 2).await?;
        let client = client(config, limit)?;
        let driver = AbortOnDropHandle::new(client.connect());
        let session = Self {
            vitals: Mutex::new(Vitals {
                calls: 0,
                silent_since: None,
                clock: Clock { milliseconds: 0, read_at: Instant::now() },
                is_useful: false,
                is_cluster_down: false,
                may_use_config: None,
            }),
            given_up: CancellationToken::new(),
            left: CancellationToken::new(),
            slot: fred::util::redis_keyslot(settings.queue.job_prefix().as_bytes()),
            client,
        };
        let greeting = async {
            session.client.wait_for_connect().await?;
            session.read_clock().await.map_err(|error| match error {
                CallError::Refused(error) => error,
                CallError::NotSent | CallError::Lost => {
                    Error::new(ErrorKind::IO, "connection lost")
                }
            })
        };
        let greeted = tokio::time::timeout_at(until, greeting).await;
        greeted.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer in time")))?;
        Ok((Arc::new(session), driver))
    }

    /// Waits for the end of the session, and says what it was. Drop the driver then.
    pub(super) async fn ended(&self, driver: &mut Driver, patience: Duration) -> String {
        let end = tokio::select! {
            ended = driver => match ended {
                Ok(Err(error)) => reason(&error),
                Ok(Ok(())) => "connection closed".to_owned(),
                Err(error) => error.to_string(),
            },
            () = self.given_up.cancelled() => "given up".to_owned(),
            () = self.left_by_all() => "given up".to_owned(),
            () = self.silent(patience) => "no reply".to_owned(),
        };
        // Whoever still waits for a reply learns that there will be none.
        self.given_up.cancel();
        end
    }

    /// Waits until Redis has been silent for too long.
    async fn silent(&self, patience: Duration) {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            let silent_since = self.vitals().silent_since;
            if silent_since.is_some_and(|since| since.elapsed() > patience) {
                return;
            }
            if silent_since.is_none() && self.clock().read_at.elapsed() > IDLE {
                // A connection that has died while nobody used it shows before somebody does.
                let _ = tokio::time::timeout(patience, self.read_clock()).await;
            }
        }
    }

    /// Waits until the session was left and the last call has its reply.
    async fn left_by_all(&self) {
        self.left.cancelled().await;
        while self.vitals().calls > 0 {
            tokio::time::sleep(LEAVING_INTERVAL).await;
        }
    }

    /// Says that this session is of no more use.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Says that another session is to be made, though this one answers: what is under way keeps its reply.
    pub(super) fn leave(&self) {
        self.left.cancel();
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_cancelled() || self.left.is_cancelled()
    }

    /// Says that it has been good for something, so that the next one need not be waited for.
    pub(super) fn set_useful(&self) {
        self.vitals().is_useful = true;
    }

    pub(super) fn is_useful(&self) -> bool {
        self.vitals().is_useful
    }

    pub(super) fn set_may_use_config(&self, may_use: bool) {
        self.vitals().may_use_config = Some(may_use);
    }

    pub(super) fn may_use_config(&self) -> Option<bool> {
        self.vitals().may_use_config
    }

    /// Whether calls were lost because the cluster is down, and not for what was sent.
    pub(super) fn is_cluster_down(&self) -> bool {
        self.vitals().is_cluster_down
    }

    pub(super) fn clock(&self) -> Clock {
        self.vitals().clock
    }

    /// Takes over what a reply that has just come says of Redis' clock.
    pub(super) fn set_clock(&self, milliseconds: u64) {
        self.vitals().clock = Clock { milliseconds, read_at: Instant::now() };
    }

    /// The server that the queue is on: of a cluster the one with its slot, of Sentinel the primary.
    pub(super) fn server(&self) -> String {
        let of_slot = self.client.cached_cluster_state();
        let of_slot = of_slot.and_then(|state| state.get_server(self.slot).cloned());
        let server = of_slot.or_else(|| self.client.active_connections().into_iter().next());
        server.map_or_else(|| "unknown".to_owned(), |server| host_and_port(&server))
    }

    /// Sends a command, as it is: fred's own methods for scripts ignore what they are told. In a cluster it goes
    /// to where the queue is.
    pub(super) async fn call<T: FromValue>(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<T, CallError> {
        if self.is_given_up() {
            return Err(CallError::NotSent);
        }
        let call = Call::begin(&self.vitals);
        let command = CustomCommand::new_static(name, ClusterHash::Custom(self.slot), false);
        // fred's futures are of some ten kilobytes, which would be moved about with ours.
        let reply = Box::pin(self.client.custom(command, arguments));
        let reply = tokio::select! {
            biased;
            reply = reply => reply.map_err(|error| {
                if is_cluster_down(&error) {
                    self.vitals().is_cluster_down = true;
                }
                classify(error)
            }),
            // fred may keep a command for ever that it was given when its task had ended.
            () = self.given_up.cancelled() => Err(CallError::Lost),
        };
        if matches!(&reply, Ok(_) | Err(CallError::Refused(_))) {
            call.replied();
        }
        reply
    }

    async fn read_clock(&self) -> Result<(), CallError> {
        let (seconds, microseconds): (u64, u64) = self.call("TIME", Vec::new()).await?;
        self.set_clock(seconds * 1000 + microseconds / 1000);
        Ok(())
    }

    fn vitals(&self) -> MutexGuard<'_, Vitals> {
        lock(&self.vitals)
    }
}

/// A call under way.
struct Call<'a>(&'a Mutex<Vitals>);

impl<'a> Call<'a> {
    fn begin(vitals: &'a Mutex<Vitals>) -> Self {
        let mut now = lock(vitals);
        now.calls += 1;
        now.silent_since.get_or_insert_with(Instant::now);
        Self(vitals)
    }

    fn replied(&self) {
        let mut now = lock(self.0);
        // This call is still among them.
        now.silent_since = (now.calls > 1).then(Instant::now);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        lock(self.0).calls -= 1;
    }
}

fn lock(vitals: &Mutex<Vitals>) -> MutexGuard<'_, Vitals> {
    vitals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that connects once.
fn client(config: Config, limit: Duration) -> Result<Client, Error> {
    let connection = ConnectionConfig {
        connection_timeout: limit,
        internal_command_timeout: limit,
        max_command_attempts: 1,
        // fred would follow one to a node that it is not connected to, and end the connection there. After MOVED it
        // learns the places of slots all the same.
        max_redirections: 0,
        tcp: TcpConfig {
            nodelay: Some(true),
            // What stands in the socket of a session that is given up does not reach Redis later.
            linger: Some(Duration::ZERO),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    Builder::from_config(config).set_connection_config(connection).build()
}

/// What is said of MOVED and ASK in place of that, in the manner of Redis.
const SLOT_ELSEWHERE: &str =
    "TRYAGAIN the slot of the queue is at another node, or on its way there";

/// fred's words for a MOVED or ASK that it is not to follow.
const TOO_MANY_REDIRECTIONS: &str = "Too many redirections.";

/// What an error means for whether the call was carried out.
fn classify(error: Error) -> CallError {
    match error.kind() {
        ErrorKind::Routing if error.details() == TOO_MANY_REDIRECTIONS => {
            CallError::Refused(Error::new(ErrorKind::Cluster, SLOT_ELSEWHERE))
        }
        // A client that is not made for a cluster gets MOVED and ASK as any other reply.
        ErrorKind::Cluster if !is_cluster_down(&error) && is_reply(error.details()) => {
            CallError::Refused(error)
        }
        // With CLUSTERDOWN fred ends the connection, and gives it to every call that waits there.
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

/// The error replies of Redis begin with a word in capitals.
fn is_reply(details: &str) -> bool {
    let word = details.split(' ').next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}
