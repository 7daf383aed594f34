//! `multipart/form-data`.
//!
//! A part with a file name is a file. A part without one is a string, or, if it is not UTF-8, a file
//! whose name is null.

use crate::endpoints::payload::fields::{BYTES_PER_FIELD, Fields};
use crate::endpoints::payload::strings::{append_base64, append_text, base64_bytes, text_bytes};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream;
use multer::Field;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::convert::Infallible;

/// Parts between which a task yields.
const STEP: usize = 256;

/// Bound on the bytes that the members of a file take beside its values.
const BYTES_PER_PART: usize = 64;

/// What is wrong with a body of several parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultipartFault {
    /// The `Content-Type` has no boundary.
    Boundary,
    /// The boundary that ends the body, or a part, is missing.
    Incomplete,
    /// The header fields of a part are malformed, or more than 32.
    Header,
    /// A part has no name.
    Name,
}

impl MultipartFault {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boundary => "boundary",
            Self::Incomplete => "incomplete",
            Self::Header => "header",
            Self::Name => "name",
        }
    }
}

impl From<multer::Error> for MultipartFault {
    fn from(error: multer::Error) -> Self {
        match error {
            multer::Error::IncompleteHeaders
            | multer::Error::ReadHeaderFailed(_)
            | multer::Error::DecodeHeaderName { .. }
            | multer::Error::DecodeHeaderValue { .. } => Self::Header,
            multer::Error::NoBoundary
            | multer::Error::NoMultipart
            | multer::Error::DecodeContentType(_) => Self::Boundary,
            _ => Self::Incomplete,
        }
    }
}

/// The boundary in a `Content-Type`.
pub(super) fn boundary(content_type: &str) -> Result<String, MultipartFault> {
    let boundary = multer::parse_boundary(content_type)?;
    if boundary.is_empty() { Err(MultipartFault::Boundary) } else { Ok(boundary) }
}

/// The shortest part: its boundary, a header field with a name, and the lines between them.
const SHORTEST_PART: usize = "--b\r\nContent-Disposition:;name=\r\n\r\n\r\n".len();

/// Bound on the memory that the conversion takes: a copy of the body, one of the names in it, the
/// parts and the object.
pub(super) fn bytes_at_most(body: &[u8], boundary: &str) -> usize {
    let is_boundary = |line: &&[u8]| {
        line.strip_prefix(b"--").is_some_and(|line| line.starts_with(boundary.as_bytes()))
    };
    let lines = body.split(|byte| *byte == b'\n').filter(is_boundary).count();
    let parts = lines.min(body.len() / SHORTEST_PART) + 1;
    // A list that grows is there twice while it is copied.
    let per_part = 3 * size_of::<Part>() + BYTES_PER_FIELD + BYTES_PER_PART;
    parts * per_part + 2 * body.len() + text_bytes(body) + base64_bytes(body)
}

/// The parts of a body.
pub(super) struct Multipart(Vec<Part>);

struct Part {
    name: String,
    value: Value,
}

enum Value {
    /// What is UTF-8 and has no file name.
    Text(Bytes),
    File {
        name: Option<String>,
        content_type: Option<String>,
        content: Bytes,
    },
}

impl Multipart {
    pub(super) async fn read(body: &Bytes, boundary: &str) -> Result<Self, MultipartFault> {
        let body = body.clone();
        let once = stream::iter([Ok::<_, Infallible>(body)]);
        let mut source = multer::Multipart::new(once, boundary);
        let mut parts = Vec::new();
        // The stream is always ready, so nothing waits.
        while let Some(field) = ready(source.next_field().now_or_never())? {
            parts.push(Part::read(field)?);
            if parts.len().is_multiple_of(STEP) {
                tokio::task::yield_now().await;
            }
        }
        Ok(Self(parts))
    }

    /// Bound on the bytes of the object.
    pub(super) fn result_bytes(&self) -> usize {
        let part = |part: &Part| text_bytes(part.name.as_bytes()) + part.value.bytes() + 4;
        self.0.iter().map(part).sum::<usize>() + 2
    }
}

/// The result of a step that does not wait.
fn ready<T>(step: Option<Result<T, multer::Error>>) -> Result<T, MultipartFault> {
    Ok(step.ok_or(MultipartFault::Incomplete)??)
}

impl Part {
    fn read(mut field: Field<'_>) -> Result<Self, MultipartFault> {
        let name = field.name().ok_or(MultipartFault::Name)?.to_owned();
        let file_name = file_name(&field);
        let content_type = header(&field, "content-type").map(str::to_owned);
        // The whole body is there, so the content is one piece.
        let content = ready(field.chunk().now_or_never())?.unwrap_or_default();
        ready(field.chunk().now_or_never())?.map_or(Ok(()), |_| Err(MultipartFault::Incomplete))?;
        let is_text = file_name.is_none() && std::str::from_utf8(&content).is_ok();
        let value = if is_text {
            Value::Text(content)
        } else {
            Value::File { name: file_name, content_type, content }
        };
        Ok(Self { name, value })
    }
}

fn header<'a>(field: &'a Field<'_>, name: &str) -> Option<&'a str> {
    std::str::from_utf8(field.headers().get(name)?.as_bytes()).ok()
}

/// The name of a file, which some clients write as an extended parameter (RFC 8187) though RFC 7578
/// 4.2 does not allow it.
fn file_name(field: &Field<'_>) -> Option<String> {
    if let Some(name) = field.file_name() {
        return Some(name.to_owned());
    }
    let disposition = header(field, "content-disposition")?;
    let mut parameters = disposition.split(';').map(str::trim);
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("filename*").then(|| value.trim())
    })?;
    let encoded = value.rsplit('\'').next().unwrap_or_default();
    let decoded = percent_decode_str(encoded).decode_utf8_lossy();
    Some(decoded.chars().filter(|character| !character.is_control()).collect())
}

impl Value {
    /// Bound on the bytes as JSON.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text_bytes(text),
            Self::File { name, content_type, content } => {
                let texts = [name, content_type].into_iter().flatten();
                let texts: usize = texts.map(|text| text_bytes(text.as_bytes())).sum();
                BYTES_PER_PART + texts + base64_bytes(content)
            }
        }
    }
}

impl Fields for Multipart {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn name(&self, field: usize) -> Cow<'_, str> {
        self.0.get(field).map_or(Cow::Borrowed(""), |part| Cow::Borrowed(&part.name))
    }

    fn append_value(&self, json: &mut Vec<u8>, field: usize) {
        match self.0.get(field).map(|part| &part.value) {
            None => {}
            Some(Value::Text(text)) => append_text(json, &String::from_utf8_lossy(text)),
            Some(Value::File { name, content_type, content }) => {
                json.extend_from_slice(b"{\"name\":");
                append_optional(json, name.as_deref());
                json.extend_from_slice(b",\"type\":");
                append_optional(json, content_type.as_deref());
                json.extend_from_slice(b",\"base64\":");
                append_base64(json, content);
                json.push(b'}');
            }
        }
    }
}

fn append_optional(json: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => append_text(json, text),
        None => json.extend_from_slice(b"null"),
    }
}
