//! A relay in front of Hookgate: callers connect to a TCP port, and the relay to any socket, where
//! it may first send a header of the PROXY protocol.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use super::ports;

/// Where a relay connects.
#[derive(Debug, Clone)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

/// A running relay. It ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    header: Arc<Mutex<Vec<u8>>>,
    task: AbortHandle,
}

impl Relay {
    /// Starts a relay that sends no header.
    pub async fn start(target: impl Into<Target>) -> Self {
        Self::start_with(target, "").await
    }

    /// Starts a relay that begins each connection with this header.
    pub async fn start_with(target: impl Into<Target>, header: impl AsRef<[u8]>) -> Self {
        let (port, listener) = ports::listen().await;
        let header = Arc::new(Mutex::new(header.as_ref().to_vec()));
        let (target, begins) = (target.into(), Arc::clone(&header));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                let begin = lock(&begins).clone();
                connections.spawn(relay(caller, target.clone(), begin));
            }
        });
        let address = ([127, 0, 0, 1], port).into();
        Self { address, header, task: task.abort_handle() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins later connections with this header.
    pub fn set_header(&self, header: impl AsRef<[u8]>) {
        *lock(&self.header) = header.as_ref().to_vec();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(header: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    header.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on both directions. A side that cannot be reached, or that closes, closes the other.
async fn relay(caller: TcpStream, target: Target, header: Vec<u8>) {
    let _ = caller.set_nodelay(true);
    match target {
        Target::Tcp(address) => {
            let Ok(stream) = TcpStream::connect(address).await else { return };
            let _ = stream.set_nodelay(true);
            pass_on(caller, stream, header).await;
        }
        Target::Unix(path) => {
            let Ok(stream) = UnixStream::connect(path).await else { return };
            pass_on(caller, stream, header).await;
        }
    }
}

async fn pass_on(
    mut caller: TcpStream,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    header: Vec<u8>,
) {
    if stream.write_all(&header).await.is_ok() {
        let _ = copy_bidirectional(&mut caller, &mut stream).await;
    }
}
