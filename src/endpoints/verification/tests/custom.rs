//! Schemes that are described member by member.

use super::samples::{ed25519, p256};
use super::{NOW, Request, verification};
use crate::endpoints::verification::{RefusalKind, Verification};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const SECRET: &str = "a secret of 24 bytes ...";

fn mac(algorithm: hmac::Algorithm, secret: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), text.as_bytes()).as_ref().to_vec()
}

pub(super) fn sha256(text: &str) -> Vec<u8> {
    mac(hmac::HMAC_SHA256, SECRET.as_bytes(), text)
}

/// A verification of the scheme `hmac` with some members.
pub(super) fn hmac_with(members: Value) -> Verification {
    let mut description = json!({ "scheme": "hmac", "secret": SECRET, "header": "X-Sig" });
    let Value::Object(members) = members else { panic!("no object") };
    description.as_object_mut().unwrap().extend(members);
    description.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    verification(&description)
}

pub(super) fn signed(body: &str, signature: impl AsRef<[u8]>) -> Request {
    Request::post(body).header("x-sig", hex::encode(signature))
}

#[test]
fn the_defaults_are_hex_of_sha256_of_the_body() {
    let verification = hmac_with(json!({}));
    assert!(signed("body", sha256("body")).verify(&verification).is_ok());
    assert_eq!(signed("body", sha256("else")).refusal(&verification), RefusalKind::WrongSignature);
    let upper = hex::encode_upper(sha256("body"));
    assert!(Request::post("body").header("X-SIG", upper).verify(&verification).is_ok());
    let short = signed("body", &sha256("body")[..16]);
    assert_eq!(short.refusal(&verification), RefusalKind::WrongSignature);
    assert_eq!(signed("body", "").refusal(&verification), RefusalKind::Malformed);
    let malformed = Request::post("body").header("X-Sig", "no hex");
    assert_eq!(malformed.refusal(&verification), RefusalKind::Malformed);
    let no_text = Request::post("body").header("X-Sig", [0xff_u8, 0xfe]);
    assert_eq!(no_text.refusal(&verification), RefusalKind::Malformed);
}

#[test]
fn every_algorithm_and_encoding() {
    for (name, algorithm) in [
        ("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        ("sha256", hmac::HMAC_SHA256),
        ("sha512", hmac::HMAC_SHA512),
    ] {
        let signature = mac(algorithm, SECRET.as_bytes(), "body");
        let by_hex = hmac_with(json!({ "algorithm": name }));
        assert!(signed("body", &signature).verify(&by_hex).is_ok(), "{name}");
        let by_base64 = hmac_with(json!({ "algorithm": name, "encoding": "base64" }));
        let text = STANDARD.encode(&signature);
        for text in [text.as_str(), text.trim_end_matches('=')] {
            let request = Request::post("body").header("X-Sig", text);
            assert!(request.verify(&by_base64).is_ok(), "{name} {text}");
        }
        assert!(signed("body", &signature).verify(&by_base64).is_err(), "{name}");
    }
}

#[test]
fn every_encoding_of_the_secret() {
    for (encoding, secret) in [
        ("text", SECRET.to_owned()),
        ("hex", hex::encode(SECRET)),
        ("base64", STANDARD.encode(SECRET)),
    ] {
        let verification = hmac_with(json!({ "secret": secret, "secretEncoding": encoding }));
        assert!(signed("body", sha256("body")).verify(&verification).is_ok(), "{encoding}");
    }
}

#[test]
fn every_placeholder_is_signed() {
    let members = json!({
        "signed": "{method} {url}|{id}|{timestamp}|{form}|{body}",
        "timestampHeader": "X-Time", "idHeader": "X-Id",
    });
    let verification = hmac_with(members);
    let request = |id: &str, body: &str, signed: &str| {
        Request::post(body)
            .query("a=1")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("X-Time", NOW.to_string())
            .header("X-Id", id)
            .header("X-Sig", hex::encode(sha256(signed)))
    };
    let url = "https://hooks.example.com/api/webhook/in/org_1/hook?a=1";
    let text = format!("POST {url}|7|{NOW}|a1b2|b=2&a=1");
    let verified = request("7", "b=2&a=1", &text).verify(&verification).unwrap();
    assert_eq!(verified.delivery_id.as_deref(), Some("7"));
    assert_eq!(request("8", "b=2&a=1", &text).refusal(&verification), RefusalKind::WrongSignature);
    assert_eq!(request("7", "b=2&a=2", &text).refusal(&verification), RefusalKind::WrongSignature);
    let mut other = request("7", "b=2&a=1", &text);
    other.url = other.url.replace("a=1", "a=2");
    assert_eq!(other.refusal(&verification), RefusalKind::WrongSignature);
    let mut other = request("7", "b=2&a=1", &text);
    other.method = "PUT";
    assert_eq!(other.refusal(&verification), RefusalKind::WrongSignature);
}

#[test]
fn items_separators_and_prefixes() {
    let signature = hex::encode(sha256("body"));
    let other = hex::encode(sha256("else"));
    let time = format!("{NOW}.body");
    let timed = hex::encode(sha256(&time));
    for (members, value) in [
        (json!({ "prefix": "sha256=" }), format!("sha256={signature}")),
        (json!({ "separator": ";" }), format!("{other}; {signature}")),
        (json!({ "separator": " ", "prefix": "a:" }), format!("b:{other} a:{signature}")),
        (json!({ "signatureItem": "s" }), format!("x=1, s={other},s={signature}")),
        (json!({ "signatureItem": "s", "separator": "&" }), format!("s={signature}&t=1")),
        (json!({ "signatureItem": "s", "prefix": "v:" }), format!("s=v:{signature}")),
        (
            json!({ "signatureItem": "s", "timestampItem": "t", "signed": "{timestamp}.{body}" }),
            format!("t={NOW},s={timed}"),
        ),
    ] {
        let verification = hmac_with(members.clone());
        let request = Request::post("body").header("X-Sig", value.as_str());
        assert!(request.verify(&verification).is_ok(), "{members} {value}");
        let wrong = value.replace(&signature, &other).replace(&timed, &other);
        let request = Request::post("body").header("X-Sig", wrong);
        assert_eq!(request.refusal(&verification), RefusalKind::WrongSignature, "{members}");
        let bare = Request::post("body").header("X-Sig", "");
        assert_eq!(bare.refusal(&verification), RefusalKind::Malformed, "{members}");
    }
    let members =
        json!({ "signatureItem": "s", "timestampItem": "t", "signed": "{timestamp}.{body}" });
    let no_time = Request::post("body").header("X-Sig", format!("s={timed}"));
    assert_eq!(no_time.refusal(&hmac_with(members)), RefusalKind::Missing);
}

#[test]
fn the_first_of_several_header_fields_counts() {
    let verification = hmac_with(json!({ "header": null, "headers": ["X-New", "X-Old"] }));
    let (right, wrong) = (hex::encode(sha256("body")), hex::encode(sha256("else")));
    let of = |name: &str, value: &str| Request::post("body").header(name, value);
    assert!(of("X-New", &right).verify(&verification).is_ok());
    assert!(of("X-Old", &right).verify(&verification).is_ok());
    assert!(of("X-New", &right).header("X-Old", wrong.as_str()).verify(&verification).is_ok());
    let both = of("X-New", &wrong).header("X-Old", right.as_str());
    assert_eq!(both.refusal(&verification), RefusalKind::WrongSignature);
    assert_eq!(Request::post("body").refusal(&verification), RefusalKind::Missing);
}

#[test]
fn every_place_and_format_of_the_time() {
    let rfc3339 = "2023-11-14T22:13:20Z";
    for (format, time) in [
        ("seconds", NOW.to_string()),
        ("milliseconds", format!("{NOW}000")),
        ("RFC 3339", rfc3339.into()),
    ] {
        let members = json!({
            "signed": "{timestamp}.{body}", "timestampHeader": "X-Time", "timestampFormat": format,
            "tolerance": "1s",
        });
        let request = signed("body", sha256(&format!("{time}.body")));
        let verification = hmac_with(members);
        assert!(request.clone().header("X-Time", time.as_str()).verify(&verification).is_ok());
        assert_eq!(request.clone().refusal(&verification), RefusalKind::Missing, "{format}");
        let malformed = request.header("X-Time", "soon");
        assert_eq!(malformed.refusal(&verification), RefusalKind::Malformed, "{format}");
    }
    let members = json!({ "timestampBody": "meta.0.at", "tolerance": "1s" });
    let verification = hmac_with(members);
    for (body, expected) in [
        (format!("{{\"meta\":[{{\"at\":{NOW}}}]}}"), None),
        (format!("{{\"meta\":[{{\"at\":\"{NOW}\"}}]}}"), None),
        (format!("{{\"meta\":[{{\"at\":{}}}]}}", NOW - 2), Some(RefusalKind::TooOld)),
        (format!("{{\"meta\":[{{\"at\":{NOW}.5}}]}}"), Some(RefusalKind::Malformed)),
        ("{\"meta\":[{\"at\":null}]}".to_owned(), Some(RefusalKind::Missing)),
        ("{\"meta\":[]}".to_owned(), Some(RefusalKind::Missing)),
        (format!("{{\"meta\":[{{\"at\":{NOW}}}]"), Some(RefusalKind::Malformed)),
    ] {
        let result = signed(&body, sha256(&body)).verify(&verification);
        assert_eq!(result.err().map(|refusal| refusal.kind), expected, "{body}");
    }
}

#[test]
fn a_signature_in_a_form() {
    let verification = hmac_with(json!({
        "header": null, "signatureBody": "sig", "signed": "{timestamp}", "timestampBody": "time",
    }));
    let body = |signature: &str| format!("time={NOW}&sig={signature}");
    let form = |body: String| {
        Request::post(body).header("content-type", "application/x-www-form-urlencoded")
    };
    let right = hex::encode(sha256(&NOW.to_string()));
    assert!(form(body(&right)).verify(&verification).is_ok());
    let twice = form(format!("{}&sig=00", body(&right)));
    assert_eq!(twice.refusal(&verification), RefusalKind::Repeated);
    assert_eq!(form(format!("time={NOW}")).refusal(&verification), RefusalKind::Missing);
}

#[test]
fn public_keys_of_both_algorithms() {
    let of = |scheme: &str, key: &[u8]| {
        verification(&json!({ "scheme": scheme, "publicKey": hex::encode(key), "header": "X-Sig" }))
    };
    let pair = ed25519(0);
    let verification = of("ed25519", pair.public_key().as_ref());
    assert!(signed("body", pair.sign(b"body")).verify(&verification).is_ok());
    let other = signed("body", ed25519(1).sign(b"body"));
    assert_eq!(other.refusal(&verification), RefusalKind::WrongSignature);

    let verification = of("ecdsa-p256", p256(0).public_key().as_ref());
    let der = p256(0).sign(&SystemRandom::new(), b"body").unwrap();
    assert!(signed("body", der).verify(&verification).is_ok());
    let other = p256(1).sign(&SystemRandom::new(), b"body").unwrap();
    assert_eq!(signed("body", other).refusal(&verification), RefusalKind::WrongSignature);
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let fixed = pair.sign(&SystemRandom::new(), b"body").unwrap();
    let verification = of("ecdsa-p256", pair.public_key().as_ref());
    assert!(signed("body", fixed).verify(&verification).is_ok());
}

#[test]
fn tokens_that_are_signed_by_public_keys() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let keys = [hex::encode(ed25519(0).public_key()), hex::encode(pair.public_key())];
    let verification = verification(&json!({
        "scheme": "jwt", "publicKeys": keys, "header": "X-Token", "prefix": "Bearer ",
    }));
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!("{{\"exp\":{}}}", NOW + 60);
    let token = |alg: &str, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        let signed = format!("{}.{}", part(&format!("{{\"alg\":\"{alg}\"}}")), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
        Request::post("").header("X-Token", format!("Bearer {signed}.{signature}"))
    };
    let by_ed25519 = |signed: &[u8]| ed25519(0).sign(signed).as_ref().to_vec();
    let by_p256 =
        |signed: &[u8]| pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec();
    assert!(token("EdDSA", &by_ed25519).verify(&verification).is_ok());
    assert!(token("ES256", &by_p256).verify(&verification).is_ok());
    // The public key is no secret of an HMAC.
    let key = ed25519(0).public_key().as_ref().to_vec();
    let confused = |signed: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed).as_ref().to_vec()
    };
    for request in [
        token("HS256", &confused),
        token("ES256", &by_ed25519),
        token("EdDSA", &by_p256),
        token("none", &|_| Vec::new()),
    ] {
        assert_eq!(request.refusal(&verification), RefusalKind::WrongSignature);
    }
}

#[test]
fn a_token_expires_unless_the_description_says_otherwise() {
    let of = |members: Value| {
        let mut description = json!({ "scheme": "jwt", "secret": SECRET });
        description.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        verification(&description)
    };
    let token = |claims: &str| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part("{\"alg\":\"HS256\"}"), part(claims));
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sha256(&signed)));
        Request::post("").header("Authorization", token)
    };
    let (expiring, lasting) = (of(json!({})), of(json!({ "requireExp": false })));
    let refusal = token("{}").verify(&expiring).unwrap_err();
    assert_eq!(refusal.to_string(), "missing: exp");
    assert!(!refusal.is_stale());
    let null = token("{\"exp\":null}");
    assert_eq!(null.refusal(&expiring), RefusalKind::Missing);
    let valid = token(&format!("{{\"exp\":{}}}", NOW - 300));
    let verified = valid.verify(&expiring).unwrap();
    assert_eq!(valid.verify(&lasting).unwrap().digest, verified.digest);
    assert!(token("{}").verify(&lasting).is_ok());
    let old = token(&format!("{{\"exp\":{}}}", NOW - 301)).verify(&lasting).unwrap_err();
    assert!(old.is_stale());
}

#[test]
fn a_secret_in_a_header_field_a_query_or_a_body() {
    let header = verification(&json!({
        "scheme": "header", "name": "X-Key", "prefix": "Key ", "secrets": ["one", "two"],
    }));
    let with = |value: &str| Request::post("").header("x-key", value);
    assert!(with("Key one").verify(&header).is_ok());
    assert!(with("Key two").verify(&header).is_ok());
    assert_eq!(with("Key three").refusal(&header), RefusalKind::WrongSecret);
    assert_eq!(with("one").refusal(&header), RefusalKind::Malformed);
    assert_eq!(with("Key one").twice("x-key").refusal(&header), RefusalKind::Repeated);
    assert_eq!(Request::post("").refusal(&header), RefusalKind::Missing);

    let query = verification(&json!({ "scheme": "query", "name": "key", "secret": "a b" }));
    assert!(Request::get("x=1&key=a%20b").verify(&query).is_ok());
    assert!(Request::get("key=a+b").verify(&query).is_ok());
    assert_eq!(Request::get("key=a").refusal(&query), RefusalKind::WrongSecret);
    assert_eq!(Request::get("key=a+b&key=a+b").refusal(&query), RefusalKind::Repeated);
    assert_eq!(Request::get("Key=a+b").refusal(&query), RefusalKind::Missing);

    let body = verification(&json!({ "scheme": "bodySecret", "path": "a.key", "secret": "1234" }));
    assert!(Request::post("{\"b\":[{}],\"a\":{\"key\":\"1234\"}}").verify(&body).is_ok());
    assert!(Request::post("{\"a\":{\"key\":1234}}").verify(&body).is_ok());
    assert_eq!(Request::post("{\"a\":{\"key\":\"1\"}}").refusal(&body), RefusalKind::WrongSecret);
    assert_eq!(Request::post("{\"a\":{\"key\":[]}}").refusal(&body), RefusalKind::Missing);
    assert_eq!(Request::post("{\"a\":\"1234\"}").refusal(&body), RefusalKind::Missing);
    assert_eq!(Request::post("a").refusal(&body), RefusalKind::Malformed);
    assert_eq!(Request::post("").refusal(&body), RefusalKind::Malformed);
}

#[test]
fn a_user_name_and_a_password() {
    let verification =
        verification(&json!({ "scheme": "basic", "user": "me", "secrets": ["p:w", "old"] }));
    let with = |text: &str| {
        Request::post("").header("Authorization", format!("bASIC {}", STANDARD.encode(text)))
    };
    assert!(with("me:p:w").verify(&verification).is_ok());
    assert!(with("me:old").verify(&verification).is_ok());
    for text in ["me:p", "you:p:w", "me:", ":old", ":"] {
        assert_eq!(with(text).refusal(&verification), RefusalKind::WrongSecret, "{text}");
    }
    assert_eq!(with("me").refusal(&verification), RefusalKind::Malformed);
    for value in ["Basic", "Basic !", "Bearer bWU6b2xk", ""] {
        let request = Request::post("").header("Authorization", value);
        assert_eq!(request.refusal(&verification), RefusalKind::Malformed, "{value}");
    }
}

#[test]
fn certain_clients_beside_any_scheme() {
    let verification = verification(&json!({
        "scheme": "none", "allowedAddresses": ["192.0.2.0/24", "2001:db8::/32"],
        "deliveryId": { "header": "X-Id" },
    }));
    let from = |client: &str| Request::post("").client(client).header("X-Id", "1");
    let verified = from("::ffff:192.0.2.9").verify(&verification).unwrap();
    assert_eq!(verified.delivery_id.as_deref(), Some("1"));
    assert!(from("2001:db8::1").verify(&verification).is_ok());
    assert_eq!(from("198.51.100.1").refusal(&verification), RefusalKind::AddressNotAllowed);
}

#[test]
fn a_client_without_an_address_is_refused_where_certain_ones_are_allowed() {
    let of = |allowed: Value| {
        let mut description = json!({ "scheme": "hmac", "secret": SECRET, "header": "X-Sig" });
        description["allowedAddresses"] = allowed;
        verification(&description)
    };
    let request = signed("body", sha256("body"));
    assert_eq!(request.client, None);
    assert!(request.verify(&of(Value::Null)).is_ok());
    for networks in [json!(["0.0.0.0/0", "::/0"]), json!(["127.0.0.1"])] {
        let refusal = request.verify(&of(networks)).unwrap_err();
        assert_eq!(refusal.to_string(), "address_unknown");
        assert!(!refusal.is_stale());
    }
}
