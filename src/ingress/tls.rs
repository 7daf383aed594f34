//! TLS: the certificate, which is taken up again when it changes, and the handshake.

use super::closing::LAST_CHANCE;
use crate::file_access;
use crate::lifecycle::{Condition, Reporter, Stage, Stopping};
use crate::settings::Section;
use crate::text_file;
use crate::watched_file::{LOOK_INTERVAL, WatchedFile};
use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::Instant;
pub(super) use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The section `[server.tls]`, when it is in use.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    files: Files,
    /// What they held when the configuration was read.
    identity: Arc<CertifiedKey>,
}

impl TlsSettings {
    /// Reads the section, and the files it names; `None` without any.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let certificate: PathBuf = section.value("certificate_file", PathBuf::new());
        let key: PathBuf = section.value("key_file", PathBuf::new());
        match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => return None,
            (true, false) => section.fault("certificate_file", "is needed with key_file"),
            (false, true) => section.fault("key_file", "is needed with certificate_file"),
            (false, false) => {
                let files = Files { certificate, key };
                match files.load() {
                    Ok(identity) => return Some(Self { files, identity: Arc::new(identity) }),
                    Err(Unusable { key, message }) => section.fault(key, message),
                }
            }
        }
        None
    }
}

/// Where the certificate, with the chain behind it, and its private key are.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why the files cannot be used, and which of them is to blame.
#[derive(Debug, PartialEq, Eq)]
struct Unusable {
    key: &'static str,
    message: String,
}

impl Unusable {
    fn certificate(path: &Path, message: impl std::fmt::Display) -> Self {
        Self { key: "certificate_file", message: format!("{}: {message}", path.display()) }
    }

    fn key(path: &Path, message: impl std::fmt::Display) -> Self {
        Self { key: "key_file", message: format!("{}: {message}", path.display()) }
    }
}

impl Files {
    fn load(&self) -> Result<CertifiedKey, Unusable> {
        let of_certificate = |message: String| Unusable::certificate(&self.certificate, message);
        let of_key = |message: &str| Unusable::key(&self.key, message);
        let certificates = text_file::read(&self.certificate)
            .map_err(|error| of_certificate(error.to_string()))?;
        let key = text_file::read(&self.key).map_err(|error| of_key(&error.to_string()))?;

        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&certificates)
                .collect::<Result<_, _>>()
                .map_err(|error| of_certificate(format!("is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(of_certificate("holds no certificate".to_owned()));
        }
        // What is said of a key is fixed, so that nothing of it is ever printed.
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            of_key("holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)")
        })?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| of_key("is not an RSA, ECDSA or Ed25519 key that can be used"))?;
        let identity = CertifiedKey::new(certificates, key);
        match identity.keys_match() {
            Ok(()) => Ok(identity),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(of_key("does not belong to the first certificate of certificate_file"))
            }
            Err(error) => Err(of_certificate(error.to_string())),
        }
    }
}

impl Files {
    /// Blames the file that hangs, which the error names.
    fn unanswered(&self, error: &io::Error) -> Unusable {
        let is_key = file_access::unanswered(error) == Some(self.key.as_path());
        let key = if is_key { "key_file" } else { "certificate_file" };
        Unusable { key, message: error.to_string() }
    }
}

/// What callers are shown: one certificate at a time.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS for all workers.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(settings: TlsSettings) -> anyhow::Result<Arc<Self>> {
        let current = Arc::new(Current(ArcSwap::new(settings.identity)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Callers keep their sessions themselves: nothing grows with their number.
        config.ticketer = aws_lc_rs::Ticketer::new().context("no keys for session tickets")?;
        Ok(Arc::new(Self { files: settings.files, current, config: Arc::new(config) }))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Shows what the files hold, and the last that could be used if they cannot. Never ends.
    pub async fn follow_files(self: Arc<Self>, readiness: Reporter) {
        let mut certificate = WatchedFile::new(self.files.certificate.clone());
        let mut key = WatchedFile::new(self.files.key.clone());
        let mut failures = 0_u64;
        loop {
            match self.refresh(&mut certificate, &mut key).await {
                Ok(()) => {
                    failures = 0;
                    readiness.set(Condition::Ready);
                }
                Err(Unusable { key: blamed, message }) => {
                    certificate.forget();
                    key.forget();
                    failures += 1;
                    // Two files are never replaced at one moment: what is wrong for a single look
                    // is a change under way.
                    if failures == 2 {
                        tracing::warn!(key = %format!("server.tls.{blamed}"), reason = message, "certificate cannot be used, the last good one stays");
                        let note = format!(
                            "server.tls.{blamed} cannot be used, the last good certificate stays"
                        );
                        readiness.set(Condition::Degraded(vec![note]));
                    }
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn refresh(
        &self,
        certificate: &mut WatchedFile,
        key: &mut WatchedFile,
    ) -> Result<(), Unusable> {
        let has_new_certificate = certificate
            .read_if_changed()
            .await
            .map_err(|error| Unusable::certificate(certificate.path(), error))?
            .is_some();
        let has_new_key = key
            .read_if_changed()
            .await
            .map_err(|error| Unusable::key(key.path(), error))?
            .is_some();
        if has_new_certificate || has_new_key {
            let files = self.files.clone();
            let loaded = file_access::run(certificate.path(), move || files.load()).await;
            let identity = loaded.map_err(|error| self.files.unanswered(&error))??;
            tracing::info!(certificates = identity.cert.len(), "TLS certificate read");
            self.current.0.store(Arc::new(identity));
        }
        Ok(())
    }
}

/// The handshake; it has until a time, or a last chance when the process stops.
pub(super) async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    until: Instant,
    mut stopping: Stopping,
) -> io::Result<TlsStream<TcpStream>> {
    let last_chance = async {
        stopping.reached(Stage::Draining).await;
        tokio::time::sleep(LAST_CHANCE).await;
    };
    tokio::select! {
        shaken = acceptor.accept(stream) => shaken,
        () = tokio::time::sleep_until(until) => Err(io::ErrorKind::TimedOut.into()),
        () = last_chance => Err(io::Error::other("the process stops")),
    }
}

pub(super) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// One for the whole process, which is told and not guessed.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn the_file_that_hangs_is_blamed() {
        let files = Files { certificate: "/a/chain.pem".into(), key: "/a/key.pem".into() };
        for (hanging, blamed) in
            [(&files.certificate, "certificate_file"), (&files.key, "key_file")]
        {
            let (release, held) = mpsc::channel::<()>();
            let path = hanging.clone();
            let load = move || {
                file_access::enter(&path);
                held.recv()
            };
            let limit = Duration::from_millis(50);
            let loaded = file_access::run_within(limit, &files.certificate, load).await;
            let message = format!("{} does not answer", hanging.display());
            assert_eq!(files.unanswered(&loaded.unwrap_err()), Unusable { key: blamed, message });
            release.send(()).unwrap();
            while file_access::run(&files.certificate, || ()).await.is_err() {
                tokio::time::sleep(limit).await;
            }
        }
    }
}
