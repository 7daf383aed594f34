//! Requests of any shape: none makes a check panic, and none is accepted.

use super::samples::{SAMPLES, sample_of};
use super::{Request, verification};
use crate::endpoints::verification::Verification;
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

static VERIFICATIONS: LazyLock<Vec<Verification>> = LazyLock::new(|| {
    let of = |sample: &super::samples::Sample| {
        verification(&json!({ "scheme": sample.preset, (sample.members.0): sample.key(0) }))
    };
    let more = [
        json!({ "scheme": "basic", "user": "me", "secret": "a secret" }),
        json!({ "scheme": "query", "name": "key", "secret": "a secret" }),
        json!({ "scheme": "bodySecret", "path": "a.*.0.b", "secret": "a secret" }),
    ];
    SAMPLES.iter().map(of).chain(more.iter().map(verification)).collect()
});

/// Values that look like those of header fields.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "[tv]=[0-9]{0,20},v1=[0-9a-f]{0,70}(,v1=[0-9a-f]{64}){0,3}".prop_map(String::into_bytes),
        "(v1,|v0=|sha256=|sha1=|Basic |ts=)?[A-Za-z0-9+/=_.;, -]{0,90}"
            .prop_map(String::into_bytes),
        "-?[0-9]{1,25}".prop_map(String::into_bytes),
        "eyJ[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}"
            .prop_map(String::into_bytes),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        "[\\[\\]{}\",:a-c0-9 \\\\]{0,80}".prop_map(String::into_bytes),
        "\\{\"(signature|value|type|challenge|a)\":[\\[{]?\"?[a-z0-9\":,\\[{}\\]]{0,60}"
            .prop_map(String::into_bytes),
        "([a-z%]{0,4}=[A-F0-9%+]{0,6}&?){0,6}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_request_panics_or_is_accepted(
        values in proptest::collection::vec(value(), 4),
        body in body(),
        query in "[a-zA-Z0-9%=&.]{0,40}",
        is_form in any::<bool>(),
        limit in 1_usize..100,
    ) {
        for (index, verification) in VERIFICATIONS.iter().enumerate() {
            let mut request = Request::post(body.clone()).query(&query);
            let needed = SAMPLES.get(index).map_or(&["authorization"][..], |sample| sample.needed);
            for (name, value) in needed.iter().zip(&values) {
                request = request.header(name, value.clone());
            }
            if is_form {
                request = request.header("content-type", "application/x-www-form-urlencoded");
            }
            let delivery = request.delivery();
            let _ = verification.unsigned_handshake(&delivery);
            prop_assert!(verification.verify(&delivery, super::now()).is_err());
            if let Ok(mut checking) = verification.begin(&delivery, super::now()) {
                while checking.advance(limit) {}
                prop_assert!(checking.finish().is_err());
            }
        }
    }
}

#[test]
fn a_body_that_is_deep_or_long_is_no_problem() {
    let mailgun =
        verification(&json!({ "scheme": "mailgun", "secret": sample_of("mailgun").key(0) }));
    let graph = verification(&json!({ "scheme": "microsoft-graph", "secret": "a" }));
    let deep = "[".repeat(500_000);
    let nested = format!("{{\"x\":{}{},\"value\":[]}}", "[".repeat(50_000), "]".repeat(50_000));
    let wide = format!("{{\"value\":[{}0]}}", "0,".repeat(500_000));
    for body in [deep, nested, wide] {
        assert!(Request::post(body.clone()).verify(&mailgun).is_err());
        assert!(Request::post(body).verify(&graph).is_err());
    }
}
