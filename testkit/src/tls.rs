//! Certificates, and callers that trust them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SignatureAlgorithm,
};
use reqwest::ClientBuilder;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::scratch::Scratch;

/// An authority that signs certificates for 127.0.0.1, and the files that hold the one in use.
#[derive(Debug)]
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    files: Scratch,
}

/// A certificate and its private key, as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, then the one of the authority.
    pub chain_pem: String,
    pub key_pem: String,
    pub certificate: CertificateDer<'static>,
}

impl Identity {
    /// The same with the private key in PKCS#1 or SEC1 instead of PKCS#8, under this label.
    pub fn with_key_as(&self, label: &str) -> Self {
        let lines: String = self.key_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let body = STANDARD.encode(inner_key(&STANDARD.decode(lines).expect("base64")));
        let key_pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        Self { key_pem, ..self.clone() }
    }
}

/// The content of the last part of PKCS#8: an OCTET STRING, whose length has one to three bytes,
/// that reaches to the end.
fn inner_key(der: &[u8]) -> &[u8] {
    let begin = (4..der.len() - 4).filter(|&at| der[at] == 0x04).find_map(|at| {
        let (length, begin) = match der[at + 1] {
            0x81 => (usize::from(der[at + 2]), at + 3),
            0x82 => (usize::from(der[at + 2]) * 256 + usize::from(der[at + 3]), at + 4),
            length => (usize::from(length), at + 2),
        };
        (begin + length == der.len()).then_some(begin)
    });
    &der[begin.expect("PKCS#8")..]
}

impl Authority {
    /// An authority with a certificate in its files.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key pair");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests of hookgate");
        let certificate = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let authority = Self { certificate, issuer, files: Scratch::new("tls") };
        authority.replace(&authority.issue());
        authority.replace_file("authority.pem", &authority.certificate_pem());
        authority
    }

    /// The authority's own certificate.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn issue(&self) -> Identity {
        self.issue_for(&PKCS_ECDSA_P256_SHA256)
    }

    /// Issues a certificate with a key of this kind.
    pub fn issue_for(&self, algorithm: &'static SignatureAlgorithm) -> Identity {
        self.issue_to("127.0.0.1", algorithm)
    }

    /// Issues a certificate for a server of this name or address.
    pub fn issue_to(&self, name: &str, algorithm: &'static SignatureAlgorithm) -> Identity {
        self.sign(CertificateParams::new([name.to_owned()]).expect("a name"), algorithm)
    }

    /// Issues a certificate that expires after this time, in whole seconds.
    pub fn issue_for_time(&self, time: Duration) -> Identity {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        params.not_after = (SystemTime::now() + time).into();
        self.sign(params, &PKCS_ECDSA_P256_SHA256)
    }

    fn sign(&self, params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Identity {
        let key = KeyPair::generate_for(algorithm).expect("a key pair");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            chain_pem: certificate.pem() + &self.certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.into(),
        }
    }

    pub fn certificate_file(&self) -> String {
        self.path_of("chain.pem")
    }

    pub fn key_file(&self) -> String {
        self.path_of("key.pem")
    }

    /// A file with the authority's own certificate.
    pub fn authority_file(&self) -> String {
        self.path_of("authority.pem")
    }

    fn path_of(&self, name: &str) -> String {
        self.files.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Replaces the files, each in one step.
    pub fn replace(&self, identity: &Identity) {
        self.replace_certificate(&identity.chain_pem);
        self.replace_key(&identity.key_pem);
    }

    pub fn replace_certificate(&self, text: &str) {
        self.replace_file("chain.pem", text);
    }

    pub fn replace_key(&self, text: &str) {
        self.replace_file("key.pem", text);
    }

    pub fn replace_authority(&self, text: &str) {
        self.replace_file("authority.pem", text);
    }

    fn replace_file(&self, name: &str, text: &str) {
        let new = self.files.write("new", text);
        std::fs::rename(new, self.files.join(name)).expect("both are in the test's own directory");
    }

    /// A builder of a client library; it uses HTTP/2 if the server does.
    pub fn client(&self) -> ClientBuilder {
        let root = reqwest::Certificate::from_der(self.certificate.der()).expect("a certificate");
        reqwest::Client::builder().tls_certs_only([root])
    }

    /// Like [`Authority::client`], for a caller with a certificate of its own.
    pub fn client_as(&self, identity: &Identity) -> ClientBuilder {
        let pem = format!("{}{}", identity.key_pem, identity.chain_pem);
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).expect("a certificate");
        self.client().identity(identity)
    }

    /// A connection after its TLS handshake; ALPN offers only these protocols.
    pub async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let versions = &[&version::TLS13, &version::TLS12];
        self.connect_by(address, protocols, versions).await
    }

    /// Like [`Authority::connect`], with these versions of TLS.
    pub async fn connect_by(
        &self,
        address: SocketAddr,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.expect("hookgate listens");
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}
