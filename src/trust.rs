//! The authorities that servers' certificates are held against, for Redis and MongoDB alike: those of the system, or those in the
//! files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name in their place. Also what a failure of TLS is, in words.

use crate::file_access;
use crate::text_file;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The name that logs use when a file of the authorities hangs: the library finds the files, so their paths are not known here.
const AUTHORITIES: &str = "a file of the authorities for TLS";

/// The authorities as they were read last. They count while their files hang or cannot be read.
static LAST: Mutex<Option<Arc<Authorities>>> = Mutex::new(None);

/// The authorities, for both libraries.
#[derive(Debug)]
pub struct Authorities {
    /// For a client of servers that they vouch for.
    pub client: ClientConfig,
    pub pem: String,
}

impl Authorities {
    /// As their files have them now, or as they were read last if the files do not answer in time or cannot be read.
    pub async fn current(patience: Duration) -> Result<Arc<Self>, String> {
        // It goes on when nobody waits for it any more, and is known the next time.
        let reading = tokio::spawn(file_access::run(Path::new(AUTHORITIES), Self::read));
        let read = match tokio::time::timeout(patience, reading).await {
            Ok(Ok(read)) => read.map_err(|error| error.to_string()).flatten(),
            Ok(Err(error)) => Err(format!("the authorities for TLS cannot be read: {error}")),
            Err(_) => Err(format!("{AUTHORITIES} does not answer")),
        };
        read.or_else(|reason| match last().clone() {
            Some(last) => {
                tracing::debug!(reason, "the last good authorities for TLS are used");
                Ok(last)
            }
            None => Err(reason),
        })
    }

    fn read() -> Result<Arc<Self>, String> {
        let certificates = certificates()?;
        let pem = certificates.iter().map(pem).collect();
        let read = Arc::new(Self { client: client(certificates)?, pem });
        *last() = Some(Arc::clone(&read));
        Ok(read)
    }
}

fn last() -> MutexGuard<'static, Option<Arc<Authorities>>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The certificates of the authorities. A file that cannot be read is no fault as long as others can.
fn certificates() -> Result<Vec<CertificateDer<'static>>, String> {
    file_access::enter(Path::new(AUTHORITIES));
    refuse_pipe()?;
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    if let Some(error) = found.errors.first() {
        return Err(format!("the authorities for TLS cannot be read: {error}"));
    }
    // They can be read, and there are none.
    *last() = None;
    Err("no authorities for TLS are found: install ca-certificates, or name a file in SSL_CERT_FILE".to_owned())
}

/// The library opens this file whatever it is, and would wait for ever for somebody who writes to a FIFO. In a directory it opens
/// regular files alone.
fn refuse_pipe() -> Result<(), String> {
    let Some(file) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) else { return Ok(()) };
    match std::fs::metadata(&file) {
        Ok(metadata) if !metadata.is_file() => {
            Err(format!("SSL_CERT_FILE {} is not a regular file", file.display()))
        }
        // The library says why.
        _ => Ok(()),
    }
}

/// Whether there are any authorities, and why not.
pub fn check_authorities() -> Result<(), String> {
    Authorities::read().map(|_| ())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn client(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // The system may have one that is too odd to be read; the others count.
    roots.add_parsable_certificates(authorities);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be used: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Whether a file holds certificates in PEM, and why not.
pub fn check_certificates(file: &Path) -> Result<(), String> {
    let bytes = read(file)?;
    match CertificateDer::pem_slice_iter(&bytes).next() {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("{} holds no certificate in PEM", file.display())),
    }
}

/// Whether a file holds a certificate and its private key in PEM, and why not.
pub fn check_identity(file: &Path) -> Result<(), String> {
    check_certificates(file)?;
    match PrivateKeyDer::from_pem_slice(&read(file)?) {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(format!("{} holds no private key in PEM that is not encrypted", file.display()))
        }
    }
}

/// What is in a file.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    text_file::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// What has failed, if it was TLS.
pub fn failure_of(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(failure(&format!("{error:?}")))
}

/// What rustls writes of a failure for programmers, which is all that some libraries pass on, and what it says to people.
const FAILURES: &[(&str, &str)] = &[
    ("UnknownIssuer", "the certificate of the server is not signed by a trusted authority"),
    // Of an authority that has the name of a trusted one, and another key.
    ("BadSignature", "the certificate of the server is not signed by a trusted authority"),
    ("CaUsedAsEndEntity", "the certificate of the server is that of an authority"),
    ("NotValidForName", "the certificate of the server is not for the name in the address"),
    ("NotValidYet", "the certificate of the server is not valid yet"),
    ("Expired", "the certificate of the server has expired"),
    ("Revoked", "the certificate of the server is revoked"),
    ("InvalidContentType", "the port does not speak TLS"),
    ("CertificateRequired", "the server asks for a client certificate"),
    ("UnknownCA", "the server does not trust the authority of the client certificate"),
    ("NoCertificatesPresented", "the server has no certificate"),
    ("InvalidDnsName", "the name in the address is not one that a certificate can be for"),
];

/// What has failed, by what rustls writes of it for programmers.
pub fn failure(debug: &str) -> String {
    if let Some((_, words)) = FAILURES.iter().find(|(name, _)| debug.contains(name)) {
        return (*words).to_owned();
    }
    // What is left are names of variants, the kind and what it was.
    let names = debug.split(|character: char| !character.is_alphanumeric());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).take(2).map(spaced).collect();
    format!("TLS has failed: {}", names.join(", "))
}

/// `HandshakeFailure` as `handshake failure`.
pub fn spaced(name: &str) -> String {
    let mut words = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError, InvalidMessage};

    #[test]
    fn failures_are_told_in_words() {
        let words = |error: rustls::Error| failure_of(&io::Error::other(error)).unwrap();
        let unknown = words(CertificateError::UnknownIssuer.into());
        assert!(unknown.contains("not signed by a trusted authority"), "{unknown}");
        assert_eq!(words(InvalidMessage::InvalidContentType.into()), "the port does not speak TLS");
        let alert = words(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure));
        assert_eq!(alert, "TLS has failed: alert received, handshake failure");
        assert_eq!(failure_of(&io::Error::other("no TLS")), None);
    }
}
