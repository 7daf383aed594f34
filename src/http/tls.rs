//! TLS: the certificate, which is reloaded when its files change, and the handshake.

use crate::files::file_access;
use crate::files::text_file;
use crate::files::watched_file::{POLL_INTERVAL, WatchedFile};
use crate::http::closing::FIRST_BYTE_GRACE;
use crate::process::lifecycle::{Condition, Reporter, Stage, Stopping};
use crate::settings::Section;
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
pub(crate) use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The section `[server.tls]`, if TLS is enabled.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    files: CertificateFiles,
    /// The certificate and key in the files when the configuration was read.
    identity: Arc<CertifiedKey>,
}

impl TlsSettings {
    /// Reads the section and the files that it names; `None` if it names none.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let certificate: PathBuf = section.value("certificate_file", PathBuf::new());
        let key: PathBuf = section.value("key_file", PathBuf::new());
        match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => return None,
            (true, false) => section.fault("certificate_file", "is required if key_file is set"),
            (false, true) => section.fault("key_file", "is required if certificate_file is set"),
            (false, false) => {
                let files = CertificateFiles { certificate, key };
                match files.load() {
                    Ok(identity) => return Some(Self { files, identity: Arc::new(identity) }),
                    Err(UnusableCertificate { key, message }) => section.fault(key, message),
                }
            }
        }
        None
    }
}

/// The paths of the certificate, followed by its chain, and of its private key.
#[derive(Debug, Clone)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, PartialEq, Eq)]
struct UnusableCertificate {
    /// The configuration key of the file at fault.
    key: &'static str,
    message: String,
}

impl UnusableCertificate {
    fn certificate(path: &Path, message: impl std::fmt::Display) -> Self {
        Self { key: "certificate_file", message: format!("{}: {message}", path.display()) }
    }

    fn key(path: &Path, message: impl std::fmt::Display) -> Self {
        Self { key: "key_file", message: format!("{}: {message}", path.display()) }
    }
}

impl CertificateFiles {
    fn load(&self) -> Result<CertifiedKey, UnusableCertificate> {
        let certificate_error =
            |message: String| UnusableCertificate::certificate(&self.certificate, message);
        let key_error = |message: &str| UnusableCertificate::key(&self.key, message);
        let certificates = text_file::read(&self.certificate)
            .map_err(|error| certificate_error(error.to_string()))?;
        let key = text_file::read(&self.key).map_err(|error| key_error(&error.to_string()))?;

        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&certificates)
                .collect::<Result<_, _>>()
                .map_err(|error| certificate_error(format!("is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(certificate_error("has no certificate".to_owned()));
        }
        // The messages about a key are fixed strings, so no part of it is ever printed.
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            key_error("has no unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC1)")
        })?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| key_error("is not a usable RSA, ECDSA or Ed25519 key"))?;
        let identity = CertifiedKey::new(certificates, key);
        match identity.keys_match() {
            Ok(()) => Ok(identity),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(key_error("does not match the first certificate in certificate_file"))
            }
            Err(error) => Err(certificate_error(error.to_string())),
        }
    }
}

impl CertificateFiles {
    /// Returns the error for a file access that hangs. The I/O error names the file.
    fn hanging_file(&self, error: &io::Error) -> UnusableCertificate {
        let is_key = file_access::unanswered(error) == Some(self.key.as_path());
        let key = if is_key { "key_file" } else { "certificate_file" };
        UnusableCertificate { key, message: error.to_string() }
    }
}

/// The certificate that callers get.
#[derive(Debug)]
struct CurrentCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS for all workers.
#[derive(Debug)]
pub struct Tls {
    files: CertificateFiles,
    current: Arc<CurrentCertificate>,
    config: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(settings: TlsSettings) -> anyhow::Result<Arc<Self>> {
        let current = Arc::new(CurrentCertificate(ArcSwap::new(settings.identity)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<CurrentCertificate>::clone(&current));
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Session tickets keep the state at the callers, so no memory grows with their number.
        config.ticketer =
            aws_lc_rs::Ticketer::new().context("cannot generate keys for session tickets")?;
        Ok(Arc::new(Self { files: settings.files, current, config: Arc::new(config) }))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Follows the files. If they become unusable, the last good certificate stays in use. Never
    /// ends.
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
                Err(UnusableCertificate { key: faulty, message }) => {
                    certificate.forget();
                    key.forget();
                    failures += 1;
                    // Two files cannot be replaced at one moment, so a single failure may be a
                    // replacement in progress.
                    if failures == 2 {
                        tracing::warn!(
                            key = %format!("server.tls.{faulty}"),
                            reason = message,
                            "TLS certificate is unusable; keeping the last good one"
                        );
                        let note = format!(
                            "server.tls.{faulty} is unusable; keeping the last good certificate"
                        );
                        readiness.set(Condition::Degraded(vec![note]));
                    }
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn refresh(
        &self,
        certificate: &mut WatchedFile,
        key: &mut WatchedFile,
    ) -> Result<(), UnusableCertificate> {
        let has_new_certificate = certificate
            .read_if_changed()
            .await
            .map_err(|error| UnusableCertificate::certificate(certificate.path(), error))?
            .is_some();
        let has_new_key = key
            .read_if_changed()
            .await
            .map_err(|error| UnusableCertificate::key(key.path(), error))?
            .is_some();
        if has_new_certificate || has_new_key {
            let files = self.files.clone();
            let loaded = file_access::run(certificate.path(), move || files.load()).await;
            let identity = loaded.map_err(|error| self.files.hanging_file(&error))??;
            tracing::info!(certificates = identity.cert.len(), "TLS certificate loaded");
            self.current.0.store(Arc::new(identity));
        }
        Ok(())
    }
}

/// Performs the handshake, until the deadline `until` or until [`FIRST_BYTE_GRACE`] after the process
/// begins to drain.
pub(crate) async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    until: Instant,
    mut stopping: Stopping,
) -> io::Result<TlsStream<TcpStream>> {
    let last_chance = async {
        stopping.reached(Stage::Draining).await;
        tokio::time::sleep(FIRST_BYTE_GRACE).await;
    };
    tokio::select! {
        handshake = acceptor.accept(stream) => handshake,
        () = tokio::time::sleep_until(until) => Err(io::ErrorKind::TimedOut.into()),
        () = last_chance => Err(io::Error::other("the process is stopping")),
    }
}

pub(crate) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// The cryptography provider of the process. It is named explicitly, because rustls cannot choose
/// one if several are compiled in.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn an_error_names_the_file_that_hangs() {
        let files =
            CertificateFiles { certificate: "/a/chain.pem".into(), key: "/a/key.pem".into() };
        for (hanging, faulty) in
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
            assert_eq!(
                files.hanging_file(&loaded.unwrap_err()),
                UnusableCertificate { key: faulty, message }
            );
            release.send(()).unwrap();
            while file_access::run(&files.certificate, || ()).await.is_err() {
                tokio::time::sleep(limit).await;
            }
        }
    }
}
