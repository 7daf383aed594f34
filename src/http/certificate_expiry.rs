//! When a certificate expires.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The end of a certificate's validity in seconds since 1970; 0 if it cannot be read.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> f64 {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map_or(0.0, |(_, certificate)| certificate.validity().not_after.timestamp() as f64)
}
