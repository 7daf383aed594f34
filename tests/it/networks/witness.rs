//! What a Redis has written, by its own report: `MONITOR` shows every command that it executes,
//! also those of scripts and those that a replica gets from its primary. A demoted primary discards
//! its surplus, so afterwards nobody could say what it had acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::cmd;
use testkit::Redis;
use testkit::wait::until;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::load::MARK;

/// Follows one server until it is dropped, also when that restarts.
#[derive(Debug)]
pub(super) struct Witness {
    report: Arc<Mutex<Report>>,
    following: AbortHandle,
}

#[derive(Debug, Default)]
struct Report {
    /// The requests whose jobs were written.
    requests: BTreeSet<String>,
    /// The last line that a test has asked for.
    marker: String,
    is_following: bool,
}

impl Witness {
    pub(super) async fn start(redis: &Redis) -> Self {
        let report = Arc::new(Mutex::new(Report::default()));
        let address = format!("{}:{}", redis.host(), redis.port());
        let following = tokio::spawn(follow(address, Arc::clone(&report))).abort_handle();
        let witness = Self { report, following };
        witness.follows().await;
        witness
    }

    /// Waits until the server reports to it, as it does not at once after a restart.
    pub(super) async fn follows(&self) {
        until("the server is followed", async || self.report().is_following).await;
    }

    /// All requests whose jobs the server has written so far, and has not discarded.
    pub(super) async fn requests(&self, server: &Redis) -> BTreeSet<String> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let marker = format!("marker-{}-", SERIAL.fetch_add(1, Ordering::Relaxed));
        let client = redis::Client::open(server.url()).expect("an address");
        until("the server has reported everything", async || {
            // A Sentinel that changes the role of a server closes its connections.
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                let echo = cmd("ECHO").arg(&marker).to_owned();
                let _: redis::RedisResult<String> = echo.query_async(&mut connection).await;
            }
            self.report().marker == marker
        })
        .await;
        self.report().requests.clone()
    }

    /// Records that the server has discarded requests, and has got those of another one.
    pub(super) fn replace(&self, discarded: &BTreeSet<String>, got: &BTreeSet<String>) {
        let mut report = self.report();
        report.requests.retain(|request| !discarded.contains(request));
        report.requests.extend(got.iter().cloned());
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn follow(address: String, report: Arc<Mutex<Report>>) {
    let lock = || report.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await
            && stream.write_all(b"MONITOR\r\n").await.is_ok()
        {
            let mut lines = BufReader::new(stream).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line);
                lock().read(&line);
            }
        }
        lock().is_following = false;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Report {
    /// Reads a line such as `+1700000000.1 [0 lua] "hset" "bull:q:1" "data" "{…}"`.
    fn read(&mut self, line: &str) {
        let Some((_, command)) = line.split_once("] \"") else {
            self.is_following |= line.starts_with("+OK");
            return;
        };
        if command.to_ascii_lowercase().starts_with("echo\"") {
            let marker = command.split('"').nth(2).unwrap_or_default();
            marker.clone_into(&mut self.marker);
        }
        // A call of the script need not add its jobs.
        if !command.to_ascii_lowercase().starts_with("eval") {
            self.requests.extend(requests_in(command));
        }
    }
}

/// The ids of requests in a line.
fn requests_in(line: &str) -> impl Iterator<Item = String> {
    line.match_indices(MARK).map(|(at, _)| {
        let id = line[at..].split(['"', '\\']).next().unwrap_or_default();
        id.to_owned()
    })
}

#[test]
fn written_jobs_are_distinguished_from_calls_of_the_script() {
    let mut report = Report::default();
    report.read("+OK\r");
    report.read(r#"+1.2 [0 10.77.0.2:4711] "EVALSHA" "1" "{\"request\":\"rq-0-1-2\"}""#);
    assert!(report.is_following && report.requests.is_empty());
    report.read(r#"+1.3 [0 lua] "HSET" "bull:q:1" "data" "{\"request\":\"rq-0-1-3\",\"x\":1}""#);
    report.read(r#"+1.4 [0 10.77.0.2:6379] "hset" "bull:q:2" "data" "{\"request\":\"rq-0-1-4\"}""#);
    report.read(r#"+1.5 [0 10.77.9.2:4712] "ECHO" "marker-7-""#);
    assert_eq!(report.requests, ["rq-0-1-3", "rq-0-1-4"].map(str::to_owned).into());
    assert_eq!(report.marker, "marker-7-");
}
