//! A proxy in front of Redis that injects network faults.
//!
//! ```ignore
//! let redis = Redis::start().await;
//! let proxy = ChaosProxy::before(&redis, 7).await;        // 7 is the seed
//! let app = App::build().redis(redis).redis_address(&proxy.url()).start().await;
//! proxy.open().hold_requests();         // open connections
//! app.webhook("wh_1").send().await;     // succeeds over a new connection
//! let answers = proxy.deliver_late().await; // the attempt on the dead one arrives
//! ```
//!
//! [`ChaosProxy::open`], [`ChaosProxy::future`] and [`ChaosProxy::all`] select connections, and
//! [`Lines`] has their faults. Faults on any one connection are methods of the proxy itself. It
//! runs in tasks of the test's own runtime: a test that blocks its thread blocks the proxy.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::chaos_faults::{Budget, Gate, Late, Rules, Shared};
pub use super::chaos_faults::{Counts, Cut, Held, Way, Ways};
use super::chaos_line::{close, serve};
use super::ports;
use super::redis::Redis;
use super::wait::until;

/// Estimate for random cuts, because replies are that much shorter than requests.
const REQUEST_BYTES_PER_REPLY_BYTE: u64 = 16;

/// Listens on a port of its own. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct ChaosProxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: AbortHandle,
}

impl ChaosProxy {
    pub async fn before(redis: &Redis, seed: u64) -> Self {
        Self::before_port(redis.port(), seed).await
    }

    /// A proxy in front of any server on 127.0.0.1.
    pub async fn before_port(redis_port: u16, seed: u64) -> Self {
        let (port, listener) = ports::listen().await;
        let shared = Arc::new(Shared::new(redis_port, seed));
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { port, shared, acceptor }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for `queue.redis`.
    pub fn url(&self) -> String {
        super::redis::url(self.port)
    }

    /// The connections that are open now.
    pub fn open(&self) -> Lines<'_> {
        Lines { proxy: self, open: true, future: false }
    }

    /// The connections that are made from now on.
    pub fn future(&self) -> Lines<'_> {
        Lines { proxy: self, open: false, future: true }
    }

    /// The connections that are open and those that are made from now on.
    pub fn all(&self) -> Lines<'_> {
        Lines { proxy: self, open: true, future: true }
    }

    /// Resets new connections as soon as they are made.
    pub fn refuse_connections(&self) {
        self.shared.lock().refuses = true;
    }

    pub fn accept_connections(&self) {
        self.shared.lock().refuses = false;
    }

    /// Resets open connections and sends new ones to another server, as a failover does. Requests
    /// that are held stay with the old server.
    pub fn redirect(&self, redis: &Redis) {
        self.shared.change(|state| {
            state.redis_port = redis.port();
            state.cut_open_lines(Cut::Reset);
        });
    }

    /// Cuts the connection that carries the last of the next `bytes` bytes.
    pub fn cut_one_after(&self, way: Way, bytes: u64, how: Cut) {
        self.shared.lock().cut[way] = Some(Budget { bytes: bytes.max(1), how });
    }

    /// Makes `count` cuts one after the other. Each comes after 1 to `within` bytes towards Redis,
    /// or a proportional number towards the client, by RST or FIN, all at random. Returns when the
    /// last cut is made. Needs traffic.
    pub async fn cut_at_random(&self, count: usize, within: u64) {
        for serial in 1..=count {
            let way = self.plan_random_cut(within);
            until(&format!("random cut {serial} of {count} is made"), async || {
                self.shared.lock().cut[way].is_none()
            })
            .await;
        }
    }

    fn plan_random_cut(&self, within: u64) -> Way {
        let mut state = self.shared.lock();
        let way = if state.random.bool() { Way::ToRedis } else { Way::ToClient };
        let within = match way {
            Way::ToRedis => within,
            Way::ToClient => within / REQUEST_BYTES_PER_REPLY_BYTE,
        };
        let bytes = state.random.u64(1..=within.max(1));
        let how = if state.random.bool() { Cut::Reset } else { Cut::Fin };
        state.cut[way] = Some(Budget { bytes, how });
        way
    }

    /// Keeps the next `count` script calls, on any connection, from Redis and cuts their
    /// connections.
    pub fn lose_requests(&self, count: usize, how: Cut) {
        self.shared.lock().lose.to_redis = (count > 0).then_some((count, how));
    }

    /// Lets Redis execute the next `count` script calls, on any connection, but keeps their replies
    /// from the client and cuts their connections.
    pub fn lose_replies(&self, count: usize, how: Cut) {
        self.shared.lock().lose.to_client = (count > 0).then_some((count, how));
    }

    pub fn counts(&self) -> Counts {
        let state = self.shared.lock();
        let open = state.lines.values().filter(|line| line.is_open()).count();
        Counts { open, ..state.counts.clone() }
    }

    /// What the proxy has read and holds back from Redis. Bytes of stalled connections that are
    /// still in sockets do not count.
    pub fn held(&self) -> Held {
        let state = self.shared.lock();
        let holding = state.lines.values().filter(|line| line.queued.to_redis > 0);
        holding.fold(Held::default(), |held, line| Held {
            connections: held.connections + 1,
            bytes: held.bytes + line.queued.to_redis,
            late: held.late + usize::from(line.late == Late::Waiting),
        })
    }

    /// Delivers the held requests of clients that have gone, each over its own connection to Redis,
    /// and waits until Redis has answered all of them or has closed. Returns the bytes of the
    /// answers by connection.
    pub async fn deliver_late(&self) -> Vec<Vec<u8>> {
        self.shared.change(|state| {
            for line in state.lines.values_mut().filter(|line| line.late == Late::Waiting) {
                line.late = Late::Delivering;
            }
        });
        until("Redis has answered the late requests", async || {
            self.shared.lock().lines.values().all(|line| line.late != Late::Delivering)
        })
        .await;
        std::mem::take(&mut self.shared.lock().late_answers)
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// A set of connections; see [`ChaosProxy::open`].
#[derive(Debug, Clone, Copy)]
#[must_use = "selects connections and does nothing by itself"]
pub struct Lines<'a> {
    proxy: &'a ChaosProxy,
    open: bool,
    future: bool,
}

impl Lines<'_> {
    /// Cuts the open connections now. Their held requests can still be delivered late.
    pub fn cut(self, how: Cut) {
        if self.open {
            self.proxy.shared.change(|state| state.cut_open_lines(how));
        }
    }

    /// Cuts each connection after another `bytes` bytes of its own.
    pub fn cut_after(self, way: Way, bytes: u64, how: Cut) {
        self.change(|rules| rules[way].cut = Some(Budget { bytes: bytes.max(1), how }));
    }

    /// Stops reading and forwarding. Nothing is lost: bytes stay in the sockets, and senders block
    /// when these are full.
    pub fn stall(self, way: Way) {
        self.change(|rules| rules[way].gate = Gate::Stalled);
    }

    /// Stalls both directions.
    pub fn black_hole(self) {
        self.stall(Way::ToRedis);
        self.stall(Way::ToClient);
    }

    /// Reads what clients send and holds it back from Redis. When a client closes, or its
    /// connection is cut, Redis does not notice; [`ChaosProxy::deliver_late`] delivers what the
    /// client had sent.
    pub fn hold_requests(self) {
        self.change(|rules| rules.to_redis.gate = Gate::Held);
    }

    /// Forwards what is stalled or held, unless its client has gone.
    pub fn release(self) {
        self.change(|rules| {
            rules.to_redis.gate = Gate::Open;
            rules.to_client.gate = Gate::Open;
        });
    }

    /// Forwards each byte by a write of its own.
    pub fn split(self, way: Way) {
        self.change(|rules| rules[way].single_bytes = true);
    }

    /// Forwards by one write what arrives within `time`.
    pub fn gather(self, way: Way, time: Duration) {
        self.change(|rules| rules[way].gather = Some(time));
    }

    /// Delays everything by a random time from this range and keeps the order.
    pub fn delay(self, way: Way, times: RangeInclusive<Duration>) {
        self.change(|rules| rules[way].delay = Some(times.clone()));
    }

    /// Inserts these bytes before the next bytes that each connection gets from Redis.
    pub fn insert_before_reply(self, bytes: impl AsRef<[u8]>) {
        self.change(|rules| rules.to_client.insert = Some(bytes.as_ref().to_owned()));
    }

    /// Removes every fault from these connections.
    pub fn heal(self) {
        self.change(|rules| *rules = Ways::default());
    }

    fn change(self, change: impl Fn(&mut Ways<Rules>)) {
        self.proxy.shared.change(|state| {
            if self.future {
                change(&mut state.future);
            }
            if self.open {
                let open = state.lines.values_mut().filter(|line| line.is_open());
                open.for_each(|line| change(&mut line.rules));
            }
        });
    }
}

/// Dropping this task ends all connections.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("file descriptors");
        while connections.try_join_next().is_some() {}
        let mut state = shared.lock();
        if state.refuses {
            state.counts.refused += 1;
            close(client, Cut::Reset);
        } else {
            let (id, redis_port) = (state.add_line(), state.redis_port);
            connections.spawn(lead(Arc::clone(&shared), id, client, redis_port));
        }
    }
}

async fn lead(shared: Arc<Shared>, id: u64, client: TcpStream, redis_port: u16) {
    let Ok(redis) = TcpStream::connect((Ipv4Addr::LOCALHOST, redis_port)).await else {
        close(client, Cut::Reset);
        shared.lock().lines.remove(&id);
        return;
    };
    for stream in [&client, &redis] {
        // Setting the option fails on a socket that is already reset.
        let _ = stream.set_nodelay(true);
    }
    serve(&shared, id, client, redis).await;
}
