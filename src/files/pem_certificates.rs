//! The certificates in a PEM file.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The certificates in a PEM file, in their order, at least one. The error is the reason why they
/// cannot be used, and never repeats the file.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| "is not PEM")?;
    if certificates.is_empty() { Err("contains no certificate in PEM") } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn other_text_and_other_parts_are_passed_over_but_no_certificate_that_is_cut_off() {
        let key = EMPTY.replace("CERTIFICATE", "PRIVATE KEY");
        let count = |text: &str| certificates(text.as_bytes()).map(|found| found.len());
        assert_eq!(count(&format!("text\n{EMPTY}{key}{EMPTY}")), Ok(2));
        for text in ["", "text", &key] {
            assert_eq!(count(text), Err("contains no certificate in PEM"));
        }
        let cut_off = format!("{EMPTY}-----BEGIN CERTIFICATE-----\nAAAA\n");
        assert_eq!(count(&cut_off), Err("is not PEM"));
        assert_eq!(count(&EMPTY.replace("AAAA", "A")), Err("is not PEM"));
    }
}
