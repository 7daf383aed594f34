//! The body of a delivery as JSON.

use super::json;
use bytes::Bytes;
use hookgate::endpoints::payload::{LARGEST_FACTOR, PayloadError, PayloadPlan};
use serde_json::Value;
use std::collections::HashMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A line with a `Content-Type`, and the body. No line: there is no `Content-Type`.
pub fn check(data: &[u8]) {
    let (content_type, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (Some(&data[..end]), &data[end + 1..]),
        None => (None, data),
    };
    let payload = match convert(content_type, body) {
        Ok(payload) => payload,
        Err(PayloadError::InvalidJson(invalid)) => {
            assert!(invalid.offset.is_some_and(|offset| offset <= body.len()));
            return;
        }
        Err(PayloadError::InvalidMultipart(_)) => return,
    };
    let text = std::str::from_utf8(&payload).expect("a payload is UTF-8");
    assert!(json::read(text).is_some(), "a payload is JSON: {text}");
    assert_eq!(text, text.trim_ascii());
    if content_type == Some(b"application/x-www-form-urlencoded") && !body.is_empty() {
        assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), form(body));
    }
}

/// Runs the conversion, which waits for nothing but its turn, and checks its bounds.
fn convert(content_type: Option<&[u8]>, body: &[u8]) -> Result<Bytes, PayloadError> {
    let plan = PayloadPlan::new(content_type, Bytes::copy_from_slice(body))?;
    let bytes_at_most = plan.bytes_at_most();
    assert!(bytes_at_most <= LARGEST_FACTOR * body.len() + 512, "{bytes_at_most}");
    let mut conversion = pin!(plan.convert());
    let mut context = Context::from_waker(Waker::noop());
    let payload = loop {
        if let Poll::Ready(payload) = conversion.as_mut().poll(&mut context) {
            break payload?;
        }
    };
    let is_verbatim = body.is_empty() || body.trim_ascii() == payload;
    assert!(is_verbatim || payload.len() <= bytes_at_most, "{} > {bytes_at_most}", payload.len());
    Ok(payload)
}

/// A form, read in a simple way.
fn form(body: &[u8]) -> Value {
    let mut fields: HashMap<String, Vec<Value>> = HashMap::new();
    for field in body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
        let equals = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        let value = field.get(equals + 1..).unwrap_or_default();
        fields.entry(decode(&field[..equals])).or_default().push(decode(value).into());
    }
    let value = |values: Vec<Value>| match <[Value; 1]>::try_from(values) {
        Ok([value]) => value,
        Err(values) => values.into(),
    };
    fields.into_iter().map(|(name, values)| (name, value(values))).collect()
}

fn decode(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(16 * high + low).expect("two digits"));
                at += 2;
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
