//! Members of a body that a verification looks for.

use super::custom::{hmac_with, sha256, signed};
use super::{Request, verification};
use crate::endpoints::verification::RefusalKind;
use serde_json::json;

#[test]
fn an_id_is_a_number_as_it_is_written() {
    let verification = hmac_with(json!({ "deliveryId": { "body": "event.id" } }));
    for id in ["18446744073709551616", "18446744073709551617", "7", "7.0", "-0", "1e400"] {
        let body = format!("{{\"event\":{{\"id\":{id}}}}}");
        let verified = signed(&body, sha256(&body)).verify(&verification).unwrap();
        assert_eq!(verified.delivery_id.as_deref(), Some(id));
    }
    // What is not read is no id. The delivery itself is for the parser to accept or refuse.
    let long = format!("\"{}\"", "7".repeat(16 * 1024 + 1));
    let deep = format!("7,\"x\":{}{}", "[".repeat(127), "]".repeat(127));
    for id in ["null", "[7]", "{}", "\"\"", "", long.as_str(), deep.as_str()] {
        let body = format!("{{\"event\":{{\"id\":{id}}}}}");
        let verified = signed(&body, sha256(&body)).verify(&verification).unwrap();
        assert_eq!(verified.delivery_id, None, "{body}");
    }
}

#[test]
fn a_member_that_is_needed_is_not_deep_and_not_long() {
    let verification = verification(&json!({
        "scheme": "bodySecret", "path": "a.*.key", "secret": "\u{e9}",
    }));
    let (most, too_many) = ("[".repeat(127), "[".repeat(128));
    let body = |key: &str, other: &str| {
        let close = "]".repeat(other.len());
        Request::post(format!("{{\"a\":[{{\"k\\u0065y\":{key}}}],\"x\":{other}{close}}}"))
    };
    assert!(body("\"\\u00e9\"", &most).verify(&verification).is_ok());
    let deep = body("\"\\u00e9\"", &too_many).verify(&verification).unwrap_err();
    assert_eq!(deep.to_string(), "malformed: body");
    let long = format!("\"{}\"", "x".repeat(16 * 1024 + 1));
    assert_eq!(body(&long, "[").refusal(&verification), RefusalKind::Missing);
}
