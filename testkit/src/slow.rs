//! Slow callers: each opens a connection, sends a byte now and then, and starts again when the
//! connection is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::wait::until;

/// Requests that stop in their head and in their body.
const STARTS: [&str; 2] = [
    "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\nContent-Length: 9999\r\n\r\n{",
];

/// Counts of how slow connections have ended.
#[derive(Debug, Default)]
pub struct Fates {
    pub opened: AtomicU64,
    /// Closed without an answer.
    pub cut: AtomicU64,
    /// Answered 408 and closed.
    pub timed_out: AtomicU64,
    /// Ended in any other way.
    pub other: AtomicU64,
}

impl Fates {
    pub fn closed(&self) -> u64 {
        [&self.cut, &self.timed_out, &self.other]
            .map(|fate| fate.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

/// Dropping it stops the callers.
#[derive(Debug)]
pub struct SlowCallers {
    pub fates: Arc<Fates>,
    _tasks: JoinSet<()>,
}

impl SlowCallers {
    /// Starts `count` callers, half of each kind, and waits until all have been connected.
    pub async fn start(address: SocketAddr, count: usize, pause: Duration) -> Self {
        allow_open_files();
        let fates = Arc::new(Fates::default());
        let mut tasks = JoinSet::new();
        for serial in 0..count {
            let fates = Arc::clone(&fates);
            tasks.spawn(async move {
                // Spreads the callers over the pause.
                tokio::time::sleep(pause.mul_f64(serial as f64 / count as f64)).await;
                loop {
                    dribble(address, STARTS[serial % 2], pause, &fates).await;
                }
            });
        }
        until("all slow callers are connected", async || {
            fates.opened.load(Ordering::Relaxed) >= count as u64
        })
        .await;
        Self { fates, _tasks: tasks }
    }
}

async fn dribble(address: SocketAddr, start: &str, pause: Duration, fates: &Fates) {
    let mut stream = TcpStream::connect(address).await.expect("hookgate listens");
    let _ = stream.write_all(start.as_bytes()).await;
    fates.opened.fetch_add(1, Ordering::Relaxed);
    let mut answer = Vec::new();
    loop {
        match tokio::time::timeout(pause, stream.read_buf(&mut answer)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => break,
            Err(_) => _ = stream.write_all(b"x").await,
        }
    }
    let fate = match answer.as_slice() {
        [] => &fates.cut,
        answer if answer.starts_with(b"HTTP/1.1 408") => &fates.timed_out,
        _ => &fates.other,
    };
    fate.fetch_add(1, Ordering::Relaxed);
}

/// Raises the limit of open files as far as this process may.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the limit may be raised to the maximum");
}
