//! Parses the body of a request: extracts the `webhookId` and keeps the other bytes verbatim.

use crate::ids::WebhookId;
use crate::ingress::payload;
use crate::json::{self, InvalidJson, Parsed};
use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use simd_json::Node;
use std::fmt;

/// The member that names the webhook.
const MEMBER: &str = "webhookId";

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
        let member = find_member(body)?;
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

fn find_member(body: &[u8]) -> Result<Member, WebhookError> {
    match json::parse(body, member_on_tape).map_err(WebhookError::InvalidJson)? {
        Parsed::OnTape(found) => found,
        Parsed::ByGrammar(json) => find_by_grammar(json),
    }
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

/// The slow path, for valid JSON without a tape.
fn find_by_grammar(json: &str) -> Result<Member, WebhookError> {
    if !json.trim_start().starts_with('{') {
        return Err(WebhookError::NotAnObject);
    }
    let invalid = |_| WebhookError::InvalidJson(InvalidJson::locate(json.as_bytes()));
    let members: WebhookIdMembers<'_> = serde_json::from_str(json).map_err(invalid)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::InvalidJsonKind;

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
