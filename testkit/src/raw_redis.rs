//! A client of Redis that sends and receives raw bytes, and a script that counts its runs.

use std::io::ErrorKind;
use std::time::Duration;

use redis::cmd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::PATIENCE;
use super::redis::Redis;
use super::resp;

/// A script that counts its runs and replies with their number.
pub const COUNT: &[&str] = &["EVAL", "return redis.call('INCR', 'runs')", "0"];

/// Number of runs of [`COUNT`].
pub async fn runs(redis: &Redis) -> u64 {
    redis.query::<Option<u64>>(cmd("GET").arg("runs")).await.unwrap_or(0)
}

/// Number of Redis' clients, including the one that asks.
pub async fn clients(redis: &Redis) -> usize {
    redis.query::<String>(cmd("CLIENT").arg("LIST")).await.lines().count()
}

/// How long a connection must send nothing to count as silent.
const SILENCE: Duration = Duration::from_millis(200);

/// An open connection.
#[derive(Debug)]
pub struct Client(pub TcpStream);

impl Client {
    pub async fn to(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.expect("a server listens"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("an open connection");
    }

    pub async fn ask(&mut self, command: &[&str]) {
        self.send(resp::encode(command)).await;
    }

    /// Reads exactly these bytes.
    pub async fn expect_bytes(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut bytes = vec![0; expected.len()];
        let read = timeout(PATIENCE, self.0.read_exact(&mut bytes)).await;
        read.expect("an answer in time").expect("an open connection");
        let [bytes, expected] = [&bytes, expected].map(<[u8]>::escape_ascii);
        assert!(bytes.clone().eq(expected.clone()), "{bytes} instead of {expected}");
    }

    pub async fn hears_nothing(&mut self) {
        let read = timeout(SILENCE, self.0.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }

    /// Reads to the end; returns the bytes, and whether the end was a reset.
    pub async fn rest(mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let error = read.expect("an end in time").err().map(|error| error.kind());
        assert!(matches!(error, None | Some(ErrorKind::ConnectionReset)), "{error:?}");
        (bytes, error.is_some())
    }
}

/// A connection that is reset at once may report it when it is made.
pub async fn is_reset_at_once(port: u16) -> bool {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => Client(stream).rest().await == (Vec::new(), true),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}
