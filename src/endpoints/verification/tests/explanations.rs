//! What is said about a request that is refused, and that no secret is said.

use super::samples::{SAMPLES, SampleRequests, sample_of};
use super::{NOW, Request, at, now, verification};
use crate::endpoints::verification::{Explanation, Preview, Verification};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::time::Duration;

const SECRET: &str = "a secret of 24 bytes ...";

fn explain(verification: &Verification, request: &Request) -> Explanation {
    verification.explain(&request.delivery(), now())
}

fn tag(secret: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

/// A request with a signature in hex of a message by a secret.
fn signed(secret: &[u8], message: &str, body: &str) -> Request {
    Request::post(body).header("X-Sig", hex::encode(tag(secret, message)))
}

fn hmac_by(secret: &str) -> Verification {
    verification(&json!({ "scheme": "hmac", "header": "X-Sig", "secret": secret }))
}

#[test]
fn a_signature_is_explained() {
    let body = "{\"id\":\"evt_1\",\"text\":\"ü\"}";
    let right = hex::encode(tag(SECRET.as_bytes(), &format!("{}.{body}", NOW - 400)));
    let stripe = verification(&json!({ "scheme": "stripe", "secrets": ["another one", SECRET] }));
    let header = format!("t={},v1={}", NOW - 400, "00".repeat(32));
    let request = Request::post(body).header("Stripe-Signature", header);
    let explanation = explain(&stripe, &request);
    assert_eq!(explanation.places, ["header field stripe-signature, item v1"]);
    assert_eq!(explanation.found, ["00".repeat(32)]);
    assert_eq!(explanation.expected.get(1), Some(&right));
    let [Preview { bytes, ends: Some((first, last)) }] = explanation.signed.as_slice() else {
        panic!("one message is signed");
    };
    assert_eq!(*bytes, 11 + body.len());
    assert!(first.starts_with("1699999600.{\\\"i"), "{first}");
    assert!(last.ends_with("\\xc3\\xbc\\\"}"), "{last}");
    let time = explanation.time.unwrap();
    assert_eq!((time.off_by, time.tolerance), (-400_000, Duration::from_secs(300)));
}

#[test]
fn both_forms_of_an_address_are_explained() {
    let sample = sample_of("twilio");
    let twilio = verification(&json!({ "scheme": "twilio", "secret": sample.key(0) }));
    let explanation = explain(&twilio, &sample.now(1));
    assert_eq!(explanation.signed.len(), 2);
    assert_eq!(explanation.expected.len(), 2);
}

#[test]
fn a_usual_slip_with_a_secret_is_found() {
    let bytes = b"\xff\x00 the bytes of a secret";
    let (base64, hex) = (STANDARD.encode(bytes), hex::encode(bytes));
    for (secret, used, expected) in [
        (base64.clone(), &bytes[..], "the secret is read as base64"),
        (hex, bytes, "the secret is read as hex"),
        (format!(" {SECRET}\n"), SECRET.as_bytes(), "white space around the secret is removed"),
        (
            format!("whsec_{base64}"),
            bytes,
            "whsec_ is removed from the secret and the rest is read as base64",
        ),
        (format!("whsec_{SECRET}"), SECRET.as_bytes(), "whsec_ is removed from the secret"),
    ] {
        let request = signed(used, "body", "body");
        let hints = explain(&hmac_by(&secret), &request).hints;
        assert_eq!(hints, [format!("it is right if {expected}")]);
    }
    let decoded = verification(&json!({
        "scheme": "hmac", "header": "X-Sig", "secret": base64, "secretEncoding": "base64",
    }));
    let hints = explain(&decoded, &signed(base64.as_bytes(), "body", "body")).hints;
    assert_eq!(hints, ["it is right if the secret is read as text and not as base64"]);
}

#[test]
fn a_usual_slip_with_a_body_an_encoding_or_an_address_is_found() {
    let by_secret = hmac_by(SECRET);
    let key = SECRET.as_bytes();
    for (message, body, expected) in [
        ("{\"a\":1}", "{\"a\":1}\n", "the line break at the end is removed from the body"),
        ("{\"a\":1}\n", "{\"a\":1}", "a line break is added to the body"),
        ("{\n}", "{\r\n}", "carriage returns are removed from the body"),
        (
            "{\"a b\":[1,2]}",
            "{ \"a b\": [1, 2] }",
            "white space between the members is removed from the body",
        ),
    ] {
        let hints = explain(&by_secret, &signed(key, message, body)).hints;
        assert_eq!(hints, [format!("it is right if {expected}")], "{body}");
    }
    let base64 = Request::post("body").header("X-Sig", STANDARD.encode(tag(key, "body")));
    let hints = explain(&by_secret, &base64).hints;
    assert_eq!(hints, ["it is right if its encoding is base64"]);
    let sha1 = verification(&json!({
        "scheme": "hmac", "header": "X-Sig", "secret": SECRET, "algorithm": "sha1",
    }));
    let hints = explain(&sha1, &signed(key, "body", "body")).hints;
    assert_eq!(hints, ["it is right if the algorithm is sha256"]);
    let square = sample_of("square");
    let verification = verification(&json!({ "scheme": "square", "secret": square.key(0) }));
    let mut request = square.now(0);
    request.url = request.url.replace("https://", "http://");
    let hints = explain(&verification, &request).hints;
    assert_eq!(hints, [format!("it is right if the address is {}", square.now(0).url)]);
}

#[test]
fn nothing_is_guessed() {
    let by_secret = hmac_by(SECRET);
    let accepted = signed(SECRET.as_bytes(), "body", "body");
    assert!(explain(&by_secret, &accepted).hints.is_empty());
    let other = signed(b"the secret of another environment", "body", "body");
    assert!(explain(&by_secret, &other).hints.is_empty());
    // A right signature that is too old needs no hint.
    let stripe = sample_of("stripe");
    let verification = verification(&json!({ "scheme": "stripe", "secret": stripe.key(0) }));
    let late = verification.explain(&stripe.now(0).delivery(), at(NOW + 1000));
    assert!(late.hints.is_empty());
    assert_eq!(late.time.unwrap().off_by, -1_000_000);
}

#[test]
fn no_secret_is_explained() {
    for sample in SAMPLES.iter().filter(|sample| sample.members.0 == "secret") {
        for key in [0, 1] {
            let secret = sample.key(key);
            let description = json!({ "scheme": sample.preset, "secret": secret });
            for request in [sample.now(0), sample.now(1), sample.now(2)] {
                let text = format!("{:?}", explain(&verification(&description), &request));
                assert!(!text.contains("secret number"), "{}: {text}", sample.preset);
                assert!(!text.contains(&hex::encode("secret number")), "{}: {text}", sample.preset);
            }
        }
    }
    // A sender that sends the secret itself, in place of its signature or in the body.
    let in_body = format!("{{\"key\":\"{SECRET}\"}}");
    for request in [
        Request::post("body").header("X-Sig", hex::encode(SECRET)),
        Request::post("body").header("X-Sig", SECRET),
        signed(b"x", "y", &in_body),
        signed(b"x", "y", SECRET),
    ] {
        let text = format!("{:?}", explain(&hmac_by(SECRET), &request));
        assert!(!text.contains("a secret of"), "{text}");
        assert!(!text.contains(&hex::encode("a secret of")), "{text}");
    }
}
