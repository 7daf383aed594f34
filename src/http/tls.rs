//! TLS: the certificate and the authorities of clients, which are reloaded when their files change,
//! and the handshake.

use crate::files::file_access;
use crate::files::tls_roots::spaced;
use crate::files::watched_file::{POLL_INTERVAL, WatchedFile};
use crate::http::certificate_expiry::not_after;
pub use crate::http::tls_files::TlsSettings;
use crate::http::tls_files::{LoadedFiles, TlsFiles, UnusableFile, provider};
use crate::metrics::Metrics;
use crate::process::lifecycle::{Condition, Reporter};
use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::CertificateError;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::sign::SingleCertAndKey;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// TLS for all workers.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<CurrentTls>,
    tickets: Arc<dyn ProducesTickets>,
    metrics: Arc<Metrics>,
}

/// What new connections get.
#[derive(Debug)]
struct CurrentTls {
    loaded: LoadedFiles,
    config: Arc<ServerConfig>,
}

impl CurrentTls {
    fn new(loaded: LoadedFiles, tickets: Arc<dyn ProducesTickets>) -> anyhow::Result<Self> {
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?;
        let builder = match &loaded.clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
            None => builder.with_no_client_auth(),
        };
        let identity = SingleCertAndKey::from(Arc::clone(&loaded.identity));
        let mut config = builder.with_cert_resolver(Arc::new(identity));
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        if loaded.clients.is_some() {
            // A resumed session would not show its certificate again, which may have expired.
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            // Session tickets keep the state at the callers, so no memory grows with their number.
            config.ticketer = tickets;
        }
        Ok(Self { loaded, config: Arc::new(config) })
    }
}

impl Tls {
    pub fn new(settings: TlsSettings, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
        let TlsSettings { files, loaded } = settings;
        let tickets = Ticketer::new().context("cannot generate keys for session tickets")?;
        let current = ArcSwap::from_pointee(CurrentTls::new(loaded, Arc::clone(&tickets))?);
        let tls = Self { files, current, tickets, metrics: Arc::clone(metrics) };
        tls.measure();
        Ok(Arc::new(tls))
    }

    /// Updates the metric of when the certificate expires.
    fn measure(&self) {
        let current = self.current.load();
        let leaf = current.loaded.identity.cert.first();
        self.metrics.certificate_not_after.set(leaf.map_or(0.0, not_after));
    }

    /// Performs the handshake.
    pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.current.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Follows the files. If they become unusable, what was good last stays in use. Never ends.
    pub async fn follow_files(self: Arc<Self>, readiness: Reporter) {
        let mut files = WatchedFiles::new(&self.files);
        let mut failures = 0_u64;
        loop {
            match self.refresh(&mut files).await {
                Ok(()) => {
                    failures = 0;
                    readiness.set(Condition::Ready);
                }
                Err(UnusableFile { key: faulty, message }) => {
                    files.forget();
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

    async fn refresh(&self, watched: &mut WatchedFiles) -> Result<(), UnusableFile> {
        if !watched.have_changed().await? {
            return Ok(());
        }
        let files = self.files.clone();
        let loaded = file_access::run(&self.files.certificate, move || files.load()).await;
        let loaded = loaded.map_err(|error| self.files.hanging_file(&error))??;
        let certificates = loaded.identity.cert.len();
        let authorities = loaded.clients.as_ref().map(|clients| clients.certificates.len());
        let replaced = CurrentTls::new(loaded, Arc::clone(&self.tickets)).map_err(|error| {
            UnusableFile::new("certificate_file", &self.files.certificate, error)
        })?;
        self.current.store(Arc::new(replaced));
        self.measure();
        tracing::info!(certificates, client_authorities = authorities, "TLS certificate loaded");
        Ok(())
    }
}

/// The files of TLS, each with its key in the configuration.
struct WatchedFiles(Vec<(&'static str, WatchedFile)>);

impl WatchedFiles {
    fn new(TlsFiles { certificate, key, client_ca }: &TlsFiles) -> Self {
        let files = [
            ("certificate_file", Some(certificate)),
            ("key_file", Some(key)),
            ("client_ca_file", client_ca.as_ref()),
        ];
        let watched = |(name, path): (_, Option<&std::path::PathBuf>)| {
            Some((name, WatchedFile::new(path?.clone())))
        };
        Self(files.into_iter().filter_map(watched).collect())
    }

    async fn have_changed(&mut self) -> Result<bool, UnusableFile> {
        let mut have_changed = false;
        for (key, file) in &mut self.0 {
            let read = file.read_if_changed().await;
            let read = read.map_err(|error| UnusableFile::new(key, file.path(), error))?;
            have_changed |= read.is_some();
        }
        Ok(have_changed)
    }

    fn forget(&mut self) {
        self.0.iter_mut().for_each(|(_, file)| file.forget());
    }
}

pub(crate) fn is_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// Why the certificate of a client was refused, if that is why a handshake has failed.
pub(crate) fn refused_certificate(error: &io::Error) -> Option<String> {
    let certificate = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::NoCertificatesPresented => return Some("it sent none".to_owned()),
        rustls::Error::InvalidCertificate(error) => error,
        _ => return None,
    };
    Some(match certificate {
        // An authority with the name of a trusted one, and another key, is not trusted either.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is not signed by an authority in client_ca_file".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for clients (extended key usage)".to_owned()
        }
        other => {
            let name = format!("{other:?}");
            let name = name.split(|character: char| !character.is_alphanumeric()).next();
            spaced(name.unwrap_or_default())
        }
    })
}
