//! Fetches a document over HTTP/1.1: one GET on a connection of its own, because minutes pass
//! between two fetches. It follows no redirect, and uses no proxy of the environment.

use crate::files::tls_roots::{self, Authorities};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, HOST, HeaderMap,
    USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Time for one of several addresses of a server to accept a connection.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Time for reading the authorities of the system.
const AUTHORITIES_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum bytes of the head of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The address of a document. It may contain credentials, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct DocumentUrl {
    uri: Uri,
    /// A name, or an address without brackets.
    host: String,
    port: u16,
    is_https: bool,
}

impl fmt::Debug for DocumentUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl DocumentUrl {
    /// Parses an address. The error does not contain it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.trim().parse().map_err(|_| "is not a URL")?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("does not begin with https:// or http://"),
        };
        let authority = uri.authority().ok_or("has no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user name or a password, which are not supported");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let has_name = !is_https || ServerName::try_from(host.clone()).is_ok();
        if host.is_empty() || !has_name {
            return Err("has no valid host");
        }
        let has_port = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(0) => return Err("has no valid port"),
            None if has_port => return Err("has no valid port"),
            port => port.unwrap_or(if is_https { 443 } else { 80 }),
        };
        let url = Self { uri, host, port, is_https };
        match url.host.parse::<IpAddr>() {
            Ok(address) if !url.may_connect_to(address) => Err(NOT_LOOPBACK),
            _ => Ok(url),
        }
    }

    /// Whether its host must be found at a loopback address, which is only known when it is asked.
    pub fn needs_loopback_name(&self) -> bool {
        let is_local = self.host.eq_ignore_ascii_case("localhost");
        !self.is_https && !is_local && self.host.parse::<IpAddr>().is_err()
    }

    /// Whether a server at this address may be asked. Without TLS, only this machine is.
    fn may_connect_to(&self, address: IpAddr) -> bool {
        self.is_https || address.to_canonical().is_loopback()
    }
}

const NOT_LOOPBACK: &str = "begins with http://, which is only allowed for a loopback address";

/// The authorities that may sign the certificate of a server.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those of the system.
    System,
    Authorities(Arc<ClientConfig>),
}

impl Trust {
    /// The authorities in a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        tls_roots::client_trusting(pem).map(|client| Self::Authorities(Arc::new(client)))
    }

    async fn client(&self) -> Result<Arc<ClientConfig>, String> {
        match self {
            Self::Authorities(client) => Ok(Arc::clone(client)),
            Self::System => {
                let system = Authorities::current(AUTHORITIES_TIMEOUT).await?;
                Ok(Arc::new(system.client.clone()))
            }
        }
    }
}

/// A document that was fetched.
#[derive(Debug)]
pub struct FetchedDocument {
    pub body: Bytes,
    /// How long it may be used, by its `Cache-Control`.
    pub max_age: Option<Duration>,
}

/// Fetches one document again and again. A caller that stops waiting for a fetch ends it, except
/// for its name lookup, of which at most one is in progress.
#[derive(Debug)]
pub struct Client {
    url: DocumentUrl,
    max_bytes: usize,
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Client {
    /// A document of more than `max_bytes` is an error.
    pub fn new(url: DocumentUrl, max_bytes: usize) -> Self {
        Self { url, max_bytes, lookup: None }
    }

    pub fn url(&self) -> &DocumentUrl {
        &self.url
    }

    /// Fetches the document. The error describes the failure for people, without the address.
    pub async fn fetch(&mut self, trust: &Trust) -> Result<FetchedDocument, String> {
        let addresses = self.addresses().await?;
        let stream = self.connect(addresses).await?;
        if !self.url.is_https {
            return self.exchange(stream).await;
        }
        let connector = TlsConnector::from(trust.client().await?);
        let name = ServerName::try_from(self.url.host.clone());
        let name = name.map_err(|_| "its host is not valid".to_owned())?;
        let stream = connector.connect(name, stream).await.map_err(|error| {
            tls_roots::failure_of(&error).unwrap_or_else(|| format!("TLS failed: {error}"))
        })?;
        self.exchange(stream).await
    }

    async fn addresses(&mut self) -> Result<Vec<SocketAddr>, String> {
        let DocumentUrl { host, port, .. } = &self.url;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, *port)]);
        }
        // The system's lookup cannot be cancelled, so one that hangs is awaited again instead of
        // starting another one. The result of one that has ended meanwhile may be out of date.
        self.lookup.take_if(|lookup| lookup.is_finished());
        let lookup = self.lookup.get_or_insert_with(|| {
            let name = (host.clone(), *port);
            tokio::task::spawn_blocking(move || Ok(name.to_socket_addrs()?.collect()))
        });
        let found = lookup.await;
        self.lookup = None;
        let found = found.map_err(io::Error::other).flatten();
        found.map_err(|error| format!("its host cannot be looked up: {error}"))
    }

    /// Connects to the first address that accepts.
    async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
        let may_connect = |address: &SocketAddr| self.url.may_connect_to(address.ip());
        let allowed: Vec<SocketAddr> = addresses.into_iter().filter(may_connect).collect();
        let nowhere = "its host has no address".to_owned();
        let mut failure = if self.url.is_https { nowhere } else { format!("it {NOT_LOOPBACK}") };
        let is_only = allowed.len() == 1;
        for address in allowed {
            let connecting = TcpStream::connect(address);
            // The caller limits the time of the whole fetch.
            let limit = if is_only { Duration::MAX } else { ADDRESS_TIMEOUT };
            match tokio::time::timeout(limit, connecting).await {
                Ok(Ok(stream)) => return self.checked(stream),
                Ok(Err(error)) => failure = format!("no connection: {error}"),
                Err(_) => failure = format!("no connection: {}", io::ErrorKind::TimedOut),
            }
        }
        Err(failure)
    }

    /// Returns the stream if it is connected to an allowed address.
    fn checked(&self, stream: TcpStream) -> Result<TcpStream, String> {
        let peer = stream.peer_addr().map_err(|error| format!("no connection: {error}"))?;
        if self.url.may_connect_to(peer.ip()) {
            Ok(stream)
        } else {
            Err(format!("it {NOT_LOOPBACK}"))
        }
    }

    /// Sends the request and reads the answer. The connection is closed in any case.
    async fn exchange<S>(&self, stream: S) -> Result<FetchedDocument, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| describe(&error))?;
        let answer = self.answer(sender);
        tokio::pin!(connection, answer);
        let ended = tokio::select! {
            biased;
            answer = &mut answer => return answer,
            ended = &mut connection => ended,
        };
        // What was read before the connection ended can still be taken.
        answer.await.map_err(|reason| ended.err().map_or(reason, |error| describe(&error)))
    }

    async fn answer(
        &self,
        mut sender: SendRequest<Empty<Bytes>>,
    ) -> Result<FetchedDocument, String> {
        let request = self.request().map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| describe(&error))?;
        check_head(&answer)?;
        let max_age = max_age(answer.headers());
        let body = Limited::new(answer.into_body(), self.max_bytes).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => format!("it is larger than {} bytes", self.max_bytes),
            None => describe(&*error),
        })?;
        Ok(FetchedDocument { body: body.to_bytes(), max_age })
    }

    fn request(&self) -> hyper::http::Result<Request<Empty<Bytes>>> {
        let path = self.url.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.uri.authority().map_or("", |authority| authority.as_str());
        Request::get(path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("hookgate/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json, */*")
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close")
            .body(Empty::new())
    }
}

/// Describes an error of the connection with its causes, none of which contains the address.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Checks that an answer contains the document as it is.
fn check_head<B>(answer: &Response<B>) -> Result<(), String> {
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!("the answer is {status}, and redirects are not followed"));
    }
    if status != StatusCode::OK {
        return Err(format!("the answer is {status}"));
    }
    let mut encodings = answer.headers().get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err("the answer has a Content-Encoding that was not asked for".to_owned());
    }
    Ok(())
}

/// The lifetime in `Cache-Control`. An answer that must not be cached has none left. If there are
/// several, the shortest counts.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives = fields.flat_map(|value| value.split(','));
    let lifetimes = directives.filter_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-cache" | "no-store" => Some(0),
            "max-age" => {
                let seconds = value.trim().trim_matches('"');
                let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
                // A number out of range is a very long time.
                is_number.then(|| seconds.parse().unwrap_or(u64::MAX))
            }
            _ => None,
        }
    });
    lifetimes.min().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_or_loopback() {
        for good in [
            "https://id.example.com/jwks",
            "https://id.example.com:8443/jwks?token=a%20b",
            "https://10.0.0.1/jwks",
            "https://[2001:db8::1]:8443/jwks",
            "http://127.0.0.1:8080/jwks",
            "http://127.1.2.3/jwks",
            "http://[::1]/jwks",
            "http://[::ffff:127.0.0.1]/jwks",
            // A name is looked up when it is fetched.
            "http://id.example.com/jwks",
            "HTTPS://ID.EXAMPLE.COM",
        ] {
            let url = DocumentUrl::parse(good).unwrap();
            assert_eq!(format!("{url:?}"), "[secret]", "{good}");
        }
        for bad in [
            "",
            "id.example.com",
            "/jwks",
            "ftp://id.example.com/jwks",
            "https://",
            "https:///jwks",
            "https://user:password@id.example.com/jwks",
            "https://user@id.example.com/jwks",
            "https://id.example.com:0/jwks",
            "https://id.example.com:99999/jwks",
            "https://id_example..com/jwks",
            "http://10.0.0.1/jwks",
            "http://[2001:db8::1]/jwks",
            "http://0.0.0.0/jwks",
            "https://id.example.com/a b",
        ] {
            assert!(DocumentUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_shortest_lifetime_of_cache_control_counts() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CACHE_CONTROL, hyper::header::HeaderValue::from_static(value));
            }
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["public, immutable"]), None);
        assert_eq!(of(&["public, max-age=600, s-maxage=7"]), Some(600));
        assert_eq!(of(&["Max-Age=\"60\""]), Some(60));
        assert_eq!(of(&["max-age=600", "max-age=60"]), Some(60));
        assert_eq!(of(&["max-age=600, no-store"]), Some(0));
        assert_eq!(of(&["no-cache"]), Some(0));
        assert_eq!(of(&["max-age=99999999999999999999999"]), Some(u64::MAX));
        for other in ["max-age", "max-age=", "max-age=-1", "max-age=soon", "xmax-age=1"] {
            assert_eq!(of(&[other]), None, "{other}");
        }
    }
}
