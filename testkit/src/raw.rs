//! Requests as bytes on a plain socket, for shapes that a client library would not send.

use std::net::SocketAddr;

use reqwest::Version;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::confidential;
use super::http::Reply;

/// Sends bytes over a connection of their own and reads one answer.
pub async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut connection = Connection::open(address).await;
    connection.send(request).await;
    connection.reply().await.expect("an answer before the connection closes")
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        TcpStream::connect(address).await.expect("hookgate listens").into()
    }

    /// Opens a connection whose receive buffer is so small that an unread answer stays almost
    /// entirely on the other side.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket may have a small buffer");
        let stream = socket.connect(address).await.expect("hookgate listens");
        Self { stream, received: Vec::new() }
    }

    /// Writes; if the other side has closed, the next read shows it.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await;
    }

    /// Writes; returns whether the other side may still be open.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        confidential::request(bytes.as_ref());
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Closes our half, like a caller that sends nothing more.
    pub async fn finish(&mut self) {
        // Fails on a connection that the other side has already reset.
        let _ = self.stream.shutdown().await;
    }

    /// Closes with a reset, as the end of a process or a machine does.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("an open connection");
    }

    /// Reads one answer to a request other than HEAD; `None` if the connection closes first.
    pub async fn reply(&mut self) -> Option<Reply> {
        self.read_reply(false).await
    }

    /// Reads one answer to a HEAD request. It has no body, whatever its length says.
    pub async fn head_reply(&mut self) -> Option<Reply> {
        self.read_reply(true).await
    }

    /// Waits for the other side to close; returns what came before.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.received)
    }

    async fn read_reply(&mut self, to_head: bool) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let (status, headers) = parse_head(std::str::from_utf8(&head).expect("a head in UTF-8"));
        let length =
            headers.get("content-length").map(|value| value.to_str().expect("digits").parse());
        let body = match length {
            _ if to_head || status == 204 || status < 200 => Vec::new(),
            Some(length) => self.exactly(length.expect("a length")).await,
            None => self.closed().await,
        };
        Some(Reply { status, version: Version::HTTP_11, headers, body })
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.read_more().await, "the connection closed in the middle of a body");
        }
        self.received.drain(..length).collect()
    }

    async fn read_more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.received).await, Ok(read) if read > 0)
    }
}

fn parse_head(head: &str) -> (u16, HeaderMap) {
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("a status line");
    let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
    }
    (status.unwrap_or_else(|| panic!("not a status line: {status_line}")), headers)
}
