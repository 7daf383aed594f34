//! How an address is written when it is signed.

use std::borrow::Cow;

/// A way to write the address of a request. Providers and their libraries differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UrlForm {
    AsSent,
    /// With the port, though it is the scheme's own.
    WithPort,
    WithoutPort,
    /// With some characters decoded that [`DECODED`] lists.
    Decoded,
}

pub(super) const URL_FORMS: [(&str, UrlForm); 4] = [
    ("asSent", UrlForm::AsSent),
    ("withPort", UrlForm::WithPort),
    ("withoutPort", UrlForm::WithoutPort),
    ("decoded", UrlForm::Decoded),
];

/// The characters that are decoded, those that RFC 3986 reserves apart from `&`, `=`, `+`, `#` and
/// brackets.
const DECODED: &[u8] = b":/?@!$'()*,;";

/// The bytes by which an address can become longer: those of a port.
pub(super) const LONGER_BY: usize = ":443".len();

impl UrlForm {
    /// Writes an address in this way.
    pub(super) fn apply(self, url: &str) -> Cow<'_, str> {
        match self {
            Self::AsSent => Cow::Borrowed(url),
            Self::Decoded => decoded(url),
            Self::WithPort => with_port(url).map_or(Cow::Borrowed(url), Cow::Owned),
            Self::WithoutPort => without_port(url).map_or(Cow::Borrowed(url), Cow::Owned),
        }
    }
}

/// `None` if the address has a port.
fn with_port(url: &str) -> Option<String> {
    let parts = Parts::parse(url).filter(|parts| parts.port.is_none())?;
    let port = match parts.scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some(format!("{}://{}:{port}{}", parts.scheme, parts.host, parts.rest))
}

/// `None` if the address has no port.
fn without_port(url: &str) -> Option<String> {
    let parts = Parts::parse(url).filter(|parts| parts.port.is_some())?;
    Some(format!("{}://{}{}", parts.scheme, parts.host, parts.rest))
}

struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    /// The path and the query.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at_checked(end)?;
        // The colons of an address of IPv6 are within brackets.
        let colon = authority
            .rfind(':')
            .filter(|colon| !authority.get(*colon..).is_some_and(|end| end.contains(']')));
        let (host, port) = match colon {
            Some(colon) => (authority.get(..colon)?, authority.get(colon + 1..)),
            None => (authority, None),
        };
        Some(Self { scheme, host, port, rest })
    }
}

fn decoded(url: &str) -> Cow<'_, str> {
    let mut pieces = url.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let character = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(character) = character.filter(|character| DECODED.contains(character)) {
            text.push(char::from(character));
            text.push_str(piece.get(2..).unwrap_or_default());
        } else {
            text.push('%');
            text.push_str(piece);
        }
    }
    if text.len() == url.len() { Cow::Borrowed(url) } else { Cow::Owned(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_or_removed() {
        for (url, with, without) in [
            ("https://a.example/b?c:1", "https://a.example:443/b?c:1", "https://a.example/b?c:1"),
            ("http://a.example", "http://a.example:80", "http://a.example"),
            ("https://a.example:8443/", "https://a.example:8443/", "https://a.example/"),
            ("https://a.example:443?x=1", "https://a.example:443?x=1", "https://a.example?x=1"),
            ("https://[::1]/b", "https://[::1]:443/b", "https://[::1]/b"),
            ("https://[::1]:1/b", "https://[::1]:1/b", "https://[::1]/b"),
            ("no address", "no address", "no address"),
        ] {
            assert_eq!(UrlForm::WithPort.apply(url), with);
            assert_eq!(UrlForm::WithoutPort.apply(url), without);
            assert_eq!(UrlForm::AsSent.apply(url), url);
        }
    }

    #[test]
    fn some_characters_are_decoded() {
        for (url, expected) in [
            ("https://a/b?c=%3a%2F%3f%40%21%24%27%28%29%2A%2c%3B", "https://a/b?c=:/?@!$'()*,;"),
            ("https://a/%20%25%26%3D%2B%23", "https://a/%20%25%26%3D%2B%23"),
            ("https://a/%253A%", "https://a/%253A%"),
            ("https://a/%3", "https://a/%3"),
            ("https://a/%é%+F", "https://a/%é%+F"),
        ] {
            assert_eq!(UrlForm::Decoded.apply(url), expected);
        }
    }
}
