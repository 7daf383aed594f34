//! Listening and accepting.

use super::activity::Activity;
use super::closing::ConnectionLimits;
use super::connection::Host;
use super::places::{Place, Places};
use super::tls::{Tls, TlsSettings};
use super::{BodySettings, Ingress};
use crate::failpoint;
use crate::lifecycle::{Stage, Stopping};
use crate::settings::Section;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Connections that the kernel holds for us before they are accepted; it takes less if
/// `net.core.somaxconn` is less.
const BACKLOG: i32 = 4096;

/// How long to pause when the process is out of file descriptors or memory for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The section `[server]`.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    /// 0: one per available core.
    pub workers: usize,
    /// In the whole process.
    pub max_connections: usize,
    /// 0: no bound.
    pub max_connections_per_address: usize,
    pub body: BodySettings,
    connection: ConnectionLimits,
    /// At the start: how long the port stays closed for want of readiness.
    pub start_timeout: Duration,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    /// Without it: HTTP/1.1 in the clear.
    pub tls: Option<TlsSettings>,
}

impl ServerSettings {
    /// As many as are asked for, or one per core.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers == 0 { cores() } else { self.workers }
    }

    pub fn read(section: &mut Section<'_>) -> Self {
        let second = Duration::from_secs(1);
        Self {
            listen: section.address("listen", ([0, 0, 0, 0], 2212).into()),
            workers: section.count("workers", 0, 0..=1024),
            max_connections: section.count("max_connections", 20_000, 1..=1_000_000),
            max_connections_per_address: section.count(
                "max_connections_per_address",
                0,
                0..=1_000_000,
            ),
            body: BodySettings::read(section),
            connection: ConnectionLimits {
                header_timeout: section.duration(
                    "header_timeout",
                    "10s",
                    second / 10..=600 * second,
                ),
                idle_timeout: section.duration("idle_timeout", "75s", second / 10..=3600 * second),
                max_age: section.duration("max_connection_age", "5m", second..=86_400 * second),
            },
            start_timeout: section.duration("start_timeout", "30s", Duration::ZERO..=3600 * second),
            drain_delay: section.duration("drain_delay", "0s", Duration::ZERO..=600 * second),
            drain_timeout: section.duration("drain_timeout", "30s", Duration::ZERO..=3600 * second),
            tls: TlsSettings::read(&mut section.section("tls")),
        }
    }
}

/// A bound port. Every worker has one of its own on the same port, and the kernel shares out the
/// connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

impl Listener {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket })
    }

    /// From now on connections come in.
    pub fn listen(&self) -> io::Result<()> {
        self.socket.listen(BACKLOG)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.ok_or_else(|| io::Error::other("not an internet address"))
    }
}

/// What a worker serves with.
#[derive(Debug)]
pub struct Service {
    pub ingress: Arc<Ingress>,
    pub settings: ServerSettings,
    pub tls: Option<Arc<Tls>>,
    pub places: Arc<Places>,
    pub stopping: Stopping,
}

/// Accepts connections until the drain, and serves each as a task.
pub async fn serve(listener: Listener, service: Service, tasks: TaskTracker) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.socket.into())?;
    let mut stopping = service.stopping.clone();
    let host = Host {
        ingress: service.ingress,
        limits: service.settings.connection,
        tls: service.tls.map(|tls| tls.acceptor()),
        tasks,
        stopping: service.stopping,
    };
    let mut acceptor =
        Acceptor { listener, host: Arc::new(host), places: service.places, logged: None };
    loop {
        let connection = tokio::select! {
            biased;
            () = stopping.reached(Stage::Draining) => break,
            connection = acceptor.listener.accept() => connection,
        };
        acceptor.serve_or_pause(connection).await;
    }
    // What the kernel has queued up for us would be reset: it is served too.
    while let Some(connection) = acceptor.waiting().await {
        acceptor.serve_or_pause(Ok(connection)).await;
    }
    Ok(())
}

type Connection = (TcpStream, SocketAddr);

struct Acceptor {
    listener: TcpListener,
    host: Arc<Host>,
    places: Arc<Places>,
    /// When an error was last logged.
    logged: Option<Instant>,
}

impl Acceptor {
    /// A connection that waits already.
    async fn waiting(&self) -> Option<Connection> {
        poll_fn(|context| match self.listener.poll_accept(context) {
            Poll::Ready(Ok(connection)) => Poll::Ready(Some(connection)),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    async fn serve_or_pause(&mut self, connection: io::Result<Connection>) {
        failpoint::pass("worker");
        match connection {
            Ok((stream, peer)) => {
                let activity = Arc::new(Activity::new());
                if let Some(place) = self.places.take(peer.ip(), &activity).await {
                    self.spawn(stream, activity, place);
                }
            }
            Err(error) => {
                self.host.ingress.metrics.connections.accept_errors.increment(1);
                if self.logged.is_none_or(|logged| logged.elapsed() > Duration::from_secs(1)) {
                    self.logged = Some(Instant::now());
                    tracing::warn!(%error, "connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn spawn(&self, stream: TcpStream, activity: Arc<Activity>, place: Place) {
        // Fails only on a connection that is gone already.
        let _ = stream.set_nodelay(true);
        let host = Arc::clone(&self.host);
        let key = place.key();
        let task = self.host.tasks.spawn(async move {
            let _place = place;
            host.serve(stream, activity).await;
        });
        self.places.attach(key, task.abort_handle());
    }
}
