//! The parser of bodies and the removal of the `webhookId` member.

use super::json::{self, Document};
use bytes::Bytes;
use hookgate::ids::MAX_ID_BYTES;
use hookgate::ingress::{InvalidJson, Webhook, WebhookError};
use serde::de::IgnoredAny;

/// Accepted levels of arrays and objects.
const MAX_DEPTH: usize = 128;

/// Deeper bodies are skipped: this reader is recursive, and other tests cover deep bodies.
const MAX_OPENINGS: usize = 2_000;

/// A second reader must agree on accepting the body, and an accepted payload is the caller's
/// document without the member.
pub fn check(body: &[u8]) {
    if body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_OPENINGS {
        return;
    }
    let text = std::str::from_utf8(body);
    let document = text.ok().and_then(json::read);
    let by_serde = text.is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok();
    assert_eq!(document.is_some(), by_serde, "the second reader differs from serde_json");

    let parsed = Webhook::parse(&Bytes::copy_from_slice(body));
    let Some(document) = document.filter(|document| document.deepest <= MAX_DEPTH) else {
        let Err(WebhookError::InvalidJson(InvalidJson { kind, offset })) = parsed else {
            panic!("refused for another reason: {parsed:?}");
        };
        assert!(offset.is_some_and(|offset| offset <= body.len()), "{kind:?} at {offset:?}");
        return;
    };
    if !document.is_object {
        assert_eq!(parsed, Err(WebhookError::NotAnObject));
        return;
    }
    let text = text.expect("JSON is UTF-8");
    match (webhook(text, &document), parsed) {
        (Some((at, id)), Ok(webhook)) => {
            assert_eq!(webhook.id.as_str(), id);
            check_payload(text, &document, at, &webhook.payload.concat());
        }
        (expected, parsed) => {
            assert_eq!(expected, None, "{parsed:?}");
            assert_eq!(parsed, Err(WebhookError::MissingWebhookId));
        }
    }
}

/// The one member that names the webhook, and its value; `None` if it is invalid.
fn webhook(text: &str, document: &Document) -> Option<(usize, String)> {
    let is_named = |key: &str| json::decode(key).as_deref() == Some("webhookId");
    let mut named = document
        .members
        .iter()
        .enumerate()
        .filter(|(_, (key, _))| text.get(key.clone()).is_some_and(is_named));
    let (at, (_, value)) = named.next()?;
    let value = text.get(value.clone())?;
    let id = value.starts_with('"').then(|| json::decode(value))??;
    let is_fine = named.next().is_none() && id.len() <= MAX_ID_BYTES;
    is_fine.then_some((at, id))
}

fn check_payload(text: &str, document: &Document, at: usize, payload: &[u8]) {
    let payload = std::str::from_utf8(payload).expect("a payload is UTF-8");
    let cut = json::read(payload).expect("a payload is JSON");
    let of = |text: &'_ str, document: &Document| -> Vec<(String, String)> {
        let part = |range: &std::ops::Range<usize>| text[range.clone()].to_owned();
        document.members.iter().map(|(key, value)| (part(key), part(value))).collect()
    };
    let mut expected = of(text, document);
    expected.remove(at);
    assert!(cut.is_object && of(payload, &cut) == expected, "the members differ from the body");
    assert_eq!(
        payload,
        expected_payload(text, document, at),
        "the white space differs from the body"
    );
}

/// The payload by the contract's rule.
fn expected_payload(text: &str, document: &Document, at: usize) -> String {
    let (key, value) = &document.members[at];
    let (begin, end) = match document.members.get(at + 1) {
        Some((next, _)) => (key.start, next.start),
        None if at == 0 => (key.start, value.end),
        None => {
            let before = document.members[at - 1].1.end;
            (before + text[before..].find(',').expect("a comma between members"), value.end)
        }
    };
    let json_space = [' ', '\t', '\n', '\r'];
    format!("{}{}", &text[..begin], &text[end..]).trim_matches(json_space).to_owned()
}
