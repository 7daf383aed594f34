//! What an error of the library is, for people. It writes errors of the system and of TLS as they are shown to programmers, and
//! keeps nothing else of them.

use crate::trust;
use fred::error::Error;

/// Says what has gone wrong.
pub(super) fn reason(error: &Error) -> String {
    in_words(error.details())
}

/// What stands in
/// - `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`,
/// - `Custom { kind: Uncategorized, error: "failed to lookup address information: Name or service not known" }`,
/// - `Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }`,
/// - `Kind(UnexpectedEof)`,
/// - or any other text, such as the words of Redis.
fn in_words(details: &str) -> String {
    if let Some(kind) = within(details, "Kind(", ")") {
        return trust::spaced(kind);
    }
    if let Some(custom) = within(details, "Custom { kind: ", " }") {
        let (_, error) = custom.split_once(", error: ").unwrap_or(("", custom));
        return match error.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => text.to_owned(),
            None => trust::failure(error),
        };
    }
    let is_structure = ["Os { ", "Error { "].iter().any(|name| details.starts_with(name));
    match details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"')) {
        Some((message, _)) if is_structure => message.to_owned(),
        _ if is_of_rustls(details) => trust::failure(details),
        _ => details.to_owned(),
    }
}

fn within<'a>(details: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    details.strip_prefix(begin)?.strip_suffix(end)
}

/// Whether it begins as the name of a variant does: one word, with what is in it in brackets.
fn is_of_rustls(details: &str) -> bool {
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
    fn errors_of_the_system_and_of_tls_are_told_in_words() {
        let debug = |error: io::Error| in_words(&format!("{error:?}"));
        assert_eq!(debug(io::Error::from_raw_os_error(111)), "Connection refused");
        assert_eq!(debug(io::ErrorKind::UnexpectedEof.into()), "unexpected eof");
        assert_eq!(debug(io::Error::other("no such name")), "no such name");
        let eof = r#"Custom { kind: UnexpectedEof, error: "tls handshake eof" }"#;
        assert_eq!(in_words(eof), "tls handshake eof");
        let unknown = "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }";
        assert!(in_words(unknown).contains("trusted authority"));
        let name = in_words("InvalidDnsNameError");
        assert_eq!(name, "InvalidDnsNameError");
        assert_eq!(in_words("InvalidMessage(InvalidContentType)"), "the port does not speak TLS");
        for same in [
            "no answer in time",
            "WRONGPASS invalid username-password pair",
            "NOAUTH Authentication required.",
        ] {
            assert_eq!(in_words(same), same);
        }
    }
}
