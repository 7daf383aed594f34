//! `hookgate health`: checks whether the local Hookgate process is alive. It is for container
//! images, which have no curl.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The time limit of each step. The answer needs no I/O, so it comes quickly.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The beginning of a positive answer.
const STATUS_LINE: &str = "HTTP/1.1 200 ";

/// Requests `/livez` from the admin port at this address.
pub fn ask(listen: SocketAddr) -> anyhow::Result<()> {
    let address = reachable(listen);
    let beginning = answer_beginning(address).with_context(|| format!("http://{address}/livez"))?;
    if beginning != STATUS_LINE.as_bytes() {
        bail!("http://{address}/livez answers {}", String::from_utf8_lossy(&beginning));
    }
    Ok(())
}

/// Replaces the unspecified address by localhost: a client cannot connect to "all addresses".
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn answer_beginning(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(STATUS_LINE.len() as u64).read_to_end(&mut answer)?;
    Ok(answer)
}
