//! What is no description, and which descriptions are equal.

use super::{Request, described, verification};
use crate::endpoints::verification::{Status, Verification};
use aws_lc_rs::hmac;
use serde_json::{Value, json};

fn error(description: &Value) -> String {
    described(description).expect_err(&description.to_string()).to_string()
}

#[test]
fn an_incomplete_description_says_what_is_missing() {
    for (description, expected) in [
        (json!({}), "scheme is missing"),
        (
            json!({ "scheme": "gitub" }),
            "scheme is neither a preset nor a scheme; did you mean github?",
        ),
        (
            json!({ "scheme": "GitHub" }),
            "scheme is neither a preset nor a scheme; did you mean github?",
        ),
        (json!({ "scheme": "x" }), "scheme is neither a preset nor a scheme"),
        (json!({ "scheme": 1 }), "scheme is not a string"),
        (json!({ "scheme": "github" }), "secret is missing"),
        (json!({ "scheme": "github", "secret": null }), "secret is missing"),
        (json!({ "scheme": "github", "secret": "" }), "secret is empty"),
        (json!({ "scheme": "github", "secret": "  " }), "secret is empty or blank"),
        (json!({ "scheme": "github", "secret": 12 }), "secret is not a string"),
        (json!({ "scheme": "github", "secrets": [] }), "secrets is empty"),
        (json!({ "scheme": "github", "secrets": ["a", ""] }), "secrets has an empty string"),
        (json!({ "scheme": "github", "secrets": ["a", 1] }), "secrets is not a list of strings"),
        (
            json!({ "scheme": "github", "secrets": ["1", "2", "3", "4", "5"] }),
            "secrets has more than 4 entries",
        ),
        (
            json!({ "scheme": "github", "secret": "a", "secrets": ["b"] }),
            "secrets and secret are both given",
        ),
        (
            json!({ "scheme": "github", "publicKey": "00" }),
            "publicKey does not apply to the scheme github",
        ),
        (
            json!({ "scheme": "standard-webhooks", "secret": "whsec_é" }),
            "secret is not in the encoding of the scheme",
        ),
        (json!({ "scheme": "standard-webhooks", "secret": "whsec_" }), "secret is empty or blank"),
        (json!({ "scheme": "discord" }), "publicKey is missing"),
        (
            json!({ "scheme": "discord", "secret": "x" }),
            "secret does not apply to the scheme discord",
        ),
        (
            json!({ "scheme": "hmac", "secret": "x" }),
            "header is missing: nothing says where the signature is",
        ),
        (json!({ "scheme": "header", "secret": "x" }), "name is missing"),
        (json!({ "scheme": "header", "name": "X-Key" }), "secret is missing"),
        (json!({ "scheme": "basic", "secret": "x" }), "user is missing"),
        (json!({ "scheme": "query", "secret": "x" }), "name is missing"),
        (json!({ "scheme": "bodySecret", "secret": "x" }), "path is missing"),
        (json!({ "scheme": "jwt" }), "secret is missing"),
        (json!({ "scheme": "none", "secret": "x" }), "secret does not apply to the scheme none"),
    ] {
        assert_eq!(error(&description), expected);
    }
}

#[test]
fn a_value_that_a_member_cannot_have_is_named() {
    for (description, expected) in [
        (
            json!({ "scheme": "discord", "publicKey": "0102" }),
            "publicKey is not a public key of Ed25519 or P-256",
        ),
        (
            json!({ "scheme": "discord", "publicKey": "x" }),
            "publicKey is not in PEM, base64 or hex",
        ),
        (
            json!({ "scheme": "jwt", "secret": "x", "requireExp": "no" }),
            "requireExp is neither true nor false",
        ),
        (
            json!({ "scheme": "sendgrid", "publicKey": "00".repeat(32) }),
            "publicKey is of another algorithm than the scheme",
        ),
    ] {
        assert_eq!(error(&description), expected);
    }
}

#[test]
fn a_member_that_is_not_understood_is_refused() {
    for (member, value, expected) in [
        ("sekret", json!("x"), "sekret is an unknown member; did you mean secret?"),
        ("nothing", json!("x"), "nothing is an unknown member"),
        ("header", json!("X-Sig"), "header does not apply to the scheme github"),
        (
            "tolerance",
            json!("5m"),
            "tolerance needs timestampHeader, timestampItem or timestampBody",
        ),
        ("verifyToken", json!("x"), "verifyToken does not apply to the scheme github"),
        ("status", json!(201), "status is none of 200, 202, 204"),
        ("status", json!("200"), "status is none of 200, 202, 204"),
        ("allowedAddresses", json!([]), "allowedAddresses is empty"),
        (
            "allowedAddresses",
            json!(["10.0.0.1/8"]),
            "allowedAddresses number 1 has bits after its prefix",
        ),
        (
            "deliveryId",
            json!(true),
            "deliveryId is neither {\"header\": name} nor {\"body\": path} nor false",
        ),
        (
            "deliveryId",
            json!({}),
            "deliveryId is neither {\"header\": name} nor {\"body\": path} nor false",
        ),
        (
            "deliveryId",
            json!({"header": "a", "body": "b"}),
            "deliveryId is neither {\"header\": name} nor {\"body\": path} nor false",
        ),
        ("deliveryId", json!({"header": "a b"}), "deliveryId is not the name of a header field"),
        ("deliveryId", json!({"body": "a..b"}), "deliveryId is not a path: a name is empty"),
    ] {
        let mut description = json!({ "scheme": "github", "secret": "x" });
        description[member] = value;
        assert_eq!(error(&description), expected);
    }
}

#[test]
fn a_custom_description_is_consistent() {
    for (members, expected) in [
        (json!({ "signed": "{body" }), "signed has a { without a }"),
        (
            json!({ "signed": "x" }),
            "signed has no placeholder: {body}, {timestamp}, {id}, {url}, {method}, {form}",
        ),
        (
            json!({ "signed": "{timestamp}.{body}" }),
            "signed has {timestamp}, which needs timestampHeader, timestampItem or timestampBody",
        ),
        (json!({ "signed": "{id}.{body}" }), "signed has {id}, which needs idHeader or deliveryId"),
        (
            json!({ "timestampHeader": "X-Time" }),
            "timestampHeader is not signed: signed has no {timestamp}",
        ),
        (
            json!({ "timestampItem": "t", "signed": "{timestamp}{body}" }),
            "timestampItem needs signatureItem",
        ),
        (
            json!({ "timestampBody": "t", "signed": "{url}" }),
            "timestampBody is not signed: signed has no {timestamp}",
        ),
        (
            json!({ "timestampBody": "t", "timestampHeader": "t" }),
            "timestampHeader is one of several places of the time",
        ),
        (
            json!({ "timestampFormat": "seconds" }),
            "timestampFormat needs timestampHeader, timestampItem or timestampBody",
        ),
        (
            json!({ "timestampBody": "t", "timestampFormat": "minutes" }),
            "timestampFormat is none of seconds, milliseconds, RFC 3339",
        ),
        (
            json!({ "timestampBody": "t", "tolerance": "soon" }),
            "tolerance is not a duration such as \"5m\"",
        ),
        (json!({ "timestampBody": "t", "tolerance": "0s" }), "tolerance is zero"),
        (json!({ "bodyDigestQuery": "d" }), "bodyDigestQuery is not signed: signed has no {url}"),
        (json!({ "algorithm": "md5" }), "algorithm is none of sha1, sha256, sha512"),
        (json!({ "encoding": "text" }), "encoding is none of hex, base64"),
        (json!({ "secretEncoding": "utf8" }), "secretEncoding is none of text, hex, base64"),
        (json!({ "header": "X Sig" }), "header is not the name of a header field"),
        (json!({ "headers": ["X-Sig"] }), "headers and header are both given"),
        (json!({ "signatureBody": "a" }), "signatureBody and header are both given"),
        (
            json!({ "signed": "{id}{body}", "idHeader": ["a", "b"] }),
            "idHeader does not have as many names as headers",
        ),
        (
            json!({ "urlForms": ["asSent", "short"] }),
            "urlForms contains an unknown form; valid: asSent, withPort, withoutPort, decoded",
        ),
        (
            json!({ "urlForms": ["withPort"] }),
            "urlForms has no effect because `signed` has no {url}",
        ),
        (json!({ "user": "me" }), "user does not apply to the scheme hmac"),
        (json!({ "publicKey": "00" }), "publicKey does not apply to the scheme hmac"),
    ] {
        let mut description = json!({ "scheme": "hmac", "secret": "x", "header": "X-Sig" });
        description.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        assert_eq!(error(&description), expected);
    }
}

#[test]
fn an_error_repeats_no_value() {
    let secret = "hunter2-hunter2-hunter2";
    for description in [
        json!({ "scheme": secret }),
        json!({ "scheme": "github", "secret": { "x": secret } }),
        json!({ "scheme": "github", "secrets": [secret, 1] }),
        json!({ "scheme": "discord", "publicKey": secret }),
        json!({ "scheme": "hmac", "secret": "x", "header": format!("{secret} ") }),
        json!({ "scheme": "hmac", "secret": "x", "header": "a", "algorithm": secret }),
        json!({ "scheme": "hmac", "secret": "x", "header": "a", "signed": format!("{{{secret}}}") }),
        json!({ "scheme": "hmac", "secret": secret, "header": "a", "secretEncoding": "hex" }),
        json!({ "scheme": "github", "secret": "x", "status": secret }),
        json!({ "scheme": "github", "secret": "x", "allowedAddresses": secret }),
        json!({ "scheme": "basic", "user": format!("{secret}:"), "secret": "x" }),
    ] {
        assert!(!error(&description).contains("hunter2"), "{description}");
    }
}

#[test]
fn values_of_unexpected_types_are_refused() {
    let document = bson::rawdoc! { "scheme": "github", "secret": bson::oid::ObjectId::new() };
    let error = Verification::from_document(&document).unwrap_err();
    assert_eq!(error.to_string(), "secret is not a string");
    let twice = bson::RawDocumentBuf::from_bytes(
        [&[40, 0, 0, 0][..], b"\x02scheme\0\x05\0\0\0none\0\x02scheme\0\x05\0\0\0none\0\0"]
            .concat(),
    );
    if let Ok(twice) = twice {
        let error = Verification::from_document(&twice).unwrap_err();
        assert_eq!(error.to_string(), "scheme is there twice");
    }
    let status = bson::rawdoc! { "scheme": "none", "status": 202.0 };
    assert_eq!(Verification::from_document(&status).unwrap().status(), Status::Accepted);
}

#[test]
fn equal_descriptions_are_recognized() {
    let one = json!({ "scheme": "github", "secret": "a" });
    let same = [
        json!({ "secret": "a", "scheme": "github" }),
        json!({ "scheme": "github", "secrets": ["a"] }),
    ];
    for other in same {
        assert_eq!(verification(&one), verification(&other), "{other}");
        assert_eq!(verification(&one).identity(), verification(&other).identity());
    }
    for other in [
        json!({ "scheme": "github", "secret": "b" }),
        json!({ "scheme": "github", "secrets": ["a", "b"] }),
        json!({ "scheme": "meta", "secret": "a" }),
        json!({ "scheme": "github", "secret": "a", "deliveryId": false }),
        json!({ "scheme": "github", "secret": "a", "status": 202 }),
        json!({ "scheme": "github", "secret": "a", "allowedAddresses": ["10.0.0.0/8"] }),
    ] {
        assert_ne!(verification(&one), verification(&other), "{other}");
    }
    let stripe = |members: Value| {
        let mut description = json!({ "scheme": "stripe" });
        description.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        verification(&description)
    };
    // The name of a member and its value are no secrets, and a type is no other.
    let members = stripe(json!({ "tolerance": "1h", "secrets": ["k"] }));
    assert_ne!(members, stripe(json!({ "secrets": ["tolerance", "1h", "k"] })));
    let jwt = |members: Value| {
        let mut description = json!({ "scheme": "jwt" });
        description.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        verification(&description)
    };
    let key = "an Ed25519 key of printable text";
    assert_ne!(jwt(json!({ "secret": key })), jwt(json!({ "publicKey": hex::encode(key) })));
    let (joined, split) = (["ab", "c"], ["a", "bc"]);
    let of = |secrets: [&str; 2]| verification(&json!({ "scheme": "github", "secrets": secrets }));
    assert_ne!(of(joined), of(split));
}

#[test]
fn the_digest_of_a_delivery_outlasts_what_does_not_change_its_meaning() {
    let digest = |members: Value| {
        let mut description = json!({ "scheme": "gitlab", "secret": "a" });
        description.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let request = Request::post("").client("10.0.0.1").header("X-Gitlab-Token", "a");
        request.verify(&verification(&description)).unwrap().digest
    };
    let plain = digest(json!({}));
    assert_eq!(digest(json!({ "status": 204, "allowedAddresses": ["10.0.0.0/8"] })), plain);
    assert_ne!(digest(json!({ "deliveryId": { "header": "X-Id" } })), plain);
}

#[test]
fn verifications_that_answer_differently_differ() {
    let meta = |token: &str, status: u16| {
        verification(&json!({
            "scheme": "meta", "secret": "an app secret", "verifyToken": token, "status": status,
        }))
    };
    let (one, two, other) = (meta("one", 200), meta("two", 200), meta("one", 204));
    assert_eq!(one, meta("one", 200));
    assert_ne!(one, two);
    assert_ne!(one, other);
    let body = b"{}";
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"an app secret");
    let signature = format!("sha256={}", hex::encode(hmac::sign(&key, body)));
    let request = Request::post(body).header("X-Hub-Signature-256", signature);
    let digest = |verification| request.verify(verification).unwrap().digest;
    assert_eq!(digest(&one), digest(&two));
    assert_eq!(digest(&one), digest(&other));
}

#[test]
fn what_is_valid_and_doubtful_is_warned_of() {
    let warnings = |description: Value| verification(&description).warnings();
    assert_eq!(warnings(json!({ "scheme": "none" })), ["every delivery is accepted"]);
    let by_address = json!({ "scheme": "none", "allowedAddresses": ["10.0.0.0/8"] });
    assert!(warnings(by_address).is_empty());
    let short = json!({ "scheme": "github", "secret": "15 bytes or so." });
    assert_eq!(warnings(short), ["a secret is shorter than 16 bytes"]);
    assert!(warnings(json!({ "scheme": "github", "secret": "16 bytes or more" })).is_empty());
    let mailgun = json!({ "scheme": "mailgun", "secret": "16 bytes or more" });
    assert_eq!(warnings(mailgun), ["the body is not signed"]);
    assert!(warnings(json!({ "scheme": "gitlab", "secret": "short" })).is_empty());
}
