//! The sockets of the ingress port: made or taken over at the start, opened when the process is
//! ready, and closed when it drains.

mod activated;
mod address;
mod unix_socket;

pub use crate::http::listen::address::{ListenAddress, UnixAddress};

use crate::files::file_access;
use crate::http::acceptor::{Accept, AcceptQueued, BACKLOG};
use crate::http::client_stream::ClientStream;
pub(crate) use crate::http::listen::unix_socket::SocketFile;
use crate::http::peer::Peer;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The sockets of the ingress port before it is open.
#[derive(Debug)]
pub struct Listeners {
    sockets: Sockets,
    workers: usize,
}

#[derive(Debug)]
enum Sockets {
    /// One for each worker on the same port. The kernel distributes the connections among them.
    Tcp(Vec<Socket>),
    /// Made when the port opens: before that, another process would take it for one on which
    /// nobody accepts.
    Unix(UnixAddress),
    /// Listens already.
    Activated(Socket),
}

/// The socket from which a worker accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    end: ArrivalEnd,
}

/// How connections stop arriving at a listener.
#[derive(Debug, Clone)]
pub(crate) enum ArrivalEnd {
    /// By closing the socket.
    Close,
    /// By removing the file of the socket, too.
    Remove(Arc<SocketFile>),
    /// Not at all: the service manager keeps the socket open, and with it the queued connections.
    KeptOpen,
}

impl Listeners {
    /// Binds the port, or takes its socket over.
    pub fn bind(address: &ListenAddress, workers: usize) -> anyhow::Result<Self> {
        if *address != ListenAddress::Activated {
            activated::warn_of_all();
        }
        let sockets = match address {
            ListenAddress::Tcp(address) => Sockets::Tcp(bind_tcp(*address, workers)?),
            ListenAddress::Unix(address) => {
                // An address in use is reported at once.
                unix_socket::check(&address.path)?;
                Sockets::Unix(address.clone())
            }
            ListenAddress::Activated => Sockets::Activated(activated::take()?),
        };
        Ok(Self { sockets, workers })
    }

    /// The number of workers that accept connections.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Opens the port: connections arrive from now on. Returns one listener for each worker.
    pub async fn open(self) -> io::Result<Vec<Listener>> {
        let (socket, end) = match self.sockets {
            Sockets::Tcp(sockets) => {
                sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
                let listener = |socket| Listener { socket, end: ArrivalEnd::Close };
                return Ok(sockets.into_iter().map(listener).collect());
            }
            Sockets::Unix(address) => {
                let path = address.path.clone();
                let opened = file_access::run(&path, move || unix_socket::listen(&address)).await;
                let (socket, file) = opened??;
                (socket, ArrivalEnd::Remove(Arc::new(file)))
            }
            Sockets::Activated(socket) => (socket, ArrivalEnd::KeptOpen),
        };
        // Only TCP can distribute connections among several sockets, so all workers share this one.
        let listener = |_| Ok(Listener { socket: socket.try_clone()?, end: end.clone() });
        (0..self.workers).map(listener).collect()
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<Socket>> {
    let first = bind(address)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind(address)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Listener {
    /// The address for the log.
    pub fn address(&self) -> String {
        let Ok(address) = self.socket.local_addr() else { return "unknown".to_owned() };
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => "unix".to_owned(),
        }
    }

    /// The file of the socket, if it has one that this process has made.
    pub(crate) fn file(&self) -> Option<Arc<SocketFile>> {
        match &self.end {
            ArrivalEnd::Remove(file) => Some(Arc::clone(file)),
            ArrivalEnd::Close | ArrivalEnd::KeptOpen => None,
        }
    }

    /// Registers the socket with the runtime of the calling worker.
    pub(crate) fn register(self) -> io::Result<(ListeningSocket, ArrivalEnd)> {
        let Self { socket, end } = self;
        let listening = match socket.domain()? {
            Domain::UNIX => ListeningSocket::Unix(UnixListener::from_std(socket.into())?),
            _ => ListeningSocket::Tcp(TcpListener::from_std(socket.into())?),
        };
        Ok((listening, end))
    }
}

impl ArrivalEnd {
    /// Ends the arrival of connections. Returns whether those that the kernel has queued must be
    /// served, because closing the socket would reset them.
    pub(crate) async fn begin(&self) -> bool {
        match self {
            Self::Close => true,
            Self::Remove(file) => {
                file.remove().await;
                true
            }
            Self::KeptOpen => false,
        }
    }
}

/// A socket from which the calling worker accepts connections.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accept for ListeningSocket {
    type Accepted = (ClientStream, Peer);

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Accepted>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => ready!(listener.poll_accept(context))
                .map(|(stream, peer)| (ClientStream::Tcp(stream), Peer::from_ip(peer.ip()))),
            Self::Unix(listener) => ready!(listener.poll_accept(context))
                .map(|(stream, _)| (ClientStream::Unix(stream), Peer::Unix)),
        })
    }
}

impl AcceptQueued for ListeningSocket {
    fn accept_queued(&self) -> io::Result<Self::Accepted> {
        let (socket, peer) = match self {
            Self::Tcp(listener) => SockRef::from(listener).accept()?,
            Self::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        Ok(match peer.as_socket() {
            Some(peer) => {
                (ClientStream::Tcp(TcpStream::from_std(socket.into())?), Peer::from_ip(peer.ip()))
            }
            None => (ClientStream::Unix(UnixStream::from_std(socket.into())?), Peer::Unix),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::acceptor::Acceptor;

    async fn opened(address: &ListenAddress) -> Listener {
        let listeners = Listeners::bind(address, 1).unwrap().open().await.unwrap();
        listeners.into_iter().next().unwrap()
    }

    /// A task may poll the runtime 128 times before it has to yield.
    #[tokio::test]
    async fn all_queued_connections_are_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let tcp = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let unix = ListenAddress::Unix(UnixAddress { path: path.clone(), mode: 0o600 });
        let (tcp, unix) = (opened(&tcp).await, opened(&unix).await);
        let address: SocketAddr = tcp.address().parse().unwrap();
        // The runtime does not run meanwhile, so it does not learn of the connections.
        let over_tcp: Vec<_> =
            (0..300).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let over_unix: Vec<_> =
            (0..300).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
        for (listener, expected) in [(tcp, Peer::from_ip(address.ip())), (unix, Peer::Unix)] {
            let (socket, _) = listener.register().unwrap();
            let mut acceptor = Acceptor::new(socket, "test", None);
            let mut accepted = Vec::new();
            while let Some((stream, peer)) = acceptor.accept_queued().await {
                assert_eq!(peer, expected);
                accepted.push(stream);
            }
            assert_eq!(accepted.len(), 300);
        }
        drop((over_tcp, over_unix));
    }
}
