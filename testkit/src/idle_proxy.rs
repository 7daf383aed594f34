//! A proxy that closes idle connections, as load balancers and firewalls do.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::chaos_faults::Cut;
use super::chaos_line::close;
use super::ports;

/// How the end of an idle connection shows to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By FIN.
    Fin,
    /// By RST.
    Reset,
    /// Not at all: only the next bytes of the client are answered by RST, and never arrive.
    Forget,
}

/// Listens on a port of its own. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct IdleProxy {
    port: u16,
    ended: Arc<AtomicUsize>,
    acceptor: AbortHandle,
}

impl IdleProxy {
    /// A proxy in front of the server on this port of 127.0.0.1.
    pub async fn before_port(server: u16, idle: Duration, end: End) -> Self {
        let (port, listener) = ports::listen().await;
        let ended = Arc::default();
        let acceptor = tokio::spawn(accept(listener, server, idle, end, Arc::clone(&ended)));
        Self { port, ended, acceptor: acceptor.abort_handle() }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has ended because they were idle.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for IdleProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// Dropping this task ends all connections.
async fn accept(
    listener: TcpListener,
    server: u16,
    idle: Duration,
    end: End,
    ended: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("file descriptors");
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(client, server, idle, end, Arc::clone(&ended)));
    }
}

async fn carry(
    mut client: TcpStream,
    server: u16,
    idle: Duration,
    end: End,
    ended: Arc<AtomicUsize>,
) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let (mut there, mut back) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let step = async {
            tokio::select! {
                ready = client.readable() => ready.map(|()| true),
                ready = server.readable() => ready.map(|()| false),
            }
        };
        match timeout(idle, step).await {
            Err(_) => break,
            Ok(Ok(true)) if pass(&client, &mut server, &mut there).await => {}
            Ok(Ok(false)) if pass(&server, &mut client, &mut back).await => {}
            Ok(_) => return,
        }
    }
    ended.fetch_add(1, Ordering::Relaxed);
    drop(server);
    if end == End::Forget {
        let _ = client.readable().await;
    }
    close(client, if end == End::Fin { Cut::Fin } else { Cut::Reset });
}

/// Passes on what has arrived. False at the end of the connection.
async fn pass(from: &TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> bool {
    match from.try_read(buffer) {
        Ok(0) => false,
        Ok(count) => to.write_all(&buffer[..count]).await.is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
