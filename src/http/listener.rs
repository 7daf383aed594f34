//! The ingress port: binds it and serves its connections.

use crate::http::acceptor::{AcceptedStream, Acceptor, BACKLOG};
use crate::http::activity::Activity;
use crate::http::closing::ConnectionLimits;
use crate::http::connection::ConnectionHandler;
use crate::http::connection_slots::{ConnectionGuard, ConnectionSlots};
use crate::http::handler::Handler;
use crate::http::tls::Tls;
use crate::metrics::Metrics;
use crate::process::failpoint;
use crate::process::lifecycle::{Stage, Stopping};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// A bound socket. Every worker has its own on the same port, and the kernel distributes the
/// connections among them.
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

    /// Opens the port: connections arrive from now on.
    pub fn listen(&self) -> io::Result<()> {
        self.socket.listen(BACKLOG)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.ok_or_else(|| io::Error::other("not an internet address"))
    }
}

/// The parts that a worker needs to serve its connections.
#[derive(Debug)]
pub struct Server<H> {
    pub handler: Arc<H>,
    pub limits: ConnectionLimits,
    pub tls: Option<Arc<Tls>>,
    pub slots: Arc<ConnectionSlots>,
    pub metrics: Arc<Metrics>,
    pub stopping: Stopping,
}

/// Accepts connections until the drain, and serves each as a task.
pub async fn serve<H: Handler>(
    listener: Listener,
    server: Server<H>,
    tasks: TaskTracker,
) -> io::Result<()> {
    let mut stopping = server.stopping.clone();
    let errors = server.metrics.connections.accept_errors.clone();
    let mut acceptor = Acceptor::new(listener.socket.into(), "ingress", Some(errors))?;
    let worker = ConnectionSpawner {
        handler: Arc::new(ConnectionHandler {
            handler: server.handler,
            limits: server.limits,
            tls: server.tls.map(|tls| tls.acceptor()),
            metrics: server.metrics,
            tasks,
            stopping: server.stopping,
        }),
        slots: server.slots,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.reached(Stage::Draining) => break,
            accepted = acceptor.accept() => accepted,
        };
        worker.serve(accepted).await;
    }
    // Closing the socket would reset the connections that the kernel has queued, so they are served
    // too.
    while let Some(accepted) = acceptor.accept_queued().await {
        worker.serve(accepted).await;
    }
    Ok(())
}

/// Gives each connection a slot and a task.
struct ConnectionSpawner<H> {
    handler: Arc<ConnectionHandler<H>>,
    slots: Arc<ConnectionSlots>,
}

impl<H: Handler> ConnectionSpawner<H> {
    async fn serve(&self, (stream, peer): AcceptedStream) {
        failpoint::pass("worker");
        let activity = Arc::new(Activity::new(peer.ip()));
        if let Some(guard) = self.slots.acquire(peer.ip(), &activity).await {
            self.spawn(stream, activity, guard);
        }
    }

    fn spawn(&self, stream: TcpStream, activity: Arc<Activity>, guard: ConnectionGuard) {
        // This fails only on a connection that is already gone.
        let _ = stream.set_nodelay(true);
        let handler = Arc::clone(&self.handler);
        let key = guard.key();
        let task = self.handler.tasks.spawn(async move {
            let _guard = guard;
            handler.serve(stream, activity).await;
        });
        self.slots.attach(key, task.abort_handle());
    }
}
