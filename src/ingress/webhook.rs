//! Parses the body of a request: extracts the `webhookId` and keeps the other bytes verbatim.

use crate::ids::WebhookId;
use crate::ingress::invalid_json::{InvalidJson, MAX_DEPTH};
use crate::ingress::payload;
use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, Tape};
use std::cell::RefCell;
use std::fmt;

/// The member that names the webhook.
const MEMBER: &str = "webhookId";

/// Bytes of the largest body whose parser buffers are kept for the next request. Larger ones are
/// freed, because the buffers may grow to some twenty times the size of the body.
const KEPT_BYTES: usize = 64 << 10;

/// A valid body. The payload is the caller's bytes without the `webhookId` member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// The payload, in two pieces: the bytes before the removed member and those after it.
    pub payload: [Bytes; 2],
}

/// Why a body is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the body is not valid JSON")]
    InvalidJson(InvalidJson),
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the body does not have exactly one valid webhookId")]
    MissingWebhookId,
}

impl Webhook {
    /// Parses a body that has arrived in full.
    pub fn parse(body: &Bytes) -> Result<Self, WebhookError> {
        let member = PARSER.with_borrow_mut(|parser| parser.find_member(body))?;
        let payload = payload::payload(body, member.key_quote, member.value);
        Ok(Self { id: member.id, payload })
    }
}

/// The `webhookId` member. Offsets are in bytes of the body.
struct Member {
    id: WebhookId,
    /// Offset of the opening quote of the key.
    key_quote: usize,
    /// Offset of the opening quote of the value.
    value: usize,
}

thread_local! {
    static PARSER: RefCell<WebhookParser> = RefCell::new(WebhookParser::default());
}

/// The parser of a thread. Its buffers are reused for the next request.
struct WebhookParser {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for WebhookParser {
    fn default() -> Self {
        let buffers = Buffers::with_max_depth(0, MAX_DEPTH);
        Self { scratch: Vec::new(), buffers, tape: Tape(Vec::new()) }
    }
}

impl WebhookParser {
    fn find_member(&mut self, body: &[u8]) -> Result<Member, WebhookError> {
        let found = self.find_on_tape(body);
        if body.len() > KEPT_BYTES {
            *self = Self::default();
        }
        match found {
            Err(ParserRefusal::Depth) => Err(invalid_json(body)),
            // simd-json converts numbers and code points, so it rejects some that JSON allows
            // (1e400, integers from 2^64, lone surrogates). What it rejects is parsed again by
            // grammar alone.
            Err(ParserRefusal::Grammar) => find_by_grammar(body),
            Ok(found) => found,
        }
    }

    fn find_on_tape(&mut self, body: &[u8]) -> Result<Result<Member, WebhookError>, ParserRefusal> {
        // simd-json parses in place, so it gets a copy of the body. Strings on the tape point into
        // that copy, which gives their offsets in the body.
        self.scratch.clear();
        self.scratch.extend_from_slice(body);
        self.scratch.resize(body.len() + INPUT_PADDING, 0);
        let base = self.scratch.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.scratch,
            body.len(),
            &mut self.buffers,
            &mut tape,
        );
        let found = match parsed {
            Ok(()) => Ok(member_on_tape(&tape.0, base)),
            Err(error) if *error.error() == ErrorType::DepthLimitExceeded => {
                Err(ParserRefusal::Depth)
            }
            Err(_) => Err(ParserRefusal::Grammar),
        };
        self.tape = tape.reset();
        found
    }
}

enum ParserRefusal {
    Depth,
    Grammar,
}

fn member_on_tape(nodes: &[Node<'_>], base: usize) -> Result<Member, WebhookError> {
    let Some((Node::Object { len, .. }, mut rest)) = nodes.split_first() else {
        return Err(WebhookError::NotAnObject);
    };
    let mut member = None;
    for _ in 0..*len {
        let [Node::String(key), value, ..] = rest else { break };
        if *key == MEMBER {
            let Node::String(string) = value else {
                return Err(WebhookError::MissingWebhookId);
            };
            let id = WebhookId::from_body(string).map_err(|_| WebhookError::MissingWebhookId)?;
            // Strings on the tape begin one byte after their opening quote.
            let key_quote = key.as_ptr().addr() - base - 1;
            let value = string.as_ptr().addr() - base - 1;
            if member.replace(Member { id, key_quote, value }).is_some() {
                return Err(WebhookError::MissingWebhookId);
            }
        }
        let nodes_of_value = match value {
            Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
            Node::String(_) | Node::Static(_) => 1,
        };
        rest = rest.get(1 + nodes_of_value..).unwrap_or_default();
    }
    member.ok_or(WebhookError::MissingWebhookId)
}

fn invalid_json(body: &[u8]) -> WebhookError {
    WebhookError::InvalidJson(InvalidJson::locate(body))
}

/// The slow path. `serde_json` checks the grammar only; UTF-8 and depth are checked separately.
fn find_by_grammar(body: &[u8]) -> Result<Member, WebhookError> {
    let json = std::str::from_utf8(body).map_err(|_| invalid_json(body))?;
    serde_json::from_str::<IgnoredAny>(json).map_err(|_| invalid_json(body))?;
    if depth(body) > MAX_DEPTH {
        return Err(invalid_json(body));
    }
    if !json.trim_start().starts_with('{') {
        return Err(WebhookError::NotAnObject);
    }
    let members: WebhookIdMembers<'_> =
        serde_json::from_str(json).map_err(|_| invalid_json(body))?;
    let [(key, value)] = members.0.as_slice() else { return Err(WebhookError::MissingWebhookId) };
    let id = serde_json::from_str::<String>(value.get())
        .ok()
        .and_then(|id| WebhookId::from_body(&id).ok())
        .ok_or(WebhookError::MissingWebhookId)?;
    let offset = |raw: &RawValue| raw.get().as_ptr().addr() - json.as_ptr().addr();
    Ok(Member { id, key_quote: offset(key), value: offset(value) })
}

/// The members of the outermost object whose decoded key is [`MEMBER`].
struct WebhookIdMembers<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for WebhookIdMembers<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WebhookIdVisitor;
        impl<'de> Visitor<'de> for WebhookIdVisitor {
            type Value = WebhookIdMembers<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    // A key that cannot be decoded (a lone surrogate) is not `webhookId`.
                    let decoded = serde_json::from_str::<String>(key.get());
                    if decoded.is_ok_and(|decoded| decoded == MEMBER) {
                        members.push((key, value));
                    }
                }
                Ok(WebhookIdMembers(members))
            }
        }
        deserializer.deserialize_map(WebhookIdVisitor)
    }
}

/// The number of levels of arrays and objects in valid JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth -= 1,
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::super::invalid_json::InvalidJsonKind;
    use super::*;

    fn payload(body: &str) -> Result<String, WebhookError> {
        let webhook = Webhook::parse(&Bytes::copy_from_slice(body.as_bytes()))?;
        assert_eq!(webhook.id.as_str(), "w");
        Ok(webhook.payload.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect())
    }

    #[test]
    fn the_webhook_id_is_removed_at_any_position() {
        for (body, expected) in [
            (r#"{"webhookId":"w","a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1,"webhookId":"w","b":2}"#, r#"{"a":1,"b":2}"#),
            (r#"{"a":1,"webhookId":"w"}"#, r#"{"a":1}"#),
            (r#"{"webhookId":"w"}"#, "{}"),
            (r#"{ "webhookId" : "w" }"#, "{  }"),
            (" {\n \"webhookId\" : \"w\" , \"a\" : 1 } \n", "{\n \"a\" : 1 }"),
            ("{ \"a\" : 1 , \"webhookId\" : \"w\" \t}", "{ \"a\" : 1  \t}"),
            (r#"{"webhook\u0049d":"\u0077","a":"\u0041"}"#, r#"{"a":"\u0041"}"#),
            (r#"{"a":{"webhookId":7},"webhookId":"w"}"#, r#"{"a":{"webhookId":7}}"#),
        ] {
            assert_eq!(payload(body).as_deref(), Ok(expected), "{body}");
        }
    }

    #[test]
    fn out_of_range_numbers_are_kept_verbatim() {
        for number in ["1.0", "-0", "1e400", "12345678901234567890123", "1E-0400"] {
            let body = format!(r#"{{"n":{number}, "webhookId" : "w" , "\ud800":"\ud800"}}"#);
            let expected = format!(r#"{{"n":{number}, "\ud800":"\ud800"}}"#);
            assert_eq!(payload(&body), Ok(expected));
        }
    }

    #[test]
    fn both_parsers_bound_the_depth() {
        for filling in ["1", "1e400"] {
            let nested = |levels: usize| {
                let inner =
                    format!("{}{filling}{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
                payload(&format!(r#"{{"webhookId":"w","a":{inner}}}"#))
            };
            assert!(nested(128).is_ok());
            let Err(WebhookError::InvalidJson(InvalidJson { kind, offset })) = nested(129) else {
                panic!("129 levels are too many");
            };
            // The outer object is level 1, so the 128th bracket after it exceeds the limit.
            assert_eq!(
                (kind, offset),
                (InvalidJsonKind::Depth, Some(r#"{"webhookId":"w","a":"#.len() + 127))
            );
        }
    }

    #[test]
    fn a_body_without_exactly_one_valid_webhook_id_is_rejected() {
        use WebhookError::{MissingWebhookId, NotAnObject};
        let long = format!(r#"{{"webhookId":"{}"}}"#, "x".repeat(257));
        for (body, error) in [
            ("[1]", NotAnObject),
            ("1e400", NotAnObject),
            ("{}", MissingWebhookId),
            (r#"{"webhookId":5}"#, MissingWebhookId),
            (long.as_str(), MissingWebhookId),
            (r#"{"webhookId":"w","webhookId":"w"}"#, MissingWebhookId),
            (r#"{"webhookId":"w","n":1e400,"webhook\u0049d":"w"}"#, MissingWebhookId),
            (r#"{"webhookId":"\ud800"}"#, MissingWebhookId),
        ] {
            assert_eq!(payload(body), Err(error), "{body}");
        }
    }

    #[test]
    fn invalid_json_is_rejected_with_its_offset() {
        use InvalidJsonKind::{Syntax, Utf8};
        for (body, kind, offset) in [
            (&b""[..], Syntax, 0),
            (br#"{"webhookId":"w"} x"#, Syntax, 18),
            (br#"{"webhookId":"w",}"#, Syntax, 17),
            (b"{\"webhookId\":\"w\",\"a\":\"\x01\"}", Syntax, 22),
            (b"{\"webhookId\":\"w\",\"a\":\"\xff\"}", Utf8, 22),
        ] {
            let error = Webhook::parse(&Bytes::from_static(body));
            let expected = InvalidJson { kind, offset: Some(offset) };
            assert_eq!(error, Err(WebhookError::InvalidJson(expected)), "{body:?}");
        }
    }

    #[test]
    fn an_empty_webhook_id_is_valid() {
        for body in [r#"{"webhookId":"","a":1}"#, r#"{"a":1,"webhookId":"","n":1e400}"#] {
            let webhook = Webhook::parse(&Bytes::from_static(body.as_bytes())).unwrap();
            assert_eq!(webhook.id.as_str(), "", "{body}");
        }
    }
}
