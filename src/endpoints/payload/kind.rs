//! What a body is, by its `Content-Type`.

use crate::json::is_json;

/// The kind of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Json,
    Form,
    /// With the whole `Content-Type`, which contains the boundary.
    Multipart(&'a str),
    Text,
    Bytes,
    /// There is no `Content-Type`.
    Unknown,
}

impl<'a> Kind<'a> {
    pub(super) fn from_content_type(content_type: Option<&'a [u8]>) -> Self {
        let Some(value) = content_type.map(<[u8]>::trim_ascii).filter(|value| !value.is_empty())
        else {
            return Self::Unknown;
        };
        let Ok(value) = std::str::from_utf8(value) else { return Self::Bytes };
        let mut parts = value.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "text/json" => Self::Json,
            essence if is_json(essence) => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "multipart/form-data" => Self::Multipart(value),
            essence if is_text(essence) || parts.any(is_charset) => Self::Text,
            _ => Self::Bytes,
        }
    }
}

fn is_text(essence: &str) -> bool {
    essence.starts_with("text/") || essence == "application/xml" || essence.ends_with("+xml")
}

fn is_charset(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    name.trim().eq_ignore_ascii_case("charset")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_the_type() {
        let multipart = "Multipart/Form-Data; boundary=x";
        for (content_type, expected) in [
            ("application/json", Kind::Json),
            (" Application/JSON ; charset=utf-8", Kind::Json),
            ("application/vnd.api+json", Kind::Json),
            ("text/json", Kind::Json),
            ("application/x-www-form-urlencoded; charset=UTF-8", Kind::Form),
            (multipart, Kind::Multipart(multipart)),
            ("multipart/mixed; boundary=x", Kind::Bytes),
            ("text/plain", Kind::Text),
            ("TEXT/CSV", Kind::Text),
            ("application/xml", Kind::Text),
            ("application/soap+xml", Kind::Text),
            ("application/yaml; Charset = latin1", Kind::Text),
            ("application/yaml; charsets=x", Kind::Bytes),
            ("application/octet-stream", Kind::Bytes),
            ("json", Kind::Bytes),
            (";", Kind::Bytes),
            ("", Kind::Unknown),
            (" ", Kind::Unknown),
        ] {
            assert_eq!(
                Kind::from_content_type(Some(content_type.as_bytes())),
                expected,
                "{content_type}"
            );
        }
        assert_eq!(Kind::from_content_type(Some(b"text/\xff")), Kind::Bytes);
        assert_eq!(Kind::from_content_type(None), Kind::Unknown);
    }
}
