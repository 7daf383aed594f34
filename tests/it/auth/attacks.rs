//! Forged tokens: none is accepted, whatever its header says about verification.

use super::{assert_accepted, assert_refused, merged, send};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use testkit::App;
use testkit::config::SECRET;
use testkit::keys::{KeyPair, hmac};
use testkit::raw::Connection;
use testkit::tokens::{claims, forge, token};

#[tokio::test]
async fn a_header_does_not_choose_its_key() {
    let app = App::start().await;
    let pair = KeyPair::rsa();
    let theirs = pair.encoding_key(Algorithm::RS256);
    let nothing = EncodingKey::from_secret(b"");
    let headers = [
        json!({ "kid": "../../../../../../dev/null" }),
        json!({ "kid": "/proc/sys/kernel/randomize_va_space" }),
        json!({ "kid": "x' UNION SELECT '' --" }),
        json!({ "kid": "$(sleep 10)|sleep 10" }),
        json!({ "kid": "k".repeat(16 << 10) }),
        json!({ "kid": 1 }),
        json!({ "kid": ["a"] }),
        json!({ "kid": "\u{0}" }),
        json!({ "jku": "http://127.0.0.1:1/keys", "kid": "theirs" }),
        json!({ "x5u": "http://127.0.0.1:1/chain", "x5t": "AAAA" }),
        json!({ "jwk": { "kty": "oct", "k": "" } }),
        json!({ "jwk": { "kty": "oct", "k": 1 } }),
        json!({ "x5c": ["AAAA"] }),
        json!({ "typ": "JWT", "zip": "DEF", "enc": "A256GCM" }),
    ];
    for header in headers {
        let mut header = header;
        header["alg"] = json!("HS256");
        refused(&app, &signed(&header, &claims_text(), &nothing), &header).await;
        header["alg"] = json!("RS256");
        refused(&app, &signed_by(&header, &claims_text(), &theirs, Algorithm::RS256), &header)
            .await;
    }
    let embedded = json!({ "alg": "RS256", "jwk": pair.jwk(Algorithm::RS256, "theirs") });
    let theirs = signed_by(&embedded, &claims_text(), &theirs, Algorithm::RS256);
    refused(&app, &theirs, &embedded).await;
    unharmed(&app).await;
}

/// Tokens with a valid signature that can be read in two ways.
#[tokio::test]
async fn an_ambiguous_token_is_refused() {
    let app = App::start().await;
    let ours = hmac(SECRET);
    let good = json!({ "alg": "HS256", "typ": "JWT" });
    let far = 4_000_000_000_u64;
    let rest = format!(r#""sub":"u","exp":{far}"#);
    let payloads = [
        "[]".to_owned(),
        "[{}]".to_owned(),
        "\"org_a\"".to_owned(),
        "null".to_owned(),
        "0".to_owned(),
        String::new(),
        "{".to_owned(),
        format!(r#"{{"organizationId":"org_a",{rest}}} {{}}"#),
        format!(r#"{{"organizationId":"org_a",{rest},"exp":{far}}}"#),
        format!(r#"{{"organizationId":"org_a",{rest},"exp":1}}"#),
        r#"{"organizationId":"org_a","sub":"u","exp":-1}"#.to_owned(),
        r#"{"organizationId":"org_a","sub":"u","exp":"4000000000"}"#.to_owned(),
        r#"{"organizationId":"org_a","sub":"u","exp":{}}"#.to_owned(),
        "{\"organizationId\":\"org_a\u{0}\",\"sub\":\"u\",\"exp\":4000000000}".to_owned(),
        format!(r#"{{"organizationId":"org_a","organizationId":"org_a",{rest}}}"#),
        format!(r#"{{"organizationId":"org_a","sub":"v",{rest}}}"#),
    ];
    for payload in payloads {
        refused(&app, &signed(&good, &payload, &ours), &payload).await;
    }
    let bytes = [&b"{\"organizationId\":\"org_a\",\"sub\":\"u\xff\",\"exp\":4000000000}"[..]];
    for payload in bytes {
        refused(&app, &of_bytes(good.to_string().as_bytes(), payload, &ours), &payload).await;
    }
    // One of the two algorithms is none.
    for header in [r#"{"alg":"none","alg":"HS256"}"#, r#"{"alg":"HS256","alg":"none"}"#, "[]", ""] {
        let token = of_bytes(header.as_bytes(), claims_text().as_bytes(), &ours);
        refused(&app, &token, &header).await;
    }
    unharmed(&app).await;
}

/// A token has one spelling.
#[tokio::test]
async fn a_token_in_another_spelling_is_refused() {
    let app = App::start().await;
    let good = token(&claims("org_a", "u"));
    assert_accepted(&send(&app, &good).await, &"good");
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    // The last character has bits that do not belong to the signature.
    let last = signature.chars().last().expect("a character");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).expect("a base64url character");
    let twin = &alphabet[at ^ 1..=at ^ 1];
    let cut = &signature[..signature.len() - 1];
    let spellings = [
        format!("{good}."),
        format!(".{good}"),
        format!("{good}=="),
        format!("{header}==.{payload}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}.{payload}.{signature}.{signature}.{signature}"),
        format!("{header}.{payload}.{cut}{twin}"),
        format!("{header}.{payload}.{cut}"),
        format!("{header}.{payload}.{signature}A"),
        format!("{header} .{payload}.{signature}"),
        format!("{header}.{payload}\t.{signature}"),
        format!("\"{good}\""),
        format!("{good},{good}"),
        format!("{good} {good}"),
        good.to_uppercase(),
    ];
    for spelling in spellings {
        refused(&app, &spelling, &"another spelling").await;
    }
    unharmed(&app).await;
}

/// RFC 7515 4.1.11: members that a header lists as critical must be understood, and Hookgate
/// supports no extension. RFC 7797 defines one, an unencoded payload.
#[tokio::test]
async fn an_unsupported_critical_header_is_refused() {
    let app = App::start().await;
    let ours = hmac(SECRET);
    for more in [
        json!({ "crit": ["exp"], "exp": 4_000_000_000_u64 }),
        json!({ "crit": ["b64"], "b64": true }),
        json!({ "crit": ["b64"], "b64": false }),
        json!({ "crit": [] }),
        json!({ "crit": null }),
        json!({ "crit": "exp" }),
        json!({ "crit": ["http://example.com/UNDEFINED"] }),
        json!({ "b64": false }),
        json!({ "b64": "true" }),
        json!({ "b64": null }),
    ] {
        let header = merged(&json!({ "alg": "HS256", "typ": "JWT" }), &more);
        let token = signed(&header, &claims_text(), &ours);
        assert_refused(&send(&app, &token).await, "invalid_token", &header);
    }
    let header = json!({ "alg": "HS256", "b64": true });
    assert_accepted(&send(&app, &signed(&header, &claims_text(), &ours)).await, &header);
    unharmed(&app).await;
}

#[tokio::test]
async fn two_credentials_are_refused() {
    let app = App::start().await;
    let token = token(&claims("org_a", "u"));
    for (first, second) in [
        ("Bearer key_a", "Bearer key_a"),
        ("Bearer key_a", "Bearer key_b"),
        ("Bearer key_a", "Basic a2V5X2E6"),
        ("", "Bearer key_a"),
        ("Bearer key_a", &format!("Bearer {token}")),
    ] {
        let (head, body) = app.webhook("wh_1").header("authorization", first).to_http1();
        let head = String::from_utf8(head).expect("a string");
        let two = head.replacen("\r\n\r\n", &format!("\r\nAuthorization: {second}\r\n\r\n"), 1);
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send([two.as_bytes(), &body].concat()).await;
        let reply = connection.reply().await.expect("an answer");
        assert_refused(&reply, "missing_credentials", &(first, second));
    }
    let joined = app.webhook("wh_1").header("authorization", "Bearer key_a, Bearer key_a");
    assert_refused(&joined.send().await, "invalid_api_key", &"on one line");
    unharmed(&app).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_signature_of_zeroes_is_refused() {
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
        let (pair, name) = (KeyPair::for_algorithm(algorithm), format!("{algorithm:?}"));
        let build = App::build();
        let file = build.file("key.pem", &pair.public_pem);
        let app = build.config(|config| {
            config
                .set("auth.jwt.algorithms", vec![name.as_str()])
                .set("auth.jwt.secrets", Vec::<String>::new());
            config.set("auth.jwt.public_key_files", vec![file]);
        });
        let app = app.start().await;
        for byte in [0, 1, 255] {
            let header = json!({ "alg": name, "typ": "JWT" });
            let forged = forge(&header, &claims("org_a", "u"), &[byte; 64]);
            refused(&app, &forged, &name).await;
        }
    }
}

fn claims_text() -> String {
    claims("org_a", "u").to_string()
}

pub(super) fn signed(header: &Value, payload: &str, key: &EncodingKey) -> String {
    signed_by(header, payload, key, Algorithm::HS256)
}

fn signed_by(header: &Value, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let header = header.to_string();
    sign_bytes(header.as_bytes(), payload.as_bytes(), key, algorithm)
}

pub(super) fn of_bytes(header: &[u8], payload: &[u8], key: &EncodingKey) -> String {
    sign_bytes(header, payload, key, Algorithm::HS256)
}

/// Signs any bytes as header and payload.
fn sign_bytes(header: &[u8], payload: &[u8], key: &EncodingKey, algorithm: Algorithm) -> String {
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{payload}");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm);
    message + "." + &signature.expect("a key for the algorithm")
}

async fn refused(app: &App, credential: &str, what: &dyn std::fmt::Debug) {
    let reply = send(app, credential).await;
    assert_eq!(reply.status, 401, "{what:?}: {}", reply.text());
    let code = reply.code();
    assert!(["invalid_token", "invalid_api_key"].contains(&code.as_str()), "{what:?}: {code}");
}

async fn unharmed(app: &App) {
    assert_accepted(&send(app, &token(&claims("org_a", "u"))).await, &"a good token");
}
