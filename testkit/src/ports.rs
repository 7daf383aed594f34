//! Free ports that stay reserved.
//!
//! A port that is chosen, released and bound later may be in use by then: by another test, by
//! another process, or by the local end of an outgoing connection. Here the kernel chooses the
//! port, and a socket that is bound but does not listen holds it until this process ends, also
//! between two starts of a server. A server can still listen on it, because it sets `SO_REUSEADDR`
//! and asks for this very port, as all servers of the tests do. The kernel assigns the port to no
//! other socket, neither for a bind to port 0 nor for a connection. A client of a server that is
//! down can therefore not connect to itself either.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

static HELD: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// A port on which nothing listens, for a server of the caller, or for none.
pub fn free() -> u16 {
    let (socket, port) = hold().expect("a free port");
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    port
}

/// A free port and a listener on it, for a double that accepts connections itself.
pub(crate) async fn listen() -> (u16, TcpListener) {
    let port = free();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
    (port, listener)
}

fn hold() -> io::Result<(Socket, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Binds all addresses, because some servers listen on all of them.
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    // Set after the bind, so that the kernel chooses a port that no other socket is bound to.
    socket.set_reuse_address(true)?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address.port()))
}
