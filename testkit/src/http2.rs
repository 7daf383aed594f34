//! HTTP/2 over TLS: streams whose steps a test controls, and frames that no client library would
//! send.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::{Method, Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::http::{PATH, Reply};
use super::tls::Authority;

/// A connection of crate h2.
#[derive(Debug)]
pub struct Streams {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A stream whose answer has not been read.
#[derive(Debug)]
pub struct Stream {
    pub body: SendStream<Bytes>,
    response: ResponseFuture,
}

impl Streams {
    pub async fn open(authority: &Authority, address: SocketAddr) -> Self {
        let stream = authority.connect(address, &["h2"]).await.expect("a handshake");
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Begins a webhook whose body follows later.
    pub async fn begin(&mut self) -> Result<Stream, h2::Error> {
        self.begin_with(&[("authorization", "Bearer key_a")]).await
    }

    /// Like [`Streams::begin`], with these headers.
    pub async fn begin_with(&mut self, headers: &[(&str, &str)]) -> Result<Stream, h2::Error> {
        let mut request =
            Request::builder().method(Method::POST).uri(format!("https://127.0.0.1{PATH}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut sender = self.sender.clone().ready().await?;
        let (response, body) = sender.send_request(request, false)?;
        Ok(Stream { body, response })
    }

    /// Sends a whole webhook.
    pub async fn webhook(&mut self, webhook: &str) -> Result<Reply, h2::Error> {
        let mut stream = self.begin().await?;
        stream.finish(&format!("{{\"webhookId\":\"{webhook}\"}}"))?;
        stream.reply().await
    }

    /// How the connection ended, once it has.
    pub async fn closed(self) -> Result<(), h2::Error> {
        drop(self.sender);
        let ended = self.connection.await.expect("the task does not panic");
        // Bytes that we send after the end may be answered with a reset.
        ended.or_else(|error| if error.is_io() { Ok(()) } else { Err(error) })
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_finished()
    }
}

impl Stream {
    /// Sends the rest of the body and ends the stream.
    pub fn finish(&mut self, body: &str) -> Result<(), h2::Error> {
        self.body.send_data(Bytes::copy_from_slice(body.as_bytes()), true)
    }

    pub async fn reply(self) -> Result<Reply, h2::Error> {
        let (head, body) = self.response.await?.into_parts();
        let body = collect(body).await?;
        let (status, headers) = (head.status.as_u16(), head.headers);
        Ok(Reply { status, version: Version::HTTP_2, headers, body })
    }
}

async fn collect(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut collected = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        collected.extend_from_slice(&data);
    }
    Ok(collected)
}

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// Error codes.
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// The head of a webhook with these further headers.
    pub fn head(flags: u8, stream: u32, headers: &[(&str, &str)]) -> Self {
        let own = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "h"),
            (":path", PATH),
            ("authorization", "Bearer key_a"),
        ];
        let block = [block(&own), block(headers)].concat();
        Self::new(kind::HEADERS, flags, stream, block)
    }

    pub fn reset(stream: u32) -> Self {
        // The error code is CANCEL.
        Self::new(kind::RST_STREAM, 0, stream, [0, 0, 0, 8])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The error code of a GOAWAY or `RST_STREAM`.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Headers in HPACK: literals without indexing, names included.
pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An HPACK integer with a prefix of seven bits.
fn put_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).expect("below 127"));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// A connection on which the test writes frames. All frames that come back are recorded.
#[derive(Debug)]
pub struct Frames {
    writer: WriteHalf<TlsStream<TcpStream>>,
    received: Arc<Mutex<Vec<Frame>>>,
    reading: JoinHandle<()>,
}

impl Frames {
    /// Completes the TLS handshake and sends the HTTP/2 preface.
    pub async fn open(authority: &Authority, address: SocketAddr) -> Self {
        let stream = authority.connect(address, &["h2"]).await.expect("a handshake");
        let (reader, writer) = tokio::io::split(stream);
        let received = Arc::<Mutex<Vec<Frame>>>::default();
        let reading = tokio::spawn(read(reader, Arc::clone(&received)));
        let mut frames = Self { writer, received, reading };
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.send(&[Frame::new(kind::SETTINGS, 0, 0, [])]).await;
        frames
    }

    /// Writes frames together; false if the other side has closed.
    pub async fn send(&mut self, frames: &[Frame]) -> bool {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.write(&bytes).await
    }

    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok()
    }

    /// Number of received frames of a kind for which `is_so` holds.
    pub fn count(&self, kind: u8, is_so: impl Fn(&Frame) -> bool) -> usize {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().filter(|frame| frame.kind == kind && is_so(frame)).count()
    }

    /// Closes the connection without a GOAWAY.
    pub fn close(self) {
        self.reading.abort();
    }

    /// Waits for the other side to close; returns the error codes of its GOAWAYs.
    pub async fn closed(self) -> Vec<u32> {
        self.reading.await.expect("the task does not panic");
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().filter(|frame| frame.kind == kind::GOAWAY).map(Frame::code).collect()
    }
}

async fn read(mut reader: ReadHalf<TlsStream<TcpStream>>, received: Arc<Mutex<Vec<Frame>>>) {
    let mut head = [0; 9];
    while reader.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a frame")];
        if reader.read_exact(&mut payload).await.is_err() {
            return;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame::new(head[3], head[4], stream, payload);
        received.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
    }
}
