//! A proxy in front of a real Redis that gives replies a real one cannot be made to give.
//!
//! ```ignore
//! let redis = Redis::start().await;
//! let fake = FakeRedis::before(&redis).await;
//! let app = App::build().redis(redis).redis_address(&fake.url()).start().await;
//! fake.answer_next("EVAL", Answer::instead("-OOM command not allowed\r\n"));
//! app.webhook("wh_1").send().await;
//! assert_eq!(fake.calls_of("EVAL").len(), 1);
//! ```
//!
//! Every command goes to the real Redis, one at a time for each connection, unless the test has set
//! another answer to it. Handshakes and all other commands are therefore answered correctly.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::ports;
use super::redis::Redis;
use super::resp::{self, Stop};

/// The reply to a command. Bytes are raw: `b"$-1\r\n"` is nil, `b"-OOM no\r\n"` an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The reply of the real Redis.
    Real,
    /// These bytes. The real Redis does not get the command.
    Instead(Vec<u8>),
    /// These bytes. The real Redis executes the command, and its reply is dropped.
    AfterRunning(Vec<u8>),
    /// These bytes, then the real reply.
    Before(Vec<u8>),
    /// The real reply, then these bytes.
    After(Vec<u8>),
    /// The real reply, but after the reply to the next command on the same connection.
    Swapped,
    /// The first half of the real reply; then the connection closes.
    HalfThenClose,
    /// The command is executed, and the connection stays silent from then on.
    Silence,
    /// The command is not executed, and the connection closes.
    Close,
}

impl Answer {
    pub fn instead(bytes: impl AsRef<[u8]>) -> Self {
        Self::Instead(bytes.as_ref().to_owned())
    }

    pub fn after_running(bytes: impl AsRef<[u8]>) -> Self {
        Self::AfterRunning(bytes.as_ref().to_owned())
    }

    pub fn before(bytes: impl AsRef<[u8]>) -> Self {
        Self::Before(bytes.as_ref().to_owned())
    }

    pub fn after(bytes: impl AsRef<[u8]>) -> Self {
        Self::After(bytes.as_ref().to_owned())
    }
}

/// A command that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The number of its connection, counted from 1.
    pub connection: u64,
    /// Its arguments; the first is the name of the command.
    pub arguments: Vec<Vec<u8>>,
}

impl Call {
    /// The name of the command in capitals. The probe scripts run for no job and have a name of
    /// their own.
    pub fn name(&self) -> String {
        if resp::is_probe(&self.arguments) {
            return "RIGHTS".to_owned();
        }
        self.arguments
            .first()
            .map_or_else(String::new, |name| String::from_utf8_lossy(name).to_ascii_uppercase())
    }

    /// An argument as a string; 0 is the name of the command.
    pub fn text(&self, index: usize) -> String {
        String::from_utf8_lossy(&self.arguments[index]).into_owned()
    }
}

/// Listens on a port of its own. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct FakeRedis {
    port: u16,
    shared: Arc<Shared>,
    acceptor: AbortHandle,
}

impl FakeRedis {
    pub async fn before(redis: &Redis) -> Self {
        let (port, listener) = ports::listen().await;
        let shared = Arc::new(Shared { real: redis.port(), state: Mutex::default() });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { port, shared, acceptor }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for `queue.redis`.
    pub fn url(&self) -> String {
        super::redis::url(self.port)
    }

    /// Sets the answer to the next command whose name begins with `name`: `"EVAL"` means `EVALSHA`
    /// too. Several answers for one name are given in turn.
    pub fn answer_next(&self, name: &str, answer: Answer) {
        self.shared.lock().next.push_back((name.to_ascii_uppercase(), answer));
    }

    /// Sets the answer to every command whose name begins with `name`. Answers of
    /// [`FakeRedis::answer_next`] come first.
    pub fn answer_always(&self, name: &str, answer: Answer) {
        let mut state = self.shared.lock();
        let name = name.to_ascii_uppercase();
        state.always.retain(|(other, _)| *other != name);
        state.always.push((name, answer));
    }

    /// Removes every answer that was set.
    pub fn answer_normally(&self) {
        let mut state = self.shared.lock();
        state.next.clear();
        state.always.clear();
    }

    /// Number of answers of [`FakeRedis::answer_next`] that have not been given.
    pub fn answers_left(&self) -> usize {
        self.shared.lock().next.len()
    }

    /// Every command so far, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Every command so far whose name begins with `name`.
    pub fn calls_of(&self, name: &str) -> Vec<Call> {
        let name = name.to_ascii_uppercase();
        let state = self.shared.lock();
        state.calls.iter().filter(|call| call.name().starts_with(&name)).cloned().collect()
    }
}

impl Drop for FakeRedis {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

#[derive(Debug)]
struct Shared {
    /// The port of the real Redis.
    real: u16,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: VecDeque<(String, Answer)>,
    always: Vec<(String, Answer)>,
    calls: Vec<Call>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a command and returns the answer to it.
    fn answer_to(&self, call: Call) -> Answer {
        let name = call.name();
        let mut state = self.lock();
        state.calls.push(call);
        let is_meant = |(prefix, _): &(String, Answer)| name.starts_with(prefix.as_str());
        if let Some(position) = state.next.iter().position(is_meant) {
            return state.next.remove(position).expect("it exists").1;
        }
        let always = state.always.iter().find(|&answer| is_meant(answer));
        always.map_or(Answer::Real, |(_, answer)| answer.clone())
    }
}

/// Dropping this task ends all connections.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for serial in 1.. {
        let (client, _) = listener.accept().await.expect("file descriptors");
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // Without the real Redis, or when either side closes, the client finds its connection
            // closed.
            let Ok(real) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.real)).await else {
                return;
            };
            let mut connection = Connection {
                client: Side::new(client),
                real: Side::new(real),
                swapped: Vec::new(),
            };
            let _ = connection.serve(&shared, serial).await;
        });
    }
}

struct Connection {
    client: Side,
    real: Side,
    /// Replies that are sent after the reply to the next command.
    swapped: Vec<u8>,
}

impl Connection {
    async fn serve(&mut self, shared: &Shared, serial: u64) -> io::Result<()> {
        loop {
            let request = tokio::select! {
                request = self.client.next(|bytes| Ok(resp::request(bytes)?.1)) => request?,
                () = self.real.closed() => return Ok(()),
            };
            let (arguments, _) = resp::request(&request).expect("the request is complete");
            let arguments = arguments.into_iter().map(<[u8]>::to_vec).collect();
            let answer = shared.answer_to(Call { connection: serial, arguments });
            let real = match &answer {
                Answer::Instead(_) | Answer::Close => Vec::new(),
                _ => {
                    self.real.stream.write_all(&request).await?;
                    self.real.next(resp::reply_length).await?
                }
            };
            let bytes = match answer {
                Answer::Real => real,
                Answer::Instead(bytes) | Answer::AfterRunning(bytes) => bytes,
                Answer::Before(bytes) => [bytes, real].concat(),
                Answer::After(bytes) => [real, bytes].concat(),
                Answer::Swapped => {
                    self.swapped.extend(real);
                    continue;
                }
                Answer::HalfThenClose => {
                    self.client.stream.write_all(&real[..real.len() / 2]).await?;
                    return self.client.stream.shutdown().await;
                }
                Answer::Silence => {
                    self.client.closed().await;
                    return Ok(());
                }
                Answer::Close => return self.client.stream.shutdown().await,
            };
            let bytes = [bytes, std::mem::take(&mut self.swapped)].concat();
            self.client.stream.write_all(&bytes).await?;
        }
    }
}

/// A stream and the bytes that were read ahead.
struct Side {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        // Setting the option fails on a socket that is already reset.
        let _ = stream.set_nodelay(true);
        Self { stream, received: Vec::new() }
    }

    /// The next whole request or reply; `length` finds its end.
    async fn next(&mut self, length: impl Fn(&[u8]) -> Result<usize, Stop>) -> io::Result<Vec<u8>> {
        loop {
            match length(&self.received) {
                Ok(length) => {
                    let rest = self.received.split_off(length);
                    return Ok(std::mem::replace(&mut self.received, rest));
                }
                Err(Stop::Malformed) => return Err(io::ErrorKind::InvalidData.into()),
                Err(Stop::Short) => {}
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for the end of the connection.
    async fn closed(&mut self) {
        while self.stream.read_buf(&mut self.received).await.is_ok_and(|count| count > 0) {}
    }
}
