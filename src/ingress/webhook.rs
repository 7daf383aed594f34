//! The body of a request: valid JSON with a `webhookId`, and everything else untouched.

use super::cut;
use super::invalid_json::InvalidJson;
use crate::ids::WebhookId;
use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, Tape};
use std::cell::RefCell;
use std::fmt;

/// Levels of arrays and objects, the outermost included.
pub(super) const MAX_DEPTH: usize = 128;

/// The member that names the webhook.
const MEMBER: &str = "webhookId";

/// The parser's buffers are kept from request to request up to bodies of this many bytes; a larger
/// body may have made them some twenty times its size.
const KEPT_BYTES: usize = 64 << 10;

/// A body that was accepted. The payload is the caller's bytes with the one member cut out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// The payload, in two pieces: what stands before the cut and what stands behind it.
    pub payload: [Bytes; 2],
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the body is not valid JSON")]
    InvalidJson(InvalidJson),
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the body has no single webhookId that can be one")]
    MissingWebhookId,
}

impl Webhook {
    pub fn parse(body: &Bytes) -> Result<Self, WebhookError> {
        let member = PARSER.with_borrow_mut(|parser| parser.find_member(body))?;
        let payload = cut::payload(body, member.key_quote, member.value);
        Ok(Self { id: member.id, payload })
    }
}

/// The one member, and where it stands in the text.
struct Member {
    id: WebhookId,
    key_quote: usize,
    value: usize,
}

thread_local! {
    static PARSER: RefCell<Parser> = RefCell::new(Parser::default());
}

/// Buffers that are used again for the next request of this thread.
struct Parser {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Parser {
    fn default() -> Self {
        let buffers = Buffers::with_max_depth(0, MAX_DEPTH);
        Self { scratch: Vec::new(), buffers, tape: Tape(Vec::new()) }
    }
}

impl Parser {
    fn find_member(&mut self, text: &[u8]) -> Result<Member, WebhookError> {
        let found = self.find_on_tape(text);
        if text.len() > KEPT_BYTES {
            *self = Self::default();
        }
        match found {
            Err(Refused::Depth) => Err(invalid_json(text)),
            // simd-json computes numbers and code points, and so refuses some that JSON allows
            // (1e400, integers of 2^64, lone surrogates). Where it refuses, grammar decides.
            Err(Refused::Grammar) => find_by_grammar(text),
            Ok(found) => found,
        }
    }

    fn find_on_tape(&mut self, text: &[u8]) -> Result<Result<Member, WebhookError>, Refused> {
        // It works in place, so it gets a copy; strings on the tape point into that copy, which
        // tells where they stand in the text.
        self.scratch.clear();
        self.scratch.extend_from_slice(text);
        self.scratch.resize(text.len() + INPUT_PADDING, 0);
        let base = self.scratch.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.scratch,
            text.len(),
            &mut self.buffers,
            &mut tape,
        );
        let found = match parsed {
            Ok(()) => Ok(member_on_tape(&tape.0, base)),
            Err(error) if *error.error() == ErrorType::DepthLimitExceeded => Err(Refused::Depth),
            Err(_) => Err(Refused::Grammar),
        };
        self.tape = tape.reset();
        found
    }
}

enum Refused {
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
            let Node::String(text) = value else { return Err(WebhookError::MissingWebhookId) };
            let id = WebhookId::from_body(text).map_err(|_| WebhookError::MissingWebhookId)?;
            // Both begin one byte behind their opening quote.
            let key_quote = key.as_ptr().addr() - base - 1;
            let value = text.as_ptr().addr() - base - 1;
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

fn invalid_json(text: &[u8]) -> WebhookError {
    WebhookError::InvalidJson(InvalidJson::in_text(text))
}

/// The slow way, which checks grammar only. It does not look at UTF-8 and depth by itself.
fn find_by_grammar(bytes: &[u8]) -> Result<Member, WebhookError> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid_json(bytes))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| invalid_json(bytes))?;
    if depth(bytes) > MAX_DEPTH {
        return Err(invalid_json(bytes));
    }
    if !text.trim_start().starts_with('{') {
        return Err(WebhookError::NotAnObject);
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| invalid_json(bytes))?;
    let [(key, value)] = members.0.as_slice() else { return Err(WebhookError::MissingWebhookId) };
    let id = serde_json::from_str::<String>(value.get())
        .ok()
        .and_then(|id| WebhookId::from_body(&id).ok())
        .ok_or(WebhookError::MissingWebhookId)?;
    let offset = |raw: &RawValue| raw.get().as_ptr().addr() - text.as_ptr().addr();
    Ok(Member { id, key_quote: offset(key), value: offset(value) })
}

/// The members of the outermost object whose decoded key is [`MEMBER`].
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    // A key that cannot be decoded (a lone surrogate) is not ours.
                    let decoded = serde_json::from_str::<String>(key.get());
                    if decoded.is_ok_and(|decoded| decoded == MEMBER) {
                        members.push((key, value));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// How deep arrays and objects are nested in valid JSON.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
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
    use super::super::invalid_json::Kind;
    use super::*;

    fn payload(body: &str) -> Result<String, WebhookError> {
        let webhook = Webhook::parse(&Bytes::copy_from_slice(body.as_bytes()))?;
        assert_eq!(webhook.id.as_str(), "w");
        Ok(webhook.payload.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect())
    }

    #[test]
    fn the_member_is_cut_out_wherever_it_stands() {
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
    fn numbers_that_cannot_be_computed_are_kept_as_written() {
        for number in ["1.0", "-0", "1e400", "12345678901234567890123", "1E-0400"] {
            let body = format!(r#"{{"n":{number}, "webhookId" : "w" , "\ud800":"\ud800"}}"#);
            let expected = format!(r#"{{"n":{number}, "\ud800":"\ud800"}}"#);
            assert_eq!(payload(&body), Ok(expected));
        }
    }

    #[test]
    fn depth_is_bounded_on_both_ways() {
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
            // 128 more open behind the first one.
            assert_eq!((kind, offset), (Kind::Depth, Some(r#"{"webhookId":"w","a":"#.len() + 127)));
        }
    }

    #[test]
    fn what_is_no_webhook_is_refused() {
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
    fn what_is_no_json_is_refused_with_its_place() {
        use Kind::{Syntax, Utf8};
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
    fn an_empty_id_is_one() {
        for body in [r#"{"webhookId":"","a":1}"#, r#"{"a":1,"webhookId":"","n":1e400}"#] {
            let webhook = Webhook::parse(&Bytes::from_static(body.as_bytes())).unwrap();
            assert_eq!(webhook.id.as_str(), "", "{body}");
        }
    }
}
