//! The files of `[server.tls]`: the certificate, its key, and the authorities of clients.

use crate::files::file_access;
use crate::files::pem_certificates;
use crate::files::text_file;
use crate::files::tls_identity::{TlsIdentity, UnusableIdentity};
use crate::settings::Section;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The section `[server.tls]`, if TLS is enabled.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    pub(super) files: TlsFiles,
    /// What the files held when the configuration was read.
    pub(super) loaded: LoadedFiles,
}

impl TlsSettings {
    /// Reads the section and the files that it names; `None` if it names none.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let certificate: PathBuf = section.value("certificate_file", PathBuf::new());
        let key: PathBuf = section.value("key_file", PathBuf::new());
        let client_ca: PathBuf = section.value("client_ca_file", PathBuf::new());
        let client_ca = Some(client_ca).filter(|path| !path.as_os_str().is_empty());
        match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) if client_ca.is_some() => {
                section.fault("client_ca_file", "needs certificate_file and key_file");
            }
            (true, true) => return None,
            (true, false) => section.fault("certificate_file", "is required if key_file is set"),
            (false, true) => section.fault("key_file", "is required if certificate_file is set"),
            (false, false) => {
                let files = TlsFiles { certificate, key, client_ca };
                match files.load() {
                    Ok(loaded) => return Some(Self { files, loaded }),
                    Err(UnusableFile { key, message }) => section.fault(key, message),
                }
            }
        }
        None
    }
}

/// The paths of the certificate, followed by its chain, of its private key, and of the authorities
/// of clients.
#[derive(Debug, Clone)]
pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// `None`: callers need no certificate.
    pub(super) client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Debug, Clone)]
pub(super) struct LoadedFiles {
    pub(super) identity: Arc<CertifiedKey>,
    /// `None`: callers need no certificate.
    pub(super) clients: Option<ClientAuthorities>,
}

/// The authorities of the certificates of clients.
#[derive(Debug, Clone)]
pub(super) struct ClientAuthorities {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

/// Why the files cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnusableFile {
    /// The configuration key of the file at fault.
    pub(super) key: &'static str,
    pub(super) message: String,
}

impl UnusableFile {
    pub(super) fn new(key: &'static str, path: &Path, message: impl fmt::Display) -> Self {
        Self { key, message: format!("{}: {message}", path.display()) }
    }
}

impl TlsFiles {
    pub(super) fn load(&self) -> Result<LoadedFiles, UnusableFile> {
        let identity = Arc::clone(self.load_identity()?.certified_key());
        let clients = self.client_ca.as_deref().map(load_authorities).transpose()?;
        Ok(LoadedFiles { identity, clients })
    }

    fn load_identity(&self) -> Result<TlsIdentity, UnusableFile> {
        let certificate_error =
            |message: String| UnusableFile::new("certificate_file", &self.certificate, message);
        let key_error = |message: String| UnusableFile::new("key_file", &self.key, message);
        let certificates = text_file::read(&self.certificate)
            .map_err(|error| certificate_error(error.to_string()))?;
        let key = text_file::read(&self.key).map_err(|error| key_error(error.to_string()))?;
        TlsIdentity::from_pem(&certificates, &key).map_err(|unusable| match unusable {
            UnusableIdentity::Certificate(message) => certificate_error(message.to_owned()),
            UnusableIdentity::Key(message) => key_error(message.to_owned()),
        })
    }
}

impl TlsFiles {
    /// Returns the error for a file access that hangs. The I/O error names the file.
    pub(super) fn hanging_file(&self, error: &io::Error) -> UnusableFile {
        let key = match file_access::unanswered(error) {
            Some(path) if path == self.key => "key_file",
            Some(path) if Some(path) == self.client_ca.as_deref() => "client_ca_file",
            _ => "certificate_file",
        };
        UnusableFile { key, message: error.to_string() }
    }
}

fn load_authorities(path: &Path) -> Result<ClientAuthorities, UnusableFile> {
    let error = |message: String| UnusableFile::new("client_ca_file", path, message);
    let text = text_file::read(path).map_err(|reason| error(reason.to_string()))?;
    let certificates = pem_certificates::certificates(&text);
    let certificates = certificates.map_err(|reason| error(reason.to_owned()))?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|_| error("has an unusable certificate".to_owned()))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    let verifier = builder.build().map_err(|reason| error(reason.to_string()))?;
    Ok(ClientAuthorities { certificates, verifier })
}

/// The cryptography provider of the process. It is named explicitly, because rustls cannot choose
/// one if several are compiled in.
pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn an_error_names_the_file_that_hangs() {
        let files = TlsFiles {
            certificate: "/a/chain.pem".into(),
            key: "/a/key.pem".into(),
            client_ca: Some("/a/ca.pem".into()),
        };
        let client_ca = files.client_ca.clone().unwrap();
        for (hanging, faulty) in [
            (&files.certificate, "certificate_file"),
            (&files.key, "key_file"),
            (&client_ca, "client_ca_file"),
        ] {
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
                UnusableFile { key: faulty, message }
            );
            release.send(()).unwrap();
            while file_access::run(&files.certificate, || ()).await.is_err() {
                tokio::time::sleep(limit).await;
            }
        }
    }
}
