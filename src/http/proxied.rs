//! Connections that begin with a header of the PROXY protocol (`server.proxy_protocol`).
//!
//! The header names the client, and a client that has its share of connections must not evict
//! others. So the header is read before the connection gets a slot.

use crate::http::activity::Activity;
use crate::http::client_address::ClientAddress;
use crate::http::client_stream::ClientStream;
use crate::http::connection::ConnectionHandler;
use crate::http::handler::Handler;
use crate::http::opening;
use crate::http::opening::Opening;
use crate::http::peer::Peer;
use crate::http::proxy_protocol;
use crate::http::proxy_protocol::read_header;
use crate::process::log_throttle::LogThrottle;
use parking_lot::Mutex;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Maximum connections of a worker that have no slot yet. The others wait in the kernel.
pub(crate) const MAX_OPENING: usize = 16;

/// How long a connection waits for its header before it gets a slot. A proxy sends the header as
/// soon as it has connected, so only silent connections wait longer.
const EARLY: Duration = Duration::from_millis(500);

/// The connections of a worker that trusted proxies forward.
pub(crate) struct ProxiedConnections<H> {
    handler: Arc<ConnectionHandler<H>>,
    proxies: ClientAddress,
    opening: Arc<Semaphore>,
    /// Bounds the log lines about connections that are refused.
    refusals: Mutex<LogThrottle>,
}

/// The stream after a header, and the client that the proxy forwards.
type Forwarded = (ClientStream, Option<Peer>);

impl<H: Handler> ProxiedConnections<H> {
    pub(crate) fn new(
        handler: Arc<ConnectionHandler<H>>,
        proxies: ClientAddress,
        refusals: LogThrottle,
    ) -> Arc<Self> {
        let opening = Arc::new(Semaphore::new(MAX_OPENING));
        Arc::new(Self { handler, proxies, opening, refusals: Mutex::new(refusals) })
    }

    /// Begins to serve a connection, if its peer is a trusted proxy.
    pub(crate) async fn serve(self: &Arc<Self>, stream: ClientStream, proxy: Peer) {
        if !self.proxies.trusts(proxy) {
            return self.refuse(proxy, "the peer is not in server.trusted_proxies");
        }
        let permit = Arc::clone(&self.opening).acquire_owned().await;
        let opening = Arc::clone(self).open(stream, proxy);
        self.handler.tasks.spawn(async move {
            opening.await;
            drop(permit);
        });
    }

    /// Reads the header and gets a slot, in this order unless the header is late.
    async fn open(self: Arc<Self>, stream: ClientStream, proxy: Peer) {
        stream.set_nodelay();
        let activity = Arc::new(Activity::new());
        let (slots, limit) = (&self.handler.slots, self.handler.limits.header_timeout);
        let mut header = Box::pin(read_header(stream));
        let early = self.within(header.as_mut(), &activity, limit.min(EARLY)).await;
        match early {
            Opening::Late => {
                let guard = slots.acquire(&activity).await;
                let late = Arc::clone(&self);
                self.handler.spawn(guard, async move {
                    let header = late.within(header, &activity, limit).await;
                    late.serve_forwarded(header, proxy, activity).await;
                });
            }
            early => {
                let Some((stream, client)) = self.forwarded(early, proxy) else { return };
                let Ok(share) = slots.share(client) else { return };
                let guard = slots.acquire(&activity).await;
                let handler = Arc::clone(&self.handler);
                self.handler.spawn(guard, async move {
                    let _share = share;
                    handler.serve(stream, client, activity).await;
                });
            }
        }
    }

    async fn within(
        &self,
        header: impl Future<Output = io::Result<Forwarded>>,
        activity: &Activity,
        limit: Duration,
    ) -> Opening<Forwarded> {
        opening::within(header, activity.opened() + limit, self.handler.stopping.clone()).await
    }

    /// Serves a connection that has a slot already.
    async fn serve_forwarded(
        &self,
        header: Opening<Forwarded>,
        proxy: Peer,
        activity: Arc<Activity>,
    ) {
        let Some((stream, client)) = self.forwarded(header, proxy) else { return };
        let Ok(_share) = self.handler.slots.share(client) else { return };
        self.handler.serve(stream, client, activity).await;
    }

    /// The stream and the client, if the header is valid.
    fn forwarded(&self, header: Opening<Forwarded>, proxy: Peer) -> Option<(ClientStream, Peer)> {
        match header {
            Opening::Done(Ok((stream, client))) => Some((stream, client.unwrap_or(proxy))),
            Opening::Stopping => None,
            Opening::Done(Err(error)) if proxy_protocol::is_unused(&error) => None,
            Opening::Done(Err(error)) => {
                self.refuse(proxy, &error);
                None
            }
            Opening::Late => {
                self.refuse(proxy, io::Error::from(io::ErrorKind::TimedOut));
                None
            }
        }
    }

    /// Records that a connection without a valid header is closed.
    fn refuse(&self, peer: Peer, reason: impl Display) {
        self.handler.metrics.connections.proxy_protocol_errors.increment(1);
        if self.refusals.lock().allows() {
            tracing::warn!(%peer, %reason, "connection refused (server.proxy_protocol)");
        }
    }
}
