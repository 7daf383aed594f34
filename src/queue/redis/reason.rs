//! Readable messages for fred's errors. fred stores I/O and TLS errors only in their debug format,
//! which is parsed here.

use crate::files::tls_roots;
use fred::error::Error;

/// A readable message for the error.
pub(in crate::queue) fn reason(error: &Error) -> String {
    readable(error.details())
}

/// Extracts the message from
/// - `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`,
/// - `Custom { kind: Uncategorized, error: "failed to lookup address information: …" }`,
/// - `Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }`,
/// - `Kind(UnexpectedEof)`,
/// - or any other string, such as an error reply of Redis, which is returned unchanged.
fn readable(details: &str) -> String {
    if let Some(kind) = within(details, "Kind(", ")") {
        return tls_roots::spaced(kind);
    }
    if let Some(custom) = within(details, "Custom { kind: ", " }") {
        let (_, error) = custom.split_once(", error: ").unwrap_or(("", custom));
        return match error.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(message) => message.to_owned(),
            None => tls_roots::failure(error),
        };
    }
    let is_structure = ["Os { ", "Error { "].iter().any(|name| details.starts_with(name));
    match details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"')) {
        Some((message, _)) if is_structure => message.to_owned(),
        _ if is_rustls_error(details) => tls_roots::failure(details),
        _ => details.to_owned(),
    }
}

/// The part between a prefix and a suffix.
fn within<'a>(details: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    details.strip_prefix(prefix)?.strip_suffix(suffix)
}

/// Whether this is an enum variant of rustls with fields: one camel-case word, followed by a
/// bracket.
fn is_rustls_error(details: &str) -> bool {
    let name = details.split(['(', '{']).next().unwrap_or_default().trim_end();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().skip(1).any(|byte| byte.is_ascii_lowercase())
        && name.starts_with(|first: char| first.is_ascii_uppercase());
    is_name && name.len() < details.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn io_and_tls_errors_become_readable() {
        let debug = |error: io::Error| readable(&format!("{error:?}"));
        assert_eq!(debug(io::Error::from_raw_os_error(111)), "Connection refused");
        assert_eq!(debug(io::ErrorKind::UnexpectedEof.into()), "unexpected eof");
        assert_eq!(debug(io::Error::other("no such name")), "no such name");
        let eof = r#"Custom { kind: UnexpectedEof, error: "tls handshake eof" }"#;
        assert_eq!(readable(eof), "tls handshake eof");
        let unknown = "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }";
        assert!(readable(unknown).contains("trusted authority"));
        let name = readable("InvalidDnsNameError");
        assert_eq!(name, "InvalidDnsNameError");
        assert_eq!(readable("InvalidMessage(InvalidContentType)"), "the port does not speak TLS");
        for same in [
            "no answer in time",
            "WRONGPASS invalid username-password pair",
            "NOAUTH Authentication required.",
        ] {
            assert_eq!(readable(same), same);
        }
    }
}
