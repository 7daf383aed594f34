//! The memory that a check takes before anything about its request is right.

use super::samples::{SAMPLES, SampleRequests, ed25519, sample_of};
use super::{Request, now, verification};
use crate::endpoints::verification::{RefusalKind, Verification};
use aws_lc_rs::signature::KeyPair;
use serde_json::{Value, json};

const BODY: usize = 1 << 20;

/// What a check holds when all is hashed.
fn held(verification: &Verification, request: &Request) -> usize {
    let delivery = request.delivery();
    let mut checking = verification.begin(&delivery, now()).unwrap();
    while checking.advance(64 << 10) {}
    checking.held_bytes()
}

fn form(body: impl Into<Vec<u8>>) -> Request {
    Request::post(body).header("Content-Type", "application/x-www-form-urlencoded")
}

#[test]
fn the_bound_holds_for_each_preset() {
    for sample in SAMPLES {
        let description = json!({ "scheme": sample.preset, (sample.members.0): sample.key(0) });
        let (verification, mut request) = (verification(&description), sample.now(1));
        let small = verification.extra_bytes(&request.delivery());
        assert!(small < 16 << 10, "{}: {small}", sample.preset);
        // A check that begins at all.
        let request = if verification.begin(&request.delivery(), now()).is_ok() {
            request.body.extend(vec![b' '; BODY]);
            request
        } else {
            sample.now(0)
        };
        let bound = verification.extra_bytes(&request.delivery());
        let held = held(&verification, &request);
        assert!(held <= bound, "{}: {held} of {bound}", sample.preset);
    }
}

#[test]
fn a_form_is_in_memory_once_for_all_forms_of_the_address() {
    let twilio = sample_of("twilio");
    let twilio = verification(&json!({ "scheme": "twilio", "secret": twilio.key(0) }));
    let body = format!("a={}&b=1", "%FF+".repeat(BODY / 4));
    let request = form(body.as_str()).header("X-Twilio-Signature", "AAAA");
    let (held, bound) = (held(&twilio, &request), twilio.extra_bytes(&request.delivery()));
    assert!(held < BODY && bound > 2 * body.len(), "{held} of {bound}");
    assert_eq!(request.refusal(&twilio), RefusalKind::WrongSignature);
}

#[test]
fn a_form_with_many_fields_is_refused_before_its_signature() {
    let twilio = sample_of("twilio");
    let twilio = verification(&json!({ "scheme": "twilio", "secret": twilio.key(0) }));
    let refusal = |fields: usize| {
        let request = form("a=1&".repeat(fields)).header("X-Twilio-Signature", "AAAA");
        request.verify(&twilio).unwrap_err().to_string()
    };
    assert_eq!(refusal(1000), "wrong_signature");
    assert_eq!(refusal(1001), "malformed: body");
    // A form whose digest is in the address is not sorted.
    let many =
        form("a=1&".repeat(1001)).query("bodySHA256=00").header("X-Twilio-Signature", "AAAA");
    assert_eq!(many.refusal(&twilio), RefusalKind::WrongBodyDigest);
}

#[test]
fn ed25519_copies_each_message_once_and_tries_few_signatures() {
    let of = |members: Value| {
        let key = hex::encode(ed25519(0).public_key());
        let mut description = json!({
            "scheme": "ed25519", "publicKeys": [key, key], "header": "X-Sig", "separator": ",",
        });
        description.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        verification(&description)
    };
    let body = vec![b'x'; BODY];
    let by = |key| hex::encode(ed25519(key).sign(&body));
    let offer =
        |signatures: &[String]| Request::post(body.clone()).header("X-Sig", signatures.join(","));
    let plain = of(json!({}));
    let four = offer(&[by(1), by(2), by(1), by(0)]);
    assert_eq!(four.verify(&plain).unwrap().key, 1);
    let delivery = four.delivery();
    let mut checking = plain.begin(&delivery, now()).unwrap();
    let steps = std::iter::from_fn(|| checking.advance(usize::MAX).then_some(())).count();
    // The message, and each pair of key and signature.
    assert_eq!(steps, 1 + 2 * 4);
    let five = offer(&[by(1), by(2), by(1), by(2), by(0)]).verify(&plain).unwrap_err();
    assert_eq!(five.to_string(), "malformed: signature");
    let urls = of(json!({
        "signed": "{url}{body}{form}", "urlForms": ["withPort", "withoutPort", "asSent", "decoded"],
    }));
    let request = form(body.clone()).query("a=%40").header("X-Sig", by(1));
    let (held, bound) = (held(&urls, &request), urls.extra_bytes(&request.delivery()));
    // Three addresses differ, each with the body and the form.
    assert!(held > 6 * BODY && held <= bound && bound < 11 * BODY, "{held} of {bound}");
}

#[test]
fn a_lookup_is_bounded_by_its_text() {
    let linear = sample_of("linear");
    let linear = verification(&json!({ "scheme": "linear", "secret": linear.key(0) }));
    let of = |body: usize| linear.extra_bytes(&Request::post(vec![b' '; body]).delivery());
    assert!(of(1000) < of(20_000) && of(20_000) == of(BODY) && of(BODY) < 256 << 10);
}
