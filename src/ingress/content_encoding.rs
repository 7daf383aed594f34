//! `Content-Encoding`: the compression of a body, and the supported encodings.

use crate::ingress::rejection::Rejection;
use crate::settings::Section;
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// A supported compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentEncoding {
    Gzip,
    Deflate,
    Br,
    Zstd,
}

impl ContentEncoding {
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Deflate, Self::Br, Self::Zstd];

    /// The name in headers and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    /// Finds an encoding by name, ignoring case; `x-gzip` is an alias of `gzip` (RFC 9110 8.4.1).
    fn from_name(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|encoding| name.eq_ignore_ascii_case(encoding.name()))
    }
}

/// The supported encodings: `server.content_encodings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentEncodings(Vec<ContentEncoding>);

impl ContentEncodings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self(section.value("content_encodings", ContentEncoding::ALL.to_vec()))
    }

    /// Returns the encoding of a body; `None` if it is not encoded.
    ///
    /// All lines of the header form one list (RFC 9110 5.3). Empty elements and `identity` are
    /// ignored. More than one encoding is rejected: no caller needs it, and it multiplies the size
    /// that a small body can expand to.
    pub(super) fn select(&self, headers: &HeaderMap) -> Result<Option<ContentEncoding>, Rejection> {
        let mut found = None;
        for line in headers.get_all(CONTENT_ENCODING) {
            let line = line.to_str().map_err(|_| self.unsupported())?;
            let names = line.split(',').map(str::trim);
            for name in names.filter(|name| !name.is_empty() && !is_identity(name)) {
                let encoding =
                    ContentEncoding::from_name(name).filter(|encoding| self.0.contains(encoding));
                let encoding = encoding.ok_or_else(|| self.unsupported())?;
                if found.replace(encoding).is_some() {
                    return Err(self.unsupported());
                }
            }
        }
        Ok(found)
    }

    fn unsupported(&self) -> Rejection {
        let names: Vec<&str> = self.0.iter().map(|encoding| encoding.name()).collect();
        let accepted = if names.is_empty() { "identity".to_owned() } else { names.join(", ") };
        Rejection::UnsupportedEncoding { accepted }
    }
}

fn is_identity(name: &str) -> bool {
    name.eq_ignore_ascii_case("identity")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn select(
        supported: &[ContentEncoding],
        lines: &[&'static [u8]],
    ) -> Result<Option<ContentEncoding>, Rejection> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, HeaderValue::from_bytes(line).unwrap());
        }
        ContentEncodings(supported.to_vec()).select(&headers)
    }

    #[test]
    fn one_encoding_is_found_in_any_notation() {
        for (lines, expected) in [
            (&[] as &[&[u8]], None),
            (&[b""], None),
            (&[b" , ,"], None),
            (&[b"identity"], None),
            (&[b"Identity, identity", b""], None),
            (&[b"gzip"], Some(ContentEncoding::Gzip)),
            (&[b"GZip"], Some(ContentEncoding::Gzip)),
            (&[b"X-Gzip"], Some(ContentEncoding::Gzip)),
            (&[b" br\t"], Some(ContentEncoding::Br)),
            (&[b",zstd,"], Some(ContentEncoding::Zstd)),
            (&[b"identity", b"deflate, identity"], Some(ContentEncoding::Deflate)),
        ] {
            assert_eq!(select(&ContentEncoding::ALL, lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn multiple_and_unsupported_encodings_are_rejected() {
        let accepted = "gzip, deflate, br, zstd".to_owned();
        let rejection = Rejection::UnsupportedEncoding { accepted };
        for lines in [
            &[b"compress" as &[u8]] as &[&[u8]],
            &[b"x-compress"],
            &[b"gzip;q=1"],
            &[b"\"gzip\""],
            &[b"gzip br"],
            &[b"gzip, br"],
            &[b"gzip", b"gzip"],
            &[b"gz\xefp"],
            &[b"*"],
        ] {
            assert_eq!(select(&ContentEncoding::ALL, lines), Err(rejection.clone()), "{lines:?}");
        }
        let none = Rejection::UnsupportedEncoding { accepted: "identity".to_owned() };
        assert_eq!(select(&[], &[b"gzip"]), Err(none));
        assert_eq!(select(&[], &[b"identity"]), Ok(None));
    }
}
