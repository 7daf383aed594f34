//! JWK sets: the effect of an invalid entry, of an empty set, and of a set that cannot be read.

use super::{OTHER_SECRET, assert_accepted, assert_refused, merged, send};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use testkit::config::SECRET;
use testkit::keys::{KeyPair, hmac, jwk_set, octet_jwk};
use testkit::tokens::{claims, sign, sign_with_id};
use testkit::wait::until;
use testkit::{App, Reply};

/// A service that verifies by a JWK set alone, and the path of its file.
async fn app(set: &str) -> (App, String) {
    let build = App::build();
    let file = build.file("jwks.json", set);
    let path = file.clone();
    let app = build.config(|config| {
        config.remove("auth.jwt.secrets").set("auth.jwt.jwks_file", file);
        config.set("auth.jwt.algorithms", vec!["HS256", "RS256", "ES256"]);
    });
    (app.start().await, path)
}

fn replace(path: &str, text: &str) {
    let new = format!("{path}.new");
    std::fs::write(&new, text).expect("the test's own file");
    std::fs::rename(new, path).expect("the test's own file");
}

fn good() -> Value {
    octet_jwk(SECRET, "HS256", "good")
}

async fn send_by(app: &App, secret: &str, id: &str) -> Reply {
    let token = sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret), id);
    send(app, &token).await
}

async fn skipped(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_jwks_skipped_keys_total", &[])
}

async fn age(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_jwks_age_seconds", &[])
}

async fn is_degraded(app: &App) -> bool {
    let (status, report) = app.hookgate.readiness().await;
    assert_eq!(status, 200, "{report}");
    report.get("degraded").is_some_and(|notes| notes.to_string().contains("jwks_file"))
}

fn octets(text: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Entries that cannot be read or used, each of which stands next to a valid one.
fn bad_entries() -> Vec<Value> {
    let rsa = KeyPair::rsa().jwk(Algorithm::RS256, "r");
    let ec = KeyPair::for_algorithm(Algorithm::ES256).jwk(Algorithm::ES256, "e");
    let with = |jwk: &Value, change: Value| merged(jwk, &change);
    let good = good();
    let modulus =
        |bytes: usize| json!({ "n": octets(&[&[0x80], vec![1; bytes - 1].as_slice()].concat()) });
    vec![
        json!(null),
        json!("a string"),
        json!(7),
        json!([]),
        json!({}),
        json!({ "kty": "oct" }),
        json!({ "kty": "AKP", "kid": "x", "pub": "AAAA" }),
        with(&good, json!({ "kid": 1 })),
        with(&good, json!({ "x5c": "AAAA" })),
        with(&good, json!({ "key_ops": "verify" })),
        with(&good, json!({ "k": "", "kid": "empty" })),
        with(&good, json!({ "k": octets(&[b'k'; 31]) })),
        with(&good, json!({ "k": "*" })),
        with(&good, json!({ "k": 1 })),
        with(&good, json!({ "alg": "RS256" })),
        with(&good, json!({ "alg": "HS257" })),
        with(&good, json!({ "use": "enc" })),
        with(&good, json!({ "use": "other" })),
        with(&good, json!({ "key_ops": ["sign"] })),
        with(&good, json!({ "key_ops": [] })),
        with(&rsa, modulus(128)),
        with(&rsa, json!({ "n": "" })),
        with(&rsa, json!({ "e": "Ag" })),
        with(&rsa, json!({ "e": "AQ" })),
        with(&rsa, json!({ "alg": "ES256" })),
        with(&rsa, json!({ "alg": "RSA-OAEP-256" })),
        with(&ec, json!({ "crv": "P-384" })),
        with(&ec, json!({ "crv": "P-521" })),
        with(&ec, json!({ "crv": "secp256k1" })),
        with(&ec, json!({ "x": octets(&[1; 32]) })),
        with(&ec, json!({ "y": octets(&[1; 31]) })),
        with(&ec, json!({ "alg": "ES384" })),
        json!({ "kty": "OKP", "crv": "X25519", "x": octets(&[9; 32]) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": octets(&[9; 31]) }),
        json!({ "kty": "OKP", "crv": "P-256", "x": octets(&[9; 32]) }),
    ]
}

#[tokio::test]
async fn an_unusable_entry_is_left_out_alone() {
    let bad = bad_entries();
    let set: Vec<Value> = bad.iter().cloned().chain([good()]).collect();
    let (app, path) = app(&jwk_set(&set)).await;
    assert_accepted(&send_by(&app, SECRET, "good").await, &"at the start");
    let count = bad.len() as f64;
    until("the entries are counted", async || (skipped(&app).await - count).abs() < 0.5).await;
    let log = app.hookgate.log();
    for expected in ["entry 1 is skipped: it is not a JWK", "entry 10", "more entries"] {
        assert!(log.contains(expected), "{expected} in {log}");
    }
    // In operation each of them comes with a rotation, which succeeds.
    for (serial, bad) in bad.iter().enumerate() {
        let secret = format!("{OTHER_SECRET}{serial}");
        let id = format!("id-{serial}");
        replace(&path, &jwk_set(&[bad.clone(), octet_jwk(&secret, "HS256", &id)]));
        until(&format!("the rotation with {bad} succeeds"), async || {
            send_by(&app, &secret, &id).await.status == 202
        })
        .await;
    }
    let all = 2.0 * count;
    until("all requests are counted", async || (skipped(&app).await - all).abs() < 0.5).await;
    assert_refused(&send_by(&app, SECRET, "good").await, "invalid_token", &"rotated away");
    assert!(!is_degraded(&app).await);
}

/// A signature with an empty key can be made without knowing any secret.
#[tokio::test]
async fn an_empty_key_verifies_nothing() {
    let short = [b'k'; 31];
    let keys = [("none", &b""[..]), ("one", b"k"), ("short", &short[..]), ("enough", &[b'k'; 32])];
    let set = keys.map(|(id, key)| json!({ "kty": "oct", "kid": id, "k": octets(key) }));
    let (app, _) = app(&jwk_set(&set)).await;
    for (id, key) in keys {
        let token = |id| {
            let key = EncodingKey::from_secret(key);
            sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &key, id)
        };
        let without_id =
            sign(&claims("org_a", "u"), Algorithm::HS256, &EncodingKey::from_secret(key));
        for token in [token(id), without_id] {
            let reply = send(&app, &token).await;
            if id == "enough" {
                assert_accepted(&reply, &id);
            } else {
                assert_refused(&reply, "invalid_token", &id);
            }
        }
    }
}

/// A key as other programs write it: with unknown members, and a zero before the modulus.
#[tokio::test]
async fn an_unusually_encoded_key_is_used() {
    let pair = KeyPair::rsa();
    let mut jwk = pair.jwk(Algorithm::RS256, "r");
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().expect("a string")).expect("base64url");
    jwk["n"] = json!(octets(&[&[0], modulus.as_slice()].concat()));
    jwk["key_ops"] = json!(["verify", "something-else"]);
    jwk["x-more"] = json!({ "deep": [null] });
    let set = json!({ "keys": [jwk], "more": [1] }).to_string();
    let (app, _) = app(&format!("\u{feff}{set}\n")).await;
    let key = pair.encoding_key(Algorithm::RS256);
    let token = sign_with_id(&claims("org_a", "u"), Algorithm::RS256, &key, "r");
    assert_accepted(&send(&app, &token).await, &"RS256");
    assert!(skipped(&app).await < 0.5);
}

#[tokio::test]
async fn an_empty_set_revokes_all_keys() {
    let (app, path) = app(&jwk_set(&[good()])).await;
    assert_accepted(&send_by(&app, SECRET, "good").await, &"before");
    replace(&path, r#"{"keys":[]}"#);
    until("no key is left", async || send_by(&app, SECRET, "good").await.status == 401).await;
    assert_refused(&send_by(&app, SECRET, "good").await, "invalid_token", &"revoked");
    assert!(app.hookgate.log().contains("has no keys"), "{}", app.hookgate.log());
    assert!(!is_degraded(&app).await);
    assert_accepted(&send(&app, "key_a").await, &"API keys are not affected");

    replace(&path, &jwk_set(&[good()]));
    until("the key is back", async || send_by(&app, SECRET, "good").await.status == 202).await;
}

#[tokio::test]
async fn a_service_starts_with_an_empty_set() {
    let (app, path) = app(r#"{"keys":[]}"#).await;
    assert_refused(&send_by(&app, SECRET, "good").await, "invalid_token", &"no key");
    assert!(app.hookgate.log().contains("has no keys"));
    replace(&path, &jwk_set(&[good()]));
    until("a key is added", async || send_by(&app, SECRET, "good").await.status == 202).await;
}

#[tokio::test]
async fn an_unreadable_set_keeps_the_last_good_one_in_use() {
    let (app, path) = app(&jwk_set(&[good()])).await;
    until("the set is current", async || (0.0..1.0).contains(&age(&app).await)).await;
    for broken in [
        Some("{"),
        Some(""),
        Some("[]"),
        Some("{}"),
        Some(r#"{"keys":{}}"#),
        Some(r#"{"keys":null}"#),
        Some(r#"{"keys":[null]}"#),
        Some(r#"{"keys":[{"kty":"oct","k":"","kid":"good"}]}"#),
        Some(r#"{"keys":[],"keys":[]}"#),
        None,
    ] {
        match broken {
            Some(text) => replace(&path, text),
            None => std::fs::remove_file(&path).expect("the test's own file"),
        }
        until(&format!("{broken:?} is reported"), async || is_degraded(&app).await).await;
        if broken.is_none() {
            until("the set gets older", async || age(&app).await > 1.0).await;
        }
        let before = age(&app).await;
        until("the set is read again", async || age(&app).await > before).await;
        assert!(is_degraded(&app).await, "{broken:?} while it lasts");
        assert_accepted(&send_by(&app, SECRET, "good").await, &broken);
        replace(&path, &jwk_set(&[good()]));
        until("the fault is gone", async || !is_degraded(&app).await && age(&app).await < 1.0)
            .await;
    }
    assert!(app.hookgate.log().contains("JWK set is unreadable"));
}

#[tokio::test]
async fn without_a_set_there_is_no_age_metric() {
    let app = App::start().await;
    until("the gauge is set", async || (age(&app).await + 1.0).abs() < f64::EPSILON).await;
}
