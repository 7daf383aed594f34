//! Socket activation: the service manager binds the socket, listens on it, and passes it to the
//! process (`LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` of systemd).
//!
//! The service manager keeps the socket, so no connection is refused while the process restarts.

use anyhow::{Context, bail};
use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// The name of the socket among several (`FileDescriptorName=` in a socket unit).
const NAME: &str = "server";

/// Takes the socket over.
pub(super) fn take() -> anyhow::Result<Socket> {
    let (mut passed, names) = passed();
    let position = position(passed.len(), &names)?;
    warn_of(&names, (0..passed.len()).filter(|other| *other != position));
    // Each call accepts the sockets of its own family, and leaves another where it is.
    let tcp = passed.take_tcp_listener(position).ok().flatten().map(TcpListener::into);
    let unix = || passed.take_unix_listener(position).ok().flatten().map(UnixListener::into);
    let socket: Socket = tcp.or_else(unix).context("is no stream socket of TCP or Unix")?;
    check(&socket)?;
    Ok(socket)
}

/// Warns of sockets that were passed although `server.listen` asks for none.
pub(super) fn warn_of_all() {
    let (passed, names) = passed();
    warn_of(&names, 0..passed.len());
}

/// The sockets that were passed, and their names.
fn passed() -> (ListenFd, String) {
    // The crate also takes sockets that are not passed to a particular process. systemd always
    // names the process.
    let is_named = std::env::var_os("LISTEN_PID").is_some();
    let passed = if is_named { ListenFd::from_env() } else { ListenFd::empty() };
    let names = std::env::var_os("LISTEN_FDNAMES").unwrap_or_default();
    (passed, names.to_string_lossy().into_owned())
}

fn warn_of(names: &str, unused: impl Iterator<Item = usize>) {
    let names: Vec<&str> = names.split(':').collect();
    let unused: Vec<&str> =
        unused.map(|position| names.get(position).copied().unwrap_or("unknown")).collect();
    if !unused.is_empty() {
        tracing::warn!(
            sockets = unused.join(", "),
            "systemd has passed sockets that server.listen does not use; connections to them get \
             no answer"
        );
    }
}

/// Which of the sockets is the one of the ingress port.
fn position(count: usize, names: &str) -> anyhow::Result<usize> {
    if count == 0 {
        bail!("no socket was passed (LISTEN_FDS): start the socket unit, not only the service");
    }
    if count == 1 {
        return Ok(0);
    }
    let mut found = names.split(':').take(count).enumerate().filter(|(_, name)| *name == NAME);
    match (found.next(), found.next()) {
        (Some((position, _)), None) => Ok(position),
        _ => bail!("{count} sockets were passed, and not exactly one has the name \"{NAME}\""),
    }
}

fn check(socket: &Socket) -> anyhow::Result<()> {
    let domain = socket.domain()?;
    if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain)
        || socket.r#type()? != Type::STREAM
    {
        bail!("is no stream socket of TCP or Unix");
    }
    if !socket.is_listener()? {
        bail!("is a connection; a socket unit needs Accept=no");
    }
    Ok(socket.set_nonblocking(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_needs_no_name_and_several_need_one() {
        for (count, names, expected) in [
            (0, "", None),
            (1, "", Some(0)),
            (1, "unknown", Some(0)),
            (2, "admin:server", Some(1)),
            (3, "server::admin", Some(0)),
            (2, "", None),
            (2, "server:server", None),
            (2, "admin:Server", None),
            // More names than sockets.
            (2, "a:b:server", None),
        ] {
            assert_eq!(position(count, names).ok(), expected, "{count} {names}");
        }
    }

    #[test]
    fn only_a_stream_socket_that_listens_is_accepted() {
        let listening: Socket = TcpListener::bind("127.0.0.1:0").unwrap().into();
        assert!(check(&listening).is_ok());
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(check(&silent).unwrap_err().to_string().contains("Accept=no"));
        let datagrams = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        assert!(check(&datagrams).unwrap_err().to_string().contains("no stream socket"));
    }
}
