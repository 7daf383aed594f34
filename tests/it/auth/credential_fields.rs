//! `auth.api_key.headers` and `auth.api_key.schemes`: which fields and schemes carry credentials.

use super::{assert_accepted, assert_refused, merged};
use serde_json::json;
use testkit::documents::user;
use testkit::tokens::{claims, token};
use testkit::{App, Config, Documents, Reply};

/// Fields of a request: names and values.
type Fields<'a> = &'a [(&'a str, &'a str)];

async fn app(headers: &[&str], schemes: &[&str]) -> App {
    let mut documents = Documents::two_organizations();
    // A key that is a token by its shape.
    documents.users.push(merged(&user("t", "org_a", ""), &json!({ "apiKey": TOKEN_SHAPED })));
    let build = App::build().documents(documents).config(|config| {
        set(config, "headers", headers);
        set(config, "schemes", schemes);
    });
    build.start().await
}

fn set(config: &mut Config, key: &str, names: &[&str]) {
    if !names.is_empty() {
        config.set(&format!("auth.api_key.{key}"), names.to_vec());
    }
}

/// The first part is `{"alg":"x"}`.
const TOKEN_SHAPED: &str = "eyJhbGciOiJ4In0.e30.AAAA";

/// Sends these fields, in this order, over HTTP/1.1.
async fn send(app: &App, fields: Fields<'_>) -> Reply {
    let mut head = String::from(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 20\r\n",
    );
    for (name, value) in fields {
        head.extend([name, ": ", value, "\r\n"]);
    }
    app.raw(format!("{head}\r\n{{\"webhookId\":\"wh_1\"}}")).await
}

async fn assert_missing(app: &App, fields: Fields<'_>, challenge: &str) {
    let reply = send(app, fields).await;
    assert_eq!((reply.status, reply.code().as_str()), (401, "missing_credentials"), "{fields:?}");
    assert_eq!(reply.header("www-authenticate"), Some(challenge), "{fields:?}");
}

#[tokio::test]
async fn a_field_of_its_own_carries_the_key_itself() {
    let app = app(&["X-API-Key"], &[]).await;
    for name in ["X-API-Key", "x-api-key", "X-API-KEY"] {
        assert_accepted(&send(&app, &[(name, "key_a")]).await, &name);
    }
    // Authorization is not looked at.
    assert_accepted(
        &send(&app, &[("Authorization", "Basic eA=="), ("X-API-Key", "key_a")]).await,
        &"with another Authorization",
    );
    assert_accepted(&send(&app, &[("X-API-Key", TOKEN_SHAPED)]).await, &"the shape of a token");
    let token = token(&claims("org_a", "u"));
    for value in ["Bearer key_a", "unknown", &token] {
        let reply = send(&app, &[("X-API-Key", value)]).await;
        assert_refused(&reply, "invalid_api_key", &value);
    }
    let missing: [Fields<'_>; 5] = [
        &[],
        &[("X-API-Key", "")],
        &[("Authorization", "Bearer key_a")],
        &[("X-API-Key", "key_a"), ("X-API-Key", "key_a")],
        &[("X-API-Key", "key_a"), ("x-api-key", "")],
    ];
    for fields in missing {
        assert_missing(&app, fields, "Bearer").await;
    }
    let sentence = "Authentication required: send your API key in X-API-Key";
    assert_eq!(send(&app, &[]).await.json()["error"], sentence);
    let log = app.hookgate.log();
    assert!(log.contains("auth.api_key: tokens are accepted only after Bearer"), "{log}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn one_of_several_fields_carries_the_credential() {
    let app = app(&["Authorization", "X-API-Key", "api-token"], &[]).await;
    let token = format!("Bearer {}", token(&claims("org_a", "u")));
    let accepted: [Fields<'_>; 4] = [
        &[("Authorization", "Bearer key_a")],
        &[("Authorization", &token)],
        &[("X-API-Key", "key_a")],
        &[("Api-Token", "key_a"), ("X-Other", "key_b")],
    ];
    for fields in accepted {
        assert_accepted(&send(&app, fields).await, &fields);
    }
    let missing: [Fields<'_>; 6] = [
        &[("Authorization", "Bearer key_a"), ("X-API-Key", "key_a")],
        &[("X-API-Key", "key_a"), ("Authorization", &token)],
        &[("X-API-Key", "key_a"), ("Api-Token", "key_a")],
        &[("Authorization", "Basic eA=="), ("X-API-Key", "key_a")],
        &[("Authorization", "Bearer key_a"), ("Authorization", "Bearer key_a")],
        &[("Authorization", "key_a")],
    ];
    for fields in missing {
        assert_missing(&app, fields, "Bearer").await;
    }
    // By a client library the rules are the same.
    let call = app.webhook("wh_1").header("x-api-key", "key_a");
    call.send().await.assert_rejected(401, "missing_credentials");
    let call = app.webhook("wh_1").without("authorization").header("x-api-key", "key_a");
    assert_accepted(&call.send().await, &"by a client library");
    app.assert_accounting().await;
}

#[tokio::test]
async fn every_configured_scheme_is_accepted() {
    let app = app(&[], &["Bearer", "ApiKey"]).await;
    let token = token(&claims("org_a", "u"));
    for value in ["Bearer key_a", "ApiKey key_a", "APIKEY  key_a", "apikey key_a"] {
        assert_accepted(&send(&app, &[("Authorization", value)]).await, &value);
    }
    assert_accepted(&send(&app, &[("Authorization", &format!("bearer {token}"))]).await, &"token");
    // Only Bearer carries tokens; after another scheme the value is a key.
    let shaped = format!("ApiKey {TOKEN_SHAPED}");
    assert_accepted(&send(&app, &[("Authorization", &shaped)]).await, &"a key of that shape");
    for (value, code) in [
        (format!("Bearer {TOKEN_SHAPED}"), "invalid_token"),
        (format!("ApiKey {token}"), "invalid_api_key"),
        ("ApiKey unknown".to_owned(), "invalid_api_key"),
    ] {
        let reply = send(&app, &[("Authorization", &value)]).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, code), "{value}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer, ApiKey"), "{value}");
    }
    for value in ["Basic key_a", "ApiKeys key_a", "ApiKey", "ApiKey ", "key_a", "X-API-Key key_a"] {
        assert_missing(&app, &[("Authorization", value)], "Bearer, ApiKey").await;
    }
    assert_missing(&app, &[("X-API-Key", "key_a")], "Bearer, ApiKey").await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn without_bearer_no_token_is_accepted() {
    let app = app(&["Authorization", "X-API-Key"], &["Token"]).await;
    let token = token(&claims("org_a", "u"));
    for fields in [[("Authorization", "token key_a")], [("X-API-Key", "key_a")]] {
        assert_accepted(&send(&app, &fields).await, &fields);
    }
    let reply = send(&app, &[("Authorization", &format!("Token {token}"))]).await;
    assert_eq!((reply.status, reply.code().as_str()), (401, "invalid_api_key"));
    assert_missing(&app, &[("Authorization", &format!("Bearer {token}"))], "Token").await;
}

/// The exit code and the report of `hookgate check` for these names.
async fn check(key: &str, names: &[&str], api_keys_enabled: bool) -> (Option<i32>, String) {
    let mut config = Config::new();
    config.set("auth.api_key.enabled", api_keys_enabled);
    config.set(&format!("auth.api_key.{key}"), names.to_vec());
    let output = testkit::hookgate::check(&config, &[]).await;
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_configuration_without_a_place_for_tokens_is_reported() {
    for (key, name) in [("headers", "X-API-Key"), ("schemes", "ApiKey")] {
        let note = "auth.api_key: tokens are accepted only after Bearer in Authorization";
        let (code, report) = check(key, &[name], false).await;
        assert!(code == Some(2) && report.contains(note), "{report}");
        let (code, report) = check(key, &[name], true).await;
        assert!(code == Some(0) && report.contains(&format!("warning: {note}")), "{report}");
    }
}

#[tokio::test]
async fn a_faulty_list_of_names_is_reported() {
    let rows: [(&str, &[&str], &str); 5] = [
        ("headers", &[], "headers: at least one is needed"),
        ("headers", &["X-Key", "x-key"], "headers: names x-key twice"),
        ("headers", &["traceparent"], "headers: traceparent is reserved"),
        (
            "schemes",
            &["Api Key"],
            "schemes: \"Api Key\" has characters that are not allowed in a name",
        ),
        ("schemes", &["Bearer", "bearer"], "schemes: names bearer twice"),
    ];
    for (key, names, expected) in rows {
        let (code, report) = check(key, names, true).await;
        assert!(code == Some(2) && report.contains(expected), "{expected}: {report}");
    }
}
