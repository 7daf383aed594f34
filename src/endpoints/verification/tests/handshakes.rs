//! Handshakes of the presets.

use super::samples::{SAMPLES, SampleRequests, sample_of};
use super::{NOW, Request, at, verification};
use crate::endpoints::verification::{HandshakeAnswer, UnfitHandshake, Verification};
use aws_lc_rs::hmac;
use serde_json::{Value, json};

fn of(preset: &str) -> Verification {
    let sample = sample_of(preset);
    verification(&json!({ "scheme": preset, (sample.members.1): [sample.key(1), sample.key(0)] }))
}

fn unsigned(verification: &Verification, request: &Request) -> Option<HandshakeAnswer> {
    verification.unsigned_handshake(&request.delivery())
}

/// The answer to a request that is verified, whatever its signature.
fn signed(preset: &str, body: &str) -> Option<Result<HandshakeAnswer, UnfitHandshake>> {
    let verification = of(preset);
    let verified = sample_of(preset).now(0).verify(&verification).unwrap();
    let request = Request::post(body);
    assert_eq!(unsigned(&verification, &request), None, "{preset}");
    verification.signed_handshake(&request.delivery(), &verified)
}

fn text(text: &str) -> HandshakeAnswer {
    HandshakeAnswer::Text(text.to_owned())
}

#[test]
fn slack_is_sent_its_challenge() {
    let body =
        "{\"token\":\"t\",\"challenge\":\"3eZbrw1aBm2rZgRNFdxV\",\"type\":\"url_verification\"}";
    assert_eq!(signed("slack", body), Some(Ok(text("3eZbrw1aBm2rZgRNFdxV"))));
    assert_eq!(signed("slack", &body.replace("url_verification", "event_callback")), None);
    // A handshake is no delivery, whatever its value is.
    let long = "x".repeat(513);
    for value in ["", "a\\nb", "\u{e9}", long.as_str()] {
        let unfit = signed("slack", &body.replace("3eZbrw1aBm2rZgRNFdxV", value));
        assert_eq!(unfit, Some(Err(UnfitHandshake)), "{value}");
    }
    assert_eq!(signed("slack", &body.replace("challenge", "x")), Some(Err(UnfitHandshake)));
    let twice = body.replacen('{', "{\"challenge\":\"a\",", 1);
    assert_eq!(signed("slack", &twice), Some(Err(UnfitHandshake)));
}

#[test]
fn zoom_is_sent_the_hmac_of_a_token_and_of_nothing_else() {
    let body = |token: &str| {
        format!(
            "{{\"event\":\"endpoint.url_validation\",\"payload\":{{\"plainToken\":\"{token}\"}}}}"
        )
    };
    let token = "qgg8vlvZRS6UYooatFL8Aw";
    let Some(Ok(HandshakeAnswer::Json(answer))) = signed("zoom", &body(token)) else {
        panic!("none")
    };
    // By the secret that accepted, which is the second of the list.
    let key = hmac::Key::new(hmac::HMAC_SHA256, sample_of("zoom").key(0).as_bytes());
    let tag = hex::encode(hmac::sign(&key, token.as_bytes()));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, json!({ "plainToken": token, "encryptedToken": tag }));
    let long = "a".repeat(129);
    for token in ["v0:1700000000:{}", "a b", "", "a.b", long.as_str(), "é"] {
        assert_eq!(signed("zoom", &body(token)), Some(Err(UnfitHandshake)), "{token}");
    }
    assert!(signed("zoom", &body(&long[1..])).is_some_and(|answer| answer.is_ok()));
    assert_eq!(signed("zoom", &body(token).replace("plainToken", "x")), Some(Err(UnfitHandshake)));
}

#[test]
fn discord_is_sent_a_pong() {
    let pong = Some(Ok(HandshakeAnswer::Json("{\"type\":1}".to_owned())));
    assert_eq!(signed("discord", "{\"type\":1,\"id\":\"1\"}"), pong);
    assert_eq!(signed("discord", "{\"type\":0}"), Some(Ok(HandshakeAnswer::Empty)));
    assert_eq!(signed("discord", "{\"type\":1,\"event\":{\"type\":\"X\"}}"), None);
    assert_eq!(signed("discord", "{\"type\":2}"), None);
    assert_eq!(signed("discord", "{}"), None);
    assert_eq!(signed("discord", "no JSON"), None);
}

#[test]
fn meta_is_sent_its_challenge_for_the_right_token() {
    let description = json!({ "scheme": "meta", "secret": "a", "verifyToken": "a token" });
    let meta = verification(&description);
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=a+token";
    assert_eq!(unsigned(&meta, &Request::get(query)), Some(text("1158201444")));
    for query in [
        query.replace("a+token", "a+tokem"),
        query.replace("subscribe", "unsubscribe"),
        query.replace("hub.challenge", "challenge"),
        format!("{query}&hub.verify_token=a+token"),
        format!("{query}&hub.challenge=2"),
    ] {
        assert_eq!(unsigned(&meta, &Request::get(&query)), None, "{query}");
    }
    assert_eq!(unsigned(&meta, &Request::post("").query(query)), None);
    assert_eq!(unsigned(&of("meta"), &Request::get(query)), None);
    assert!(!format!("{meta:?}").contains("a token"));
}

#[test]
fn dropbox_and_microsoft_are_sent_what_they_ask_for() {
    let dropbox = of("dropbox");
    assert_eq!(unsigned(&dropbox, &Request::get("challenge=abc%20d")), Some(text("abc d")));
    assert_eq!(unsigned(&dropbox, &Request::post("{}").query("challenge=abc")), None);
    let graph = of("microsoft-graph");
    let token = "Validation%3A+Testing+client+application+reachability+%3C%3E";
    let request = Request::post("").query(&format!("validationToken={token}"));
    let expected = "Validation: Testing client application reachability <>";
    assert_eq!(unsigned(&graph, &request), Some(text(expected)));
    assert_eq!(unsigned(&graph, &Request::post("")), None);
}

#[test]
fn monday_is_sent_its_challenge_as_json() {
    let monday = of("monday");
    let expected = Some(HandshakeAnswer::Json("{\"challenge\":\"3eZbrw1a\\\"\"}".to_owned()));
    assert_eq!(unsigned(&monday, &Request::post("{\"challenge\":\"3eZbrw1a\\\"\"}")), expected);
    for body in [
        "{\"challenge\":\"a\",\"event\":{}}",
        "{\"challenge\":\"a\",\"challenge\":\"b\"}",
        "{\"challenge\":1.5e3,\"x\":1}",
        "{\"challenge\":[]}",
        "[\"challenge\"]",
        "",
    ] {
        assert_eq!(unsigned(&monday, &Request::post(body)), None, "{body}");
    }
}

#[test]
fn little_is_echoed_and_it_is_printable() {
    let dropbox = of("dropbox");
    let ask = |text: &str| unsigned(&dropbox, &Request::get(&format!("challenge={text}")));
    assert!(ask(&"a".repeat(512)).is_some());
    for text in ["a".repeat(513).as_str(), "", "a%0Ab", "a%00", "%C3%A9", "%FF", "a&challenge=b"] {
        assert_eq!(ask(text), None, "{text}");
    }
}

#[test]
fn a_client_that_is_not_allowed_is_sent_nothing() {
    let dropbox = verification(&json!({
        "scheme": "dropbox", "secret": "a", "allowedAddresses": ["192.0.2.1"],
    }));
    let request = Request::get("challenge=abc");
    assert_eq!(unsigned(&dropbox, &request), None);
    assert_eq!(unsigned(&dropbox, &request.clone().client("192.0.2.2")), None);
    assert_eq!(unsigned(&dropbox, &request.client("192.0.2.1")), Some(text("abc")));
}

#[test]
fn a_delivery_is_no_handshake() {
    for sample in SAMPLES {
        let verification = of(sample.preset);
        let request = sample.now(0);
        assert_eq!(unsigned(&verification, &request), None, "{}", sample.preset);
        let verified = verification.verify(&request.delivery(), at(NOW)).unwrap();
        let answer = verification.signed_handshake(&request.delivery(), &verified);
        assert_eq!(answer, None, "{}", sample.preset);
    }
}
