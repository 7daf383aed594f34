//! `auth.jwt.jwks_url` and `auth.jwt.jwks_ca_file`.

use crate::http::client::{DocumentUrl, Trust};
use crate::settings::Section;
use std::path::PathBuf;

/// The URL of a JWK set, and the authorities that may sign the certificate of its server.
#[derive(Debug, Clone)]
pub(in crate::auth) struct JwksUrl {
    pub(in crate::auth) url: DocumentUrl,
    pub(in crate::auth) trust: Trust,
}

impl JwksUrl {
    /// Reads both keys. `None` if there is no URL, or if a fault is recorded.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let text = section.value("jwks_url", String::new());
        let file: PathBuf = section.value("jwks_ca_file", PathBuf::new());
        let trust = if file.as_os_str().is_empty() {
            Ok(Trust::System)
        } else {
            let pem = section.file("jwks_ca_file", &file);
            pem.and_then(|pem| {
                Trust::from_pem(&pem).map_err(|message| format!("{} {message}", file.display()))
            })
        };
        let trust = trust.map_err(|message| section.fault("jwks_ca_file", message)).ok();
        if text.trim().is_empty() {
            return None;
        }
        let url = DocumentUrl::parse(&text);
        let url = url.map_err(|message| section.fault("jwks_url", message)).ok()?;
        if url.needs_loopback_name() {
            let message = "begins with http://, so it works only if its host is a loopback address";
            section.warning("jwks_url", message);
        }
        Some(Self { url, trust: trust? })
    }
}
