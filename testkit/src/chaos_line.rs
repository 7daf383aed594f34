//! One connection through a [`ChaosProxy`](super::chaos::ChaosProxy).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use super::chaos_faults::{Cut, Gate, Late, Shared, Way};

/// Size of one read in bytes.
const CHUNK: usize = 64 << 10;

/// Bound on bytes that are read ahead of the receiver, unless they are held.
const MOST_QUEUED: usize = 1 << 20;

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed(Way),
    Cut(Cut),
}

/// Carries bytes in both directions until either side closes or a rule ends the connection.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    id: u64,
    mut client: TcpStream,
    mut redis: TcpStream,
) {
    let mut requests = Pump::new(shared, id, Way::ToRedis);
    let mut replies = Pump::new(shared, id, Way::ToClient);
    let end = {
        let (from_client, to_client) = client.split();
        let (from_redis, to_redis) = redis.split();
        tokio::select! {
            end = requests.run(&from_client, &to_redis) => end,
            end = replies.run(&from_redis, &to_client) => end,
        }
    };
    let how = if let End::Cut(how) = end { how } else { Cut::Fin };
    let holds = shared.lock().line(id).rules.to_redis.gate == Gate::Held;
    if holds && end != End::Closed(Way::ToClient) {
        requests.read_rest(&client);
    }
    let held = requests.into_bytes();
    close(client, how);
    if holds && !held.is_empty() && end != End::Closed(Way::ToClient) {
        late(shared, id, &mut redis, &held).await;
    }
    close(redis, how);
    shared.lock().lines.remove(&id);
}

/// One direction of a connection.
struct Pump {
    shared: Arc<Shared>,
    id: u64,
    way: Way,
    buffer: Vec<u8>,
    /// What has been read, and when each chunk may be forwarded.
    queue: VecDeque<(Instant, VecDeque<u8>)>,
    source_ended: bool,
    /// The receiver accepts no more bytes. The other direction notices that it has gone.
    target_gone: bool,
}

impl Pump {
    fn new(shared: &Arc<Shared>, id: u64, way: Way) -> Self {
        Self {
            shared: Arc::clone(shared),
            id,
            way,
            buffer: vec![0; CHUNK],
            queue: VecDeque::new(),
            source_ended: false,
            target_gone: false,
        }
    }

    /// Ends when its source has ended and everything is forwarded or held, or at a cut.
    async fn run(&mut self, from: &ReadHalf<'_>, to: &WriteHalf<'_>) -> End {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (cut, gate, queued) = {
                let mut state = self.shared.lock();
                let line = state.line(self.id);
                (line.cut, line.rules[self.way].gate, line.queued[self.way])
            };
            if let Some(how) = cut {
                return End::Cut(how);
            }
            if self.source_ended && (self.queue.is_empty() || gate == Gate::Held) {
                return End::Closed(self.way);
            }
            let reads = !self.source_ended
                && (gate == Gate::Held || gate == Gate::Open && queued < MOST_QUEUED);
            let due = self.queue.front().map(|&(due, _)| due).filter(|_| gate == Gate::Open);
            let end = tokio::select! {
                _ = changed.changed() => None,
                _ = from.readable(), if reads => self.read(from),
                () = writable_at(to, due.unwrap_or_else(Instant::now)), if due.is_some() => self.write(to),
            };
            if let Some(how) = end {
                return End::Cut(how);
            }
            // Single bytes must arrive as such, and other tasks must get their turn.
            tokio::task::yield_now().await;
        }
    }

    fn read(&mut self, from: &ReadHalf<'_>) -> Option<Cut> {
        let read = from.try_read(&mut self.buffer);
        self.take(read)
    }

    /// Bytes that are in the socket at a cut were sent before the cut.
    fn read_rest(&mut self, from: &TcpStream) {
        while !self.source_ended {
            let read = (&*SockRef::from(from)).read(&mut self.buffer);
            if matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock) {
                return;
            }
            self.take(read);
        }
    }

    /// Queues the bytes in the buffer. Returns how to cut the connection if that is due instead.
    fn take(&mut self, read: io::Result<usize>) -> Option<Cut> {
        let count = match read {
            Ok(count) if count > 0 => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Ok(_) | Err(_) => {
                self.source_ended = true;
                return None;
            }
        };
        let bytes = &self.buffer[..count];
        let mut state = self.shared.lock();
        if let Some(how) = state.loses(self.id, self.way, bytes) {
            return Some(how);
        }
        if self.target_gone {
            return None;
        }
        let random = state.random.f64();
        let line = state.line(self.id);
        let rules = &mut line.rules[self.way];
        let mut chunk = VecDeque::from(rules.insert.take().unwrap_or_default());
        chunk.extend(bytes);
        line.queued[self.way] += chunk.len();
        let delay = rules.delay.clone().map(|delay| {
            let (least, most) = delay.into_inner();
            least + most.saturating_sub(least).mul_f64(random)
        });
        let gathered = self.queue.back_mut().filter(|_| rules.gather.is_some());
        if let Some((_, gathered)) = gathered {
            gathered.extend(chunk);
        } else {
            let wait = rules.gather.or(delay).unwrap_or(Duration::ZERO);
            self.queue.push_back((Instant::now() + wait, chunk));
        }
        None
    }

    /// Holds the lock, so that a cut after a number of bytes across all connections is exact.
    fn write(&mut self, to: &WriteHalf<'_>) -> Option<Cut> {
        let (_, chunk) = self.queue.front_mut()?;
        let mut state = self.shared.lock();
        let most = state.allowance(self.id, self.way, chunk.len());
        let bytes = &chunk.make_contiguous()[..most];
        match to.try_write(bytes) {
            Ok(count) => {
                chunk.drain(..count);
                if chunk.is_empty() {
                    self.queue.pop_front();
                }
                state.forwarded(self.id, self.way, count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(_) => {
                self.target_gone = true;
                self.queue.clear();
                state.line(self.id).queued[self.way] = 0;
                None
            }
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        self.queue.into_iter().flat_map(|(_, chunk)| chunk).collect()
    }
}

async fn writable_at(to: &WriteHalf<'_>, due: Instant) {
    sleep_until(due).await;
    // The write reports any error.
    let _ = to.writable().await;
}

/// Serves a connection whose client has gone while Redis sees it open. It waits for the order to
/// deliver, sends what is held, and ends when Redis has answered all of it or has closed.
async fn late(shared: &Shared, id: u64, redis: &mut TcpStream, held: &[u8]) {
    let mut changed = shared.changed.subscribe();
    shared.lock().line(id).late = Late::Waiting;
    let (mut answer, mut is_delivered, mut buffer) = (Vec::new(), false, vec![0; CHUNK]);
    loop {
        let is_ordered = shared.lock().line(id).late == Late::Delivering;
        if is_ordered && !is_delivered {
            if redis.write_all(held).await.is_err() {
                break;
            }
            is_delivered = true;
            let mut state = shared.lock();
            state.line(id).queued.to_redis = 0;
            state.counts.bytes.to_redis += held.len() as u64;
            state.counts.writes.to_redis += 1;
        }
        if is_delivered && shared.lock().line(id).talk.is_answered() {
            break;
        }
        tokio::select! {
            _ = changed.changed() => {}
            read = redis.read(&mut buffer) => {
                let count = read.unwrap_or(0);
                if count == 0 {
                    break;
                }
                shared.lock().line(id).talk.read_redis(&buffer[..count]);
                if is_delivered {
                    answer.extend(&buffer[..count]);
                }
            }
        }
    }
    if is_delivered {
        shared.lock().late_answers.push(answer);
    }
}

pub(super) fn close(mut stream: TcpStream, how: Cut) {
    match how {
        Cut::Reset => {
            // Setting the option fails on a socket that is already reset.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        Cut::Fin => {
            // Closing with unread bytes would send RST, so this reads until the other side has
            // closed.
            tokio::spawn(async move {
                let mut buffer = vec![0; CHUNK];
                if stream.shutdown().await.is_ok() {
                    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                }
            });
        }
    }
}
