//! One connection to Redis, and what its errors mean.
//!
//! fred's own bounds, its retries and its state are not relied on: the batcher bounds what is in
//! flight, every call has a deadline, and nothing is sent a second time.

use super::{Enqueued, QueueSettings};
use crate::metrics::RedisError;
use crate::settings::Secret;
use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::prelude::{
    Builder, Client, Config, ConnectionConfig, Options, ReconnectPolicy, TcpConfig,
};
use fred::types::config::{ReconnectError, UnresponsiveConfig};
use fred::types::scripts::Script;
use fred::types::{ClusterHash, CustomCommand, Value};
use std::time::Duration;
use tokio::time::Instant;

const ADD_JOBS: &str = include_str!("add_jobs.lua");

/// Where the first key stands among the arguments of EVALSHA; it decides on the node of a cluster.
const FIRST_KEY: usize = 2;

/// How often a connection is checked for calls that got no reply.
const UNRESPONSIVE_CHECK: Duration = Duration::from_millis(200);

/// Milliseconds between attempts to connect.
const RECONNECT_FIRST: u32 = 50;
const RECONNECT_LONGEST: u32 = 1000;

/// A call that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallError {
    pub(super) kind: RedisError,
    pub(super) enqueued: Enqueued,
}

/// Says what is wrong with an address, without repeating it: it may hold a password.
pub(super) fn check_address(address: &Secret) -> Result<(), &'static str> {
    const SCHEMES: [&str; 6] =
        ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"];
    let scheme = address.reveal().split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) {
        return Err(
            "not an address that begins with redis://, rediss://, redis-sentinel:// or redis-cluster://",
        );
    }
    Config::from_url(address.reveal()).map(|_| ()).map_err(|_| "not a valid address")
}

/// Makes a client that connects, and connects again, by itself.
pub(super) fn client(settings: &QueueSettings) -> anyhow::Result<Client> {
    let timeout = settings.enqueue_timeout;
    let config = Config { fail_fast: false, ..Config::from_url(settings.redis.reveal())? };
    let connection = ConnectionConfig {
        connection_timeout: timeout,
        internal_command_timeout: timeout,
        max_command_attempts: 1,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(timeout),
            interval: UNRESPONSIVE_CHECK,
        },
        reconnect_on_auth_error: true,
        tcp: TcpConfig {
            nodelay: Some(true),
            user_timeout: Some(timeout / 2),
            ..TcpConfig::default()
        },
        // A primary that was demoted is left, so that Sentinel is asked for the new one.
        reconnect_errors: vec![ReconnectError::ReadOnly, ReconnectError::ClusterDown],
        ..ConnectionConfig::default()
    };
    let client = Builder::from_config(config)
        .set_connection_config(connection)
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_FIRST, RECONNECT_LONGEST, 2))
        .build()?;
    client.connect();
    Ok(client)
}

/// The options of a call: one attempt, at once or not at all, for so long.
pub(super) fn one_attempt(timeout: Duration) -> Options {
    // Zero would be no limit at all.
    let timeout = timeout.max(Duration::from_millis(1));
    Options { max_attempts: Some(1), fail_fast: true, timeout: Some(timeout), ..Options::default() }
}

/// A connection that adds jobs.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    /// The arguments of EVALSHA that are the same for every batch: digest, keys, ARGV up to the
    /// number of jobs.
    fixed_arguments: Vec<Value>,
}

impl Connection {
    pub(super) fn open(settings: &QueueSettings) -> anyhow::Result<Self> {
        let keys = settings.queue.script_keys();
        let digest = Script::from_lua(ADD_JOBS).sha1().to_string();
        let mut fixed_arguments = vec![digest, keys.len().to_string()];
        fixed_arguments.extend(keys);
        fixed_arguments.extend([
            settings.queue.job_prefix(),
            settings.job_name.clone(),
            settings.job.to_json(),
            settings.paused_layout.word().to_owned(),
            u8::from(settings.events).to_string(),
        ]);
        let fixed_arguments = fixed_arguments.into_iter().map(|text| Value::Bytes(text.into()));
        Ok(Self { client: client(settings)?, fixed_arguments: fixed_arguments.collect() })
    }

    /// Runs the script on a batch and comes back with its reply, or at the deadline.
    pub(super) async fn add_jobs(
        &self,
        batch: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        if !self.client.is_connected() {
            // Short absences are waited for; what has not been sent is not in the queue.
            let connected = tokio::time::timeout_at(deadline, self.client.wait_for_connect()).await;
            if !matches!(connected, Ok(Ok(()))) {
                return Err(CallError {
                    kind: RedisError::Connection,
                    enqueued: Enqueued::Nothing,
                });
            }
        }
        let mut arguments = self.fixed_arguments.clone();
        arguments.extend(batch.into_iter().map(Value::Bytes));
        let reply = match self.call("EVALSHA", arguments.clone(), deadline).await {
            // This server does not know the script (yet, or any more), so nothing was done.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                if let Some(digest) = arguments.first_mut() {
                    *digest = Value::from_static_str(ADD_JOBS);
                }
                self.call("EVAL", arguments, deadline).await
            }
            reply => reply,
        };
        reply.map_err(|error| classify(&error))
    }

    /// As a custom command: fred's own methods for scripts ignore the options of a call, and with
    /// them its time limit.
    async fn call(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let command = CustomCommand::new_static(name, ClusterHash::Offset(FIRST_KEY), false);
        let options = one_attempt(deadline - Instant::now());
        self.client.with_options(&options).custom(command, arguments).await
    }
}

/// What an error means: what happened, and whether the call may have been carried out.
fn classify(error: &Error) -> CallError {
    let (kind, enqueued) = match error.kind() {
        ErrorKind::Timeout => (RedisError::Timeout, Enqueued::Unknown),
        ErrorKind::IO | ErrorKind::Tls => (RedisError::Connection, Enqueued::Unknown),
        // Never written: there is no connection.
        ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => {
            (RedisError::Connection, Enqueued::Nothing)
        }
        _ => match reply_kind(error.details()) {
            // The script writes no job before it can no longer fail.
            Some(kind) => (kind, Enqueued::Nothing),
            None => (RedisError::Other, Enqueued::Unknown),
        },
    };
    CallError { kind, enqueued }
}

/// The kind of an error that Redis has answered: its text begins with a word in capitals.
fn reply_kind(details: &str) -> Option<RedisError> {
    let word = details.split(' ').next().unwrap_or_default();
    if word.len() < 2 || !word.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    Some(match word {
        "OOM" => RedisError::OutOfMemory,
        "READONLY" | "MASTERDOWN" => RedisError::ReadOnly,
        "LOADING" => RedisError::Loading,
        "BUSY" => RedisError::Busy,
        "MISCONF" | "NOREPLICAS" => RedisError::WritesRefused,
        "NOAUTH" | "WRONGPASS" | "NOPERM" => RedisError::Authentication,
        "WRONGTYPE" => RedisError::WrongType,
        _ => RedisError::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Enqueued::{Nothing, Unknown};

    #[test]
    fn an_answer_of_redis_is_told_from_a_failure_of_the_connection() {
        for (kind, details, expected) in [
            (ErrorKind::Unknown, "OOM command not allowed", (RedisError::OutOfMemory, Nothing)),
            (ErrorKind::InvalidArgument, "WRONGTYPE Operation", (RedisError::WrongType, Nothing)),
            (ErrorKind::Unknown, "ERR value is not an integer", (RedisError::Other, Nothing)),
            (ErrorKind::IO, "Connection reset", (RedisError::Connection, Unknown)),
            (ErrorKind::Timeout, "Request timed out.", (RedisError::Timeout, Unknown)),
            (ErrorKind::Unknown, "channel closed", (RedisError::Other, Unknown)),
        ] {
            let error = classify(&Error::new(kind, details));
            assert_eq!((error.kind, error.enqueued), expected, "{details}");
        }
    }
}
