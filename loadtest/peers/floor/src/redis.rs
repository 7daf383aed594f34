//! A connection to Redis for each thread, over which the jobs of all its requests are pipelined.
//!
//! The commands of all requests that are ready in the same turn of the runtime go out in one write, and replies are
//! counted off. There is no authentication, parsing, matching, script or transaction, and nothing is sent again: a lost
//! connection ends the program. The body becomes the payload of the job as it came.
//!
//! HSET needs the job's id before INCR can have replied. Instead of waiting for one more round trip, each thread reserves
//! some ids at its start. A request uses one of them, and its own INCR brings one back for a later request. So every job
//! still costs Redis its six commands, in one write, and no id is used twice.

use crate::job::{Commands, ID_COUNTER, REPLY_LINES};
use crate::stop;
use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

/// The load tests never have more requests under way.
const RESERVED_IDS: u64 = 1024;

/// Where Redis listens.
pub fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let host = url.strip_prefix("redis://").and_then(|rest| rest.split('/').next());
    host.and_then(|host| host.parse().ok())
        .with_context(|| format!("{url} has no address of Redis"))
}

pub struct Redis {
    state: Mutex<State>,
    has_commands: Notify,
    commands: Commands,
}

#[derive(Default)]
struct State {
    unsent: BytesMut,
    waiting: VecDeque<oneshot::Sender<()>>,
    ids: VecDeque<u64>,
}

impl Redis {
    /// Connects within a runtime, which then runs the connection.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Arc<Self>> {
        let mut stream = TcpStream::connect(address).await.context("no connection to Redis")?;
        stream.set_nodelay(true)?;
        let state = State { ids: reserve_ids(&mut stream).await?, ..State::default() };
        let (has_commands, commands) = (Notify::new(), Commands::new());
        let redis = Arc::new(Self { state: Mutex::new(state), has_commands, commands });
        let (reader, writer) = stream.into_split();
        tokio::spawn(run(Arc::clone(&redis).write(writer)));
        tokio::spawn(run(Arc::clone(&redis).read(reader)));
        Ok(redis)
    }

    /// Adds a job; returns true when the replies to its commands have arrived, and false if no id is left.
    pub async fn add(&self, body: impl Buf) -> bool {
        let Some(added) = self.send(body) else { return false };
        self.has_commands.notify_one();
        added.await.is_ok()
    }

    fn send(&self, body: impl Buf) -> Option<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let id = state.ids.pop_front()?;
        self.commands.put(&mut state.unsent, id, body);
        state.waiting.push_back(sender);
        Some(receiver)
    }

    /// The first request of a turn wakes this task, which runs after all others that are ready.
    async fn write(self: Arc<Self>, mut writer: OwnedWriteHalf) -> anyhow::Result<()> {
        let mut commands = BytesMut::new();
        loop {
            self.has_commands.notified().await;
            std::mem::swap(&mut commands, &mut self.state().unsent);
            writer.write_all(&commands).await?;
            commands.clear();
        }
    }

    async fn read(self: Arc<Self>, mut reader: OwnedReadHalf) -> anyhow::Result<()> {
        let mut replies = BytesMut::with_capacity(1 << 16);
        let mut lines = 0;
        while reader.read_buf(&mut replies).await? > 0 {
            let used = self.count_off(&replies, &mut lines)?;
            replies.advance(used);
            replies.reserve(1 << 14);
        }
        bail!("Redis has closed the connection")
    }

    /// Returns the bytes of complete lines. `lines` counts those of the first job that still waits.
    fn count_off(&self, replies: &[u8], lines: &mut usize) -> anyhow::Result<usize> {
        let mut state = self.state();
        let mut used = 0;
        for line in
            replies.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"))
        {
            used += line.len();
            ensure!(line[0] != b'-', "Redis refuses a command: {}", String::from_utf8_lossy(line));
            if *lines == 0 {
                state.ids.push_back(integer(line)?);
            }
            *lines = (*lines + 1) % REPLY_LINES;
            if *lines == 0 {
                let request = state.waiting.pop_front().context("Redis replies to no request")?;
                // The caller may have closed its connection.
                let _ = request.send(());
            }
        }
        Ok(used)
    }

    /// Never contended: all tasks of a runtime run on its thread.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(half: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = half.await {
        stop(&error);
    }
}

async fn reserve_ids(stream: &mut TcpStream) -> anyhow::Result<VecDeque<u64>> {
    stream.write_all(format!("INCRBY {ID_COUNTER} {RESERVED_IDS}\r\n").as_bytes()).await?;
    let mut reply = BytesMut::new();
    while !reply.ends_with(b"\n") {
        ensure!(stream.read_buf(&mut reply).await? > 0, "Redis has closed the connection");
    }
    let last = integer(&reply)?;
    Ok((last - RESERVED_IDS + 1..=last).collect())
}

fn integer(reply: &[u8]) -> anyhow::Result<u64> {
    let text = str::from_utf8(reply)?.trim_end();
    let digits = text.strip_prefix(':').with_context(|| format!("{text:?} is no integer"))?;
    Ok(digits.parse()?)
}
