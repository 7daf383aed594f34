//! Callers who take their time: each opens a connection, sends a byte now and then, and begins anew when it is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::wait::until;

/// Stands still in its head, or in its body.
const STARTS: [&str; 2] = [
    "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\nContent-Length: 9999\r\n\r\n{",
];

/// What has come of slow connections so far.
#[derive(Debug, Default)]
pub struct Fates {
    pub opened: AtomicU64,
    /// Closed without an answer.
    pub cut: AtomicU64,
    /// Told 408, and closed.
    pub timed_out: AtomicU64,
    /// Anything else.
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

/// They stop when this is dropped.
#[derive(Debug)]
pub struct SlowCallers {
    pub fates: Arc<Fates>,
    _tasks: JoinSet<()>,
}

impl SlowCallers {
    /// Starts so many, half of each kind, and waits until all have been connected.
    pub async fn start(address: SocketAddr, count: usize, pause: Duration) -> Self {
        allow_open_files();
        let fates = Arc::new(Fates::default());
        let mut tasks = JoinSet::new();
        for serial in 0..count {
            let fates = Arc::clone(&fates);
            tasks.spawn(async move {
                // Not all at once.
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

/// As many as this process may have.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("up to the maximum is allowed");
}
