//! Accepts the connections of the ingress port, and serves them.

use crate::http::acceptor::Acceptor;
use crate::http::activity::Activity;
use crate::http::client_address::ClientAddress;
use crate::http::client_stream::ClientStream;
use crate::http::closing::ConnectionLimits;
use crate::http::connection::ConnectionHandler;
use crate::http::connection_slots::ConnectionSlots;
use crate::http::handler::Handler;
use crate::http::listen::Listener;
use crate::http::peer::Peer;
use crate::http::tls::Tls;
use crate::metrics::Metrics;
use crate::process::failpoint;
use crate::process::lifecycle::{Stage, Stopping};
use crate::process::log_throttle::LogThrottle;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// At most one refused connection is logged in this interval by each worker.
const REFUSALS_LOGGED: Duration = Duration::from_secs(1);

/// The parts that a worker needs to serve its connections.
#[derive(Debug)]
pub struct Server<H> {
    pub handler: Arc<H>,
    pub limits: ConnectionLimits,
    pub tls: Option<Arc<Tls>>,
    pub slots: Arc<ConnectionSlots>,
    pub client_address: ClientAddress,
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
    let (socket, arrival_end) = listener.register()?;
    let mut acceptor = Acceptor::new(socket, "ingress", Some(errors));
    let worker = ConnectionSpawner {
        handler: Arc::new(ConnectionHandler {
            handler: server.handler,
            limits: server.limits,
            tls: server.tls,
            proxied: Some(server.client_address).filter(ClientAddress::uses_proxy_protocol),
            slots: server.slots,
            metrics: server.metrics,
            tasks,
            stopping: server.stopping,
            refusals: Mutex::new(LogThrottle::new(1, REFUSALS_LOGGED)),
        }),
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.reached(Stage::Draining) => break,
            accepted = acceptor.accept() => accepted,
        };
        worker.serve(accepted).await;
    }
    if arrival_end.begin().await {
        while let Some(accepted) = acceptor.accept_queued().await {
            worker.serve(accepted).await;
        }
    }
    Ok(())
}

/// Gives each connection a slot and a task.
struct ConnectionSpawner<H> {
    handler: Arc<ConnectionHandler<H>>,
}

impl<H: Handler> ConnectionSpawner<H> {
    async fn serve(&self, (stream, peer): (ClientStream, Peer)) {
        failpoint::pass("worker");
        let handler = &self.handler;
        let share = match &handler.proxied {
            None => handler.slots.share(peer),
            Some(proxies) if proxies.trusts(peer) => Ok(None),
            Some(_) => return handler.refuse(peer, "the peer is not in server.trusted_proxies"),
        };
        let Ok(share) = share else { return };
        let activity = Arc::new(Activity::new());
        let guard = handler.slots.acquire(&activity).await;
        let key = guard.key();
        stream.set_nodelay();
        let handler = Arc::clone(handler);
        let task = self.handler.tasks.spawn(async move {
            let _held = (guard, share);
            handler.serve(stream, peer, activity).await;
        });
        self.handler.slots.attach(key, task.abort_handle());
    }
}
