//! A server that publishes a JWK set, or answers in a way that a client must refuse.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::confidential;
use super::tls::Identity;

/// A part of every address, which no log may contain.
const TOKEN: &str = "token-of-the-issuer-0123456789";

/// The answer to a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These bytes; then the connection is closed.
    Bytes(Vec<u8>),
    /// These bytes in equal parts, spread over this time; then the connection is closed.
    Trickle(Vec<u8>, Duration),
    /// The head of a body without an end, and then more of it forever.
    Endless,
    /// No answer, while the connection stays open.
    Silence,
}

impl Answer {
    /// A set with these fields in its head, each with its line break.
    pub fn with_head(status: &str, fields: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n");
        Self::Bytes([head, body.to_owned()].concat().into_bytes())
    }

    /// A set.
    pub fn set(json: &str) -> Self {
        Self::with_head("200 OK", "Content-Type: application/json\r\n", json)
    }

    /// A set that arrives in many parts.
    pub fn trickle(json: &str, time: Duration) -> Self {
        let length = json.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{json}");
        Self::Trickle(answer.into_bytes(), time)
    }
}

/// A request that has arrived.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub at: Instant,
    pub head: String,
}

#[derive(Debug, Default)]
struct State {
    /// Answers by path.
    answers: HashMap<String, Answer>,
    fetches: Vec<Fetch>,
}

/// The number of parts of [`Answer::Trickle`].
const PARTS: u32 = 20;

/// A server of documents on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct KeyServer {
    port: u16,
    state: Arc<Mutex<State>>,
    tls: Option<Arc<ServerConfig>>,
    accepting: Option<JoinHandle<()>>,
}

impl KeyServer {
    /// A server without TLS that answers `/jwks`.
    pub async fn start(answer: Answer) -> Self {
        Self::start_with(answer, None).await
    }

    /// Like [`KeyServer::start`], over TLS.
    pub async fn start_tls(answer: Answer, identity: &Identity) -> Self {
        let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.expect("a key of the certificate"));
        Self::start_with(answer, Some(config)).await
    }

    async fn start_with(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        confidential::credential(TOKEN);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound listener").port();
        let mut server = Self { port, state: Arc::default(), tls, accepting: None };
        server.answer("/jwks", answer);
        server.accept(listener);
        server
    }

    fn accept(&mut self, listener: TcpListener) {
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state), tls.clone()));
            }
        }));
    }

    /// Answers a path from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        lock(&self.state).answers.insert(path.to_owned(), answer);
    }

    /// Publishes another set at `/jwks`.
    pub fn publish(&self, json: &str) {
        self.answer("/jwks", Answer::set(json));
    }

    /// The address of the set.
    pub fn url(&self) -> String {
        self.url_of("127.0.0.1", "/jwks")
    }

    /// The address of a path, at a host that leads here.
    pub fn url_of(&self, host: &str, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}?token={TOKEN}", self.port)
    }

    /// The requests that have arrived.
    pub fn fetches(&self) -> Vec<Fetch> {
        lock(&self.state).fetches.clone()
    }

    /// Refuses connections from now on.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Accepts connections again, on the same port.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("its own port");
        self.accept(listener);
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test panics with the lock")
}

/// Serves one connection. A client that goes away is no fault of the server.
async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, tls: Option<Arc<ServerConfig>>) {
    let _ = match tls {
        None => answer(stream, &state).await,
        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => answer(stream, &state).await,
            Err(error) => Err(error),
        },
    };
}

async fn answer<S>(mut stream: S, state: &Mutex<State>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let answer = {
        let mut state = lock(state);
        state.fetches.push(Fetch { at: Instant::now(), head });
        state.answers.get(&path).cloned()
    };
    match answer.unwrap_or_else(|| Answer::with_head("404 Not Found", "", "")) {
        Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
        Answer::Trickle(bytes, time) => trickle(&mut stream, &bytes, time).await?,
        Answer::Silence => tokio::time::sleep(Duration::from_secs(3600)).await,
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[").await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
    }
    stream.shutdown().await
}

async fn trickle(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    time: Duration,
) -> io::Result<()> {
    for part in bytes.chunks(bytes.len().div_ceil(PARTS as usize)) {
        tokio::time::sleep(time / PARTS).await;
        stream.write_all(part).await?;
        stream.flush().await?;
    }
    Ok(())
}
