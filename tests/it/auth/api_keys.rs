//! API keys: how they are stored, which organization they belong to, and which credentials are read
//! as API keys.

use super::{assert_accepted, assert_refused, identity_of, merged, send, with_exp};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hex::encode as hex;
use serde_json::json;
use testkit::documents::{user, workflow};
use testkit::scratch::Scratch;
use testkit::tokens::{claims, token};
use testkit::{App, Config, Documents};

/// API keys that resemble a token or have three parts like one: the first part is no JSON object
/// with `alg`.
const KEYS: [&str; 15] = [
    "a.b",
    "a..b",
    ".a.b",
    "a.b.c.d",
    "a.b.c=",
    "a.b.c/d",
    "with space",
    "schl\u{fc}ssel",
    "prefix.id.secret",
    "a.b.c",
    "a-_.0.z",
    // {}, [], {"typ":"JWT"} and {"Alg":"HS256"}
    "e30.e30.AAAA",
    "W10.e30.AAAA",
    "eyJ0eXAiOiJKV1QifQ.e30.AAAA",
    "eyJBbGciOiJIUzI1NiJ9.e30.AAAA",
];

/// Credentials that are read as tokens, because their first part is `{"alg":"x"}` or
/// `{"alg":null}`.
const TOKENS: [&str; 2] = ["eyJhbGciOiJ4In0.e30.AAAA", "eyJhbGciOm51bGx9.b.c"];

#[tokio::test]
async fn api_keys_are_strings_or_lists_of_strings() {
    let app = App::build().documents(users_with_keys(str::to_owned)).start().await;
    assert_keys(&app).await;
    for key in KEYS {
        assert_accepted(&send(&app, key).await, &key);
    }
    for key in TOKENS {
        assert_refused(&send(&app, key).await, "invalid_token", &key);
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn api_keys_can_be_stored_as_digests() {
    let mut documents = users_with_keys(sha256);
    documents.users.push(user("upper", "org_a", &sha256("key_upper").to_uppercase()));
    documents.users.push(user("malformed", "org_a", "key_plain"));
    let app = start_with(documents, &[("users.api_key_encoding", "sha256")]).await;
    assert_keys(&app).await;
    assert_accepted(&send(&app, "key_upper").await, &"digits in upper case");
    for key in ["key_plain", &sha256("key_a")] {
        assert_refused(&send(&app, key).await, "invalid_api_key", &key);
    }
    assert_skipped(&app, 1.0).await;
}

#[tokio::test]
async fn api_keys_can_be_stored_as_digests_in_base64() {
    let mut documents = users_with_keys(sha256_base64);
    let url_safe = |key: &str| URL_SAFE_NO_PAD.encode(digest(&SHA256, key.as_bytes()));
    documents.users.push(user("url_safe", "org_a", &url_safe("key_url_safe")));
    documents.users.push(user("hex", "org_a", &sha256("key_hex")));
    documents.users.push(user("plain", "org_a", "key_plain"));
    let app = start_with(documents, &[("users.api_key_encoding", "sha256-base64")]).await;
    assert_keys(&app).await;
    assert_accepted(&send(&app, "key_url_safe").await, &"without padding");
    for key in ["key_hex", "key_plain", &sha256_base64("key_a"), &sha256("key_a")] {
        assert_refused(&send(&app, key).await, "invalid_api_key", &key);
    }
    assert_skipped(&app, 2.0).await;
}

#[tokio::test]
async fn api_keys_can_be_stored_as_digests_by_a_pepper() {
    let build = App::build();
    // A line break at the end of a file is not part of a secret.
    let pepper = build.file("pepper", format!("{PEPPER}\n"));
    let mut documents = users_with_keys(|key| hmac_sha256(PEPPER, key));
    documents.users.push(user("upper", "org_a", &hmac_sha256(PEPPER, "key_upper").to_uppercase()));
    documents.users.push(user("other", "org_a", &hmac_sha256("another pepper", "key_other")));
    documents.users.push(user("without", "org_a", &sha256("key_without")));
    documents.users.push(user("malformed", "org_a", "key_plain"));
    let path = pepper.clone();
    let build = build.documents(documents).config(|config| {
        config.set("users.api_key_encoding", "hmac-sha256").set("users.pepper_file", path);
    });
    let mut app = build.start().await;
    assert_keys(&app).await;
    assert_accepted(&send(&app, "key_upper").await, &"digits in upper case");
    let stored = hmac_sha256(PEPPER, "key_a");
    for key in ["key_other", "key_without", "key_plain", &stored] {
        assert_refused(&send(&app, key).await, "invalid_api_key", &key);
    }
    assert_skipped(&app, 1.0).await;

    // Another pepper takes effect after a restart, and a reload names it.
    std::fs::write(&pepper, "another pepper").expect("the test's own file");
    app.hookgate.reload().await;
    let log = app.hookgate.log();
    let warning = log.lines().find(|line| line.contains("after a restart"));
    assert!(warning.is_some_and(|line| line.contains("users.pepper_file")), "{log}");
    assert_accepted(&send(&app, "key_a").await, &"the pepper in use");
    app.hookgate.restart().await;
    assert_accepted(&send(&app, "key_other").await, &"the other pepper");
    assert_refused(&send(&app, "key_a").await, "invalid_api_key", &"the first pepper");
    let log = app.hookgate.log();
    assert!(log.contains("users.pepper_file: has fewer than 32 bytes"), "{log}");
    assert!(!log.contains(PEPPER) && !log.contains("another pepper"));
}

#[tokio::test]
async fn a_faulty_pepper_is_named() {
    let mut config = Config::new();
    let files = Scratch::new("pepper");
    let missing = files.join("missing").display().to_string();
    let blank = files.write("blank", " \n").display().to_string();
    let binary = files.write("binary", b"\xff\xfe\xfd").display().to_string();
    config.set("users.api_key_encoding", "hmac-sha256");
    for pepper in ["", &missing, &blank, &binary] {
        config.set("users.pepper_file", pepper);
        let output = testkit::hookgate::check(&config, &[]).await;
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(2), "{pepper}: {report}");
        assert!(report.contains("users.pepper_file"), "{pepper}: {report}");
    }
    let unused = files.write("unused", PEPPER).display().to_string();
    config.set("users.api_key_encoding", "sha256").set("users.pepper_file", unused);
    let output = testkit::hookgate::check(&config, &[]).await;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("warning: users.pepper_file: is only used"), "{report}");
}

#[tokio::test]
async fn api_keys_can_be_disabled() {
    let app = App::with(|config| {
        config.set("auth.api_key.enabled", false);
    })
    .await;
    assert_refused(&send(&app, "key_a").await, "invalid_api_key", &"a known key");
    assert_accepted(&send(&app, &token(&claims("org_a", "u"))).await, &"a token");
    assert_accepted(&send(&app, &with_exp(&json!({ "sub": "user_1" }))).await, &"a known user");
}

#[tokio::test]
async fn api_keys_work_without_a_key_for_tokens() {
    let app = App::with(|config: &mut Config| {
        config.remove("auth.jwt.secrets");
    })
    .await;
    assert_accepted(&send(&app, "key_a").await, &"a key");
    assert_refused(&send(&app, &token(&claims("org_a", "u"))).await, "invalid_token", &"a token");
}

/// Users of two organizations: keys as a string and as the list `list_1`, `list_2` in `org_a`;
/// `shared` in both; some empty keys.
fn users_with_keys(stored: impl Fn(&str) -> String) -> Documents {
    let mut documents = Documents { workflows: Vec::new(), users: Vec::new() };
    documents.workflows.push(workflow("wf_1", "org_a", "wh_1"));
    documents.workflows.push(workflow("wf_b", "org_b", "wh_1"));
    let lists = [
        ("text", "org_a", json!(stored("key_a"))),
        ("list", "org_a", json!([stored("list_1"), "", stored("list_2")])),
        ("shared_a", "org_a", json!([stored("shared"), stored("own_a")])),
        ("shared_b", "org_b", json!([stored("shared"), stored("own_b")])),
        ("shared_c", "org_b", json!(stored("shared"))),
        ("colleague_1", "org_b", json!(stored("team"))),
        ("colleague_2", "org_b", json!(stored("team"))),
        ("empty_a", "org_a", json!("")),
        ("empty_b", "org_b", json!([""])),
        ("none", "org_b", json!(null)),
        (
            "shapes",
            "org_a",
            json!([&KEYS[..], &TOKENS[..]].concat().into_iter().map(&stored).collect::<Vec<_>>()),
        ),
    ];
    for (id, organization, keys) in lists {
        documents.users.push(merged(&user(id, organization, ""), &json!({ "apiKey": keys })));
    }
    documents
}

/// Asserts the answers for the keys of [`users_with_keys`], in any form of storage.
async fn assert_keys(app: &App) {
    let rows = [
        ("key_a", "org_a", "text"),
        ("list_1", "org_a", "list"),
        ("list_2", "org_a", "list"),
        ("own_a", "org_a", "shared_a"),
        ("own_b", "org_b", "shared_b"),
        ("team", "org_b", "colleague_1"),
    ];
    for (key, organization, user) in rows {
        assert_eq!(
            identity_of(app, key).await,
            (organization.to_owned(), user.to_owned()),
            "{key}"
        );
    }
    for key in ["shared", "unknown", "KEY_A", "key_", "\"\"", "null"] {
        assert_refused(&send(app, key).await, "invalid_api_key", &key);
    }
    let conflicting =
        app.hookgate.metrics().await.value("hookgate_index_conflicting_api_keys", &[]);
    assert!((conflicting - 1.0).abs() < f64::EPSILON, "{conflicting} keys conflict");
}

async fn start_with(documents: Documents, settings: &[(&str, &str)]) -> App {
    let build = App::build().documents(documents).config(|config| {
        for (key, value) in settings {
            config.set(key, *value);
        }
    });
    build.start().await
}

async fn assert_skipped(app: &App, expected: f64) {
    let metrics = app.hookgate.metrics().await;
    let skipped = metrics.value("hookgate_index_skipped_api_keys_total", &[]);
    assert!((skipped - expected).abs() < f64::EPSILON, "{skipped} keys were skipped");
}

const PEPPER: &str = "a-pepper-of-the-tests-which-has-more-than-32-bytes";

fn hmac_sha256(pepper: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, pepper.as_bytes());
    hex(hmac::sign(&key, text.as_bytes()).as_ref())
}

fn sha256_base64(text: &str) -> String {
    STANDARD.encode(digest(&SHA256, text.as_bytes()))
}

fn sha256(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}
