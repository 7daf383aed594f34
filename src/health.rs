//! `hookgate health`: whether the Hookgate that runs here lives. For containers, which have no curl.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For each step; the answer comes from memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// How an answer begins that says yes.
const YES: &str = "HTTP/1.1 200 ";

/// Asks `/livez` of the admin port that listens on this address.
pub fn ask(listen: SocketAddr) -> anyhow::Result<()> {
    let address = reachable(listen);
    let beginning =
        beginning_of_answer(address).with_context(|| format!("http://{address}/livez"))?;
    if beginning != YES.as_bytes() {
        bail!("http://{address}/livez answers {}", String::from_utf8_lossy(&beginning));
    }
    Ok(())
}

/// "All addresses" is not one that can be called.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn beginning_of_answer(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(YES.len() as u64).read_to_end(&mut answer)?;
    Ok(answer)
}
