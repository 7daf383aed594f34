//! A certificate with its private key, by which one side of TLS identifies itself.

use crate::files::pem_certificates;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;

/// A certificate with its chain, and its private key.
#[derive(Debug, Clone)]
pub struct TlsIdentity(Arc<CertifiedKey>);

/// Why a certificate and a key cannot be used. No part of a key is ever in a message.
#[derive(Debug, PartialEq, Eq)]
pub enum UnusableIdentity {
    Certificate(&'static str),
    Key(&'static str),
}

impl TlsIdentity {
    /// The certificate, followed by its chain, and its key, both in PEM.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, UnusableIdentity> {
        let chain = pem_certificates::certificates(certificate);
        let chain = chain.map_err(UnusableIdentity::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            UnusableIdentity::Key(
                "contains no unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC1)",
            )
        })?;
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| {
            UnusableIdentity::Key("contains a key that is not a usable RSA, ECDSA or Ed25519 key")
        })?;
        let identity = CertifiedKey::new(chain, key);
        match identity.keys_match() {
            Ok(()) => Ok(Self(Arc::new(identity))),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let fault = "contains a key that does not belong to the first certificate";
                Err(UnusableIdentity::Key(fault))
            }
            Err(_) => Err(UnusableIdentity::Certificate("contains an unusable certificate")),
        }
    }

    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.0
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)))
    }
}
