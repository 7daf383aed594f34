//! Certificate authorities for the connections to Redis and MongoDB: those of the system, or those
//! in the files named by `SSL_CERT_FILE` and `SSL_CERT_DIR`. Also describes failures of TLS for
//! people.

use crate::files::file_access;
use crate::files::pem_certificates;
use crate::files::text_file;
use crate::files::tls_identity::TlsIdentity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, MutexGuard};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Stands for the path in logs when a file of the authorities hangs. The library finds the files,
/// so their paths are not known here.
const AUTHORITIES: &str = "a certificate authority file";

/// The authorities that were read last. They stay in use while their files hang or cannot be read.
static LAST: Mutex<Option<Arc<Authorities>>> = Mutex::new(None);

/// The certificate authorities, in the forms that both client libraries need.
#[derive(Debug)]
pub struct Authorities {
    /// The TLS configuration of a client that trusts them.
    pub client: ClientConfig,
    /// The same authorities, for a client that presents a certificate.
    pub roots: Roots,
    /// Their certificates in PEM.
    pub pem: String,
}

impl Authorities {
    /// Reads the authorities from their files. If the files do not answer within `timeout` or
    /// cannot be read, the ones that were read last are returned.
    pub async fn current(timeout: Duration) -> Result<Arc<Self>, String> {
        // The task continues after the timeout, so that its result is available to the next call.
        let reading = tokio::spawn(file_access::run(Path::new(AUTHORITIES), Self::read));
        let read = match tokio::time::timeout(timeout, reading).await {
            Ok(Ok(read)) => read.map_err(|error| error.to_string()).flatten(),
            Ok(Err(error)) => Err(format!("certificate authorities cannot be read: {error}")),
            Err(_) => Err(format!("{AUTHORITIES} does not answer")),
        };
        read.or_else(|reason| match last().clone() {
            Some(last) => {
                tracing::debug!(reason, "using the certificate authorities that were read last");
                Ok(last)
            }
            None => Err(reason),
        })
    }

    fn read() -> Result<Arc<Self>, String> {
        let certificates = certificates()?;
        let pem = certificates.iter().map(pem).collect();
        let roots = Roots::parsable(certificates);
        let read = Arc::new(Self { client: client(&roots, None)?, roots, pem });
        *last() = Some(Arc::clone(&read));
        Ok(read)
    }
}

fn last() -> MutexGuard<'static, Option<Arc<Authorities>>> {
    LAST.lock()
}

/// The certificates of the authorities. A file that cannot be read is not an error if another one
/// can.
fn certificates() -> Result<Vec<CertificateDer<'static>>, String> {
    file_access::enter(Path::new(AUTHORITIES));
    reject_special_file()?;
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    if let Some(error) = found.errors.first() {
        return Err(format!("certificate authorities cannot be read: {error}"));
    }
    // The files can be read, and contain no certificate.
    *last() = None;
    Err("no certificate authorities found: install ca-certificates or set SSL_CERT_FILE".to_owned())
}

/// Rejects an `SSL_CERT_FILE` that is not a regular file, because `rustls-native-certs` opens any
/// file, and would wait forever for the writer of a FIFO. In a directory it opens only regular
/// files.
fn reject_special_file() -> Result<(), String> {
    let Some(file) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) else { return Ok(()) };
    match std::fs::metadata(&file) {
        Ok(metadata) if !metadata.is_file() => {
            Err(format!("SSL_CERT_FILE {} is not a regular file", file.display()))
        }
        // For a file that cannot be inspected, the library reports the reason.
        _ => Ok(()),
    }
}

/// Checks that there are authorities. The error is the reason why there are none.
pub fn check_authorities() -> Result<(), String> {
    Authorities::read().map(|_| ())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// Certificate authorities that a client trusts.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// The system may have certificates that webpki cannot parse. They are skipped.
    fn parsable(authorities: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        Self(Arc::new(roots))
    }

    /// The authorities in a PEM file, all of which must be usable.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in pem_certificates::certificates(pem)? {
            roots.add(certificate).map_err(|_| "contains an unusable certificate".to_owned())?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// The TLS configuration of a client that trusts these authorities, and presents this identity if a
/// server asks for one.
pub fn client(roots: &Roots, identity: Option<&TlsIdentity>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be used: {error}"))?;
    let builder = builder.with_root_certificates(Arc::clone(&roots.0));
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.resolver()),
        None => builder.with_no_client_auth(),
    })
}

/// The TLS configuration of a client that trusts the authorities in a PEM file, all of which must
/// be usable.
pub fn client_trusting(pem: &[u8]) -> Result<ClientConfig, String> {
    client(&Roots::from_pem(pem)?, None)
}

/// Checks that a file contains certificates in PEM. The error is the reason why it does not.
pub fn check_certificates(file: &Path) -> Result<(), String> {
    let bytes = read(file)?;
    match pem_certificates::certificates(&bytes) {
        Ok(_) => Ok(()),
        Err(reason) => Err(format!("{} {reason}", file.display())),
    }
}

/// Checks that a file contains a certificate and its private key in PEM. The error is the reason
/// why it does not.
pub fn check_identity(file: &Path) -> Result<(), String> {
    check_certificates(file)?;
    match PrivateKeyDer::from_pem_slice(&read(file)?) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{} contains no unencrypted private key in PEM", file.display())),
    }
}

/// Reads a file.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    text_file::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// Describes the failure, if it is one of TLS.
pub fn failure_of(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(failure(&format!("{error:?}")))
}

/// Names of rustls' error variants, with a description for people. Some libraries pass on only the
/// debug format of an error, which contains these names.
const FAILURES: &[(&str, &str)] = &[
    // Alerts, by which the server refuses what the client presents.
    ("CertificateRequired", "the server requires a client certificate"),
    ("CertificateExpired", "the server says that the client certificate has expired"),
    ("CertificateRevoked", "the server says that the client certificate is revoked"),
    ("UnknownCA", "the server does not trust the authority of the client certificate"),
    // The authority has the name of one that the server trusts, and another key.
    (
        "AlertReceived(DecryptError",
        "the server does not trust the authority of the client certificate",
    ),
    ("AlertReceived(BadCertificate", "the server refuses the client certificate"),
    ("AlertReceived(CertificateUnknown", "the server refuses the client certificate"),
    ("AlertReceived(UnsupportedCertificate", "the server refuses the client certificate"),
    ("AlertReceived(AccessDenied", "the server refuses the client certificate"),
    // By TLS 1.2 a missing client certificate has no alert of its own.
    (
        "AlertReceived(HandshakeFailure",
        "the server refuses the TLS handshake: it may require a client certificate or other ciphers",
    ),
    ("UnknownIssuer", "the server's certificate is not signed by a trusted authority"),
    // The authority has the name of a trusted one, and another key.
    ("BadSignature", "the server's certificate is not signed by a trusted authority"),
    ("CaUsedAsEndEntity", "the server's certificate is that of a certificate authority"),
    ("NotValidForName", "the server's certificate is not valid for the host name in the address"),
    ("NotValidYet", "the server's certificate is not valid yet"),
    ("Expired", "the server's certificate has expired"),
    ("Revoked", "the server's certificate is revoked"),
    ("InvalidContentType", "the port does not speak TLS"),
    ("NoCertificatesPresented", "the server has no certificate"),
    ("InvalidDnsName", "no certificate can be valid for the host name in the address"),
];

/// Describes a failure, from the debug format of a rustls error.
pub fn failure(debug: &str) -> String {
    if let Some((_, description)) = FAILURES.iter().find(|(name, _)| debug.contains(name)) {
        return (*description).to_owned();
    }
    // Any other error is described by the names of its variants: the kind and the cause.
    let names = debug.split(|character: char| !character.is_alphanumeric());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).take(2).map(spaced).collect();
    format!("TLS failed: {}", names.join(", "))
}

/// Splits a camel case name into words: `HandshakeFailure` becomes `handshake failure`.
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
    fn failures_of_tls_are_described_for_people() {
        let describe = |error: rustls::Error| failure_of(&io::Error::other(error)).unwrap();
        let unknown = describe(CertificateError::UnknownIssuer.into());
        assert!(unknown.contains("not signed by a trusted authority"), "{unknown}");
        assert_eq!(
            describe(InvalidMessage::InvalidContentType.into()),
            "the port does not speak TLS"
        );
        for (alert, description) in [
            (AlertDescription::CertificateExpired, "the client certificate has expired"),
            (AlertDescription::UnknownCA, "does not trust the authority of the client"),
            (AlertDescription::CertificateRequired, "requires a client certificate"),
            (AlertDescription::DecryptError, "does not trust the authority of the client"),
            (AlertDescription::HandshakeFailure, "may require a client certificate"),
            (AlertDescription::BadCertificate, "refuses the client certificate"),
        ] {
            let described = describe(rustls::Error::AlertReceived(alert));
            assert!(described.contains(description), "{alert:?}: {described}");
        }
        assert_eq!(
            describe(CertificateError::Expired.into()),
            "the server's certificate has expired"
        );
        let alert = describe(rustls::Error::AlertReceived(AlertDescription::InternalError));
        assert_eq!(alert, "TLS failed: alert received, internal error");
        assert_eq!(failure_of(&io::Error::other("no TLS")), None);
    }
}
