//! The body of a delivery as JSON, the payload of its jobs.
//!
//! | body | payload |
//! |---|---|
//! | empty | `null` |
//! | JSON of any kind | as it is, without the white space around it |
//! | a form | an object of strings; a name that is there several times is an array |
//! | `multipart/form-data` | an object; a file is `{"name", "type", "base64"}` |
//! | other text, if it is UTF-8 | a string |
//! | anything else | a string in base64 |
//!
//! Text is what has a type `text/*`, XML or a `charset`. Other charsets than UTF-8 are not converted:
//! such a text is base64, unless it is UTF-8 too. A body without `Content-Type` is JSON if it is
//! valid JSON, else text if it is UTF-8.
//!
//! # Memory
//!
//! [`PayloadPlan::bytes_at_most`] is known before anything is allocated. It is nothing for JSON, at
//! most 6 bytes for each byte of text (a control character becomes six), and 4 for 3 of other bytes.
//! For forms and parts it includes what orders them by name: at most [`LARGEST_FACTOR`] bytes for
//! each byte of one that has nothing but short names.

mod fields;
mod form;
mod kind;
mod multipart;
mod strings;

use crate::endpoints::payload::fields::object;
use crate::endpoints::payload::form::Form;
use crate::endpoints::payload::kind::Kind;
use crate::endpoints::payload::multipart::Multipart;
use crate::json::{self, InvalidJson};
use bytes::Bytes;
use std::fmt;

pub use crate::endpoints::payload::multipart::MultipartFault;

/// Bound on [`PayloadPlan::bytes_at_most`] for each byte of a body, beside 512 bytes.
pub const LARGEST_FACTOR: usize = 20;

/// Why a body has no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the body is not valid JSON")]
    InvalidJson(InvalidJson),
    #[error("the body is not valid multipart/form-data")]
    InvalidMultipart(MultipartFault),
}

/// How a body becomes a payload.
pub struct PayloadPlan {
    body: Bytes,
    conversion: Conversion,
    bytes_at_most: usize,
}

enum Conversion {
    /// The body is the payload.
    None,
    Text,
    Base64,
    Form,
    /// With its boundary.
    Multipart(String),
}

impl fmt::Debug for PayloadPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("PayloadPlan");
        debug.field("bytes_at_most", &self.bytes_at_most).finish_non_exhaustive()
    }
}

impl PayloadPlan {
    /// Plans the conversion of a decoded body. JSON is validated here.
    pub fn new(content_type: Option<&[u8]>, body: Bytes) -> Result<Self, PayloadError> {
        if body.is_empty() {
            let body = Bytes::from_static(b"null");
            return Ok(Self { body, conversion: Conversion::None, bytes_at_most: 0 });
        }
        let is_text = std::str::from_utf8(&body).is_ok();
        let text_or_bytes = if is_text { Conversion::Text } else { Conversion::Base64 };
        let conversion = match Kind::from_content_type(content_type) {
            Kind::Json => {
                json::validate(&body).map_err(PayloadError::InvalidJson)?;
                Conversion::None
            }
            Kind::Unknown if is_text && json::validate(&body).is_ok() => Conversion::None,
            Kind::Text | Kind::Unknown => text_or_bytes,
            Kind::Bytes => Conversion::Base64,
            Kind::Form => Conversion::Form,
            Kind::Multipart(content_type) => {
                let boundary = multipart::boundary(content_type);
                Conversion::Multipart(boundary.map_err(PayloadError::InvalidMultipart)?)
            }
        };
        let bytes_at_most = match &conversion {
            Conversion::None => 0,
            Conversion::Text => strings::text_bytes(&body),
            Conversion::Base64 => strings::base64_bytes(&body),
            Conversion::Form => form::bytes_at_most(&body),
            Conversion::Multipart(boundary) => multipart::bytes_at_most(&body, boundary),
        };
        Ok(Self { body, conversion, bytes_at_most })
    }

    /// Bound on the memory that the conversion takes, with its result and without the body.
    pub fn bytes_at_most(&self) -> usize {
        self.bytes_at_most
    }

    /// Converts the body. A task yields while it converts a large form.
    pub async fn convert(self) -> Result<Bytes, PayloadError> {
        let Self { body, conversion, .. } = self;
        Ok(match conversion {
            Conversion::None => without_space(&body),
            Conversion::Text => strings::text(&body).into(),
            Conversion::Base64 => strings::base64(&body).into(),
            Conversion::Form => {
                let form = Form::new(&body);
                object(&form, form.result_bytes()).await.into()
            }
            Conversion::Multipart(boundary) => {
                let parts = Multipart::read(&body, &boundary);
                let parts = parts.await.map_err(PayloadError::InvalidMultipart)?;
                object(&parts, parts.result_bytes()).await.into()
            }
        })
    }
}

/// JSON without the white space around it, which is not copied.
fn without_space(json: &Bytes) -> Bytes {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let begin = json.iter().position(|byte| !is_space(byte)).unwrap_or(json.len());
    let end = json.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
    json.slice(begin..end)
}

#[cfg(test)]
mod tests;
