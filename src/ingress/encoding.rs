//! `Content-Encoding`: how a body is compressed, and which ways are taken.

use super::rejection::Rejection;
use crate::settings::Section;
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

/// A way in which a body may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Gzip,
    Deflate,
    Br,
    Zstd,
}

impl Encoding {
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Deflate, Self::Br, Self::Zstd];

    /// As it stands in headers and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    /// RFC 9110 8.4.1: without regard to case, and with an old name for gzip.
    fn named(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|encoding| name.eq_ignore_ascii_case(encoding.name()))
    }
}

/// The encodings that are taken: `server.content_encodings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encodings(Vec<Encoding>);

impl Encodings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self(section.value("content_encodings", Encoding::ALL.to_vec()))
    }

    /// The encoding of a body; `None` where it is sent as it is.
    ///
    /// All lines of the header are one list (RFC 9110 5.3), in which empty elements and `identity`
    /// say nothing. More than one encoding is refused: nobody needs it, and it multiplies what a
    /// small body can swell to.
    pub(super) fn of(&self, headers: &HeaderMap) -> Result<Option<Encoding>, Rejection> {
        let mut found = None;
        for line in headers.get_all(CONTENT_ENCODING) {
            let line = line.to_str().map_err(|_| self.unsupported())?;
            let names = line.split(',').map(str::trim);
            for name in names.filter(|name| !name.is_empty() && !is_identity(name)) {
                let encoding = Encoding::named(name).filter(|encoding| self.0.contains(encoding));
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

    fn of(taken: &[Encoding], lines: &[&'static [u8]]) -> Result<Option<Encoding>, Rejection> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, HeaderValue::from_bytes(line).unwrap());
        }
        Encodings(taken.to_vec()).of(&headers)
    }

    #[test]
    fn one_encoding_is_found_however_it_is_written() {
        for (lines, expected) in [
            (&[] as &[&[u8]], None),
            (&[b""], None),
            (&[b" , ,"], None),
            (&[b"identity"], None),
            (&[b"Identity, identity", b""], None),
            (&[b"gzip"], Some(Encoding::Gzip)),
            (&[b"GZip"], Some(Encoding::Gzip)),
            (&[b"X-Gzip"], Some(Encoding::Gzip)),
            (&[b" br\t"], Some(Encoding::Br)),
            (&[b",zstd,"], Some(Encoding::Zstd)),
            (&[b"identity", b"deflate, identity"], Some(Encoding::Deflate)),
        ] {
            assert_eq!(of(&Encoding::ALL, lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn several_encodings_and_others_are_refused() {
        let accepted = "gzip, deflate, br, zstd".to_owned();
        let refused = Rejection::UnsupportedEncoding { accepted };
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
            assert_eq!(of(&Encoding::ALL, lines), Err(refused.clone()), "{lines:?}");
        }
        let none = Rejection::UnsupportedEncoding { accepted: "identity".to_owned() };
        assert_eq!(of(&[], &[b"gzip"]), Err(none));
        assert_eq!(of(&[], &[b"identity"]), Ok(None));
    }
}
