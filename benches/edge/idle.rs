//! Memory of an idle connection, before its first request and after it.

use std::net::SocketAddr;

use crate::bare;
use testkit::process::Process;
use testkit::raw::Connection;
use testkit::scratch::Scratch;
use testkit::wait::until;
use testkit::{App, ports};

/// Connections that are opened before the counted ones, so that one-time allocations do not count.
const WARM_UP: usize = 100;

pub const REQUEST: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n\
    Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

pub async fn measure(connections: usize) {
    println!("memory of each of {connections} idle connections, KiB\n");
    println!("| | before a request | after one |\n|---|--:|--:|");
    let app = App::with(|config| {
        config.set("telemetry.log", "info").set("server.header_timeout", "10m");
    })
    .await;
    let ours = of(app.hookgate.address(), app.hookgate.process().pid(), connections).await;
    println!("| Hookgate | {:.1} | {:.1} |", ours[0], ours[1]);
    drop(app);

    let port = ports::free();
    let directory = Scratch::new("bare");
    let process = Process::start("bare hyper", &bare::command(port), &directory.join("log"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("the bare server listens", async || {
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
    let bare = of(address, process.pid(), connections).await;
    println!("| bare hyper | {:.1} | {:.1} |", bare[0], bare[1]);
    println!("| ratio | {:.2} | {:.2} |\n", ours[0] / bare[0], ours[1] / bare[1]);
}

async fn of(address: SocketAddr, pid: u32, count: usize) -> [f64; 2] {
    let mut warm = open(address, WARM_UP).await;
    use_once(&mut warm).await;
    let before = resident(pid);
    let mut connections = open(address, count).await;
    // When the last one is answered, nearly all before it have been accepted.
    use_once(&mut warm).await;
    let opened = resident(pid);
    use_once(&mut connections).await;
    let used = resident(pid);
    [opened, used].map(|size| (size - before) / count as f64)
}

async fn open(address: SocketAddr, count: usize) -> Vec<Connection> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(address).await);
    }
    connections
}

async fn use_once(connections: &mut [Connection]) {
    for connection in connections {
        connection.send(REQUEST).await;
        assert_eq!(connection.reply().await.expect("an answer").status, 202);
    }
}

/// Resident memory in KiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
