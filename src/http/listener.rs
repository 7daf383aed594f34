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
use crate::http::proxied::ProxiedConnections;
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

/// At most one refused connection of each kind is logged in this interval by each worker.
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
    let refusals = || LogThrottle::new(1, REFUSALS_LOGGED);
    let handler = Arc::new(ConnectionHandler {
        handler: server.handler,
        limits: server.limits,
        tls: server.tls,
        slots: server.slots,
        metrics: server.metrics,
        tasks,
        stopping: server.stopping,
        certificate_refusals: Mutex::new(refusals()),
    });
    let proxied = Some(server.client_address)
        .filter(ClientAddress::uses_proxy_protocol)
        .map(|address| ProxiedConnections::new(Arc::clone(&handler), address, refusals()));
    let worker = ConnectionSpawner { handler, proxied };
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
    /// Set if connections begin with a header of the PROXY protocol.
    proxied: Option<Arc<ProxiedConnections<H>>>,
}

impl<H: Handler> ConnectionSpawner<H> {
    async fn serve(&self, (stream, peer): (ClientStream, Peer)) {
        failpoint::pass("worker");
        if let Some(proxied) = &self.proxied {
            return proxied.serve(stream, peer).await;
        }
        let Ok(share) = self.handler.slots.share(peer) else { return };
        let activity = Arc::new(Activity::new());
        let guard = self.handler.slots.acquire(&activity).await;
        stream.set_nodelay();
        let handler = Arc::clone(&self.handler);
        self.handler.spawn(guard, async move {
            let _share = share;
            handler.serve(stream, peer, activity).await;
        });
    }
}
