//! Members of a token that Hookgate does not use: they need not even be readable.

use super::attacks::signed;
use super::{assert_accepted, assert_refused, send};
use serde_json::json;
use testkit::App;
use testkit::config::SECRET;
use testkit::keys::hmac;
use testkit::tokens::now;

/// Members that a parser of the whole token fails on.
fn strange() -> Vec<String> {
    let objects = format!(r#""x":{}1{}"#, r#"{"":"#.repeat(1000), "}".repeat(1000));
    let arrays = |levels: usize| format!(r#""x":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    [
        r#""x":"\ud800""#,
        r#""x":"\udc00\ud800""#,
        r#""\ud800":1"#,
        r#""x":{"\udfff":["\ud800"]}"#,
        r#""x":1e999"#,
        r#""x":123456789012345678901234567890"#,
        r#""x":1,"x":2"#,
        r#""x":"\u0000""#,
        r#""iss":"\ud800","aud":"\ud800","jti":"\ud800","iat":"\ud800""#,
        r#""userId":"\ud800","sub":"\ud800""#,
        r#""userId":"u","userId":"v""#,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([129, 5000].map(arrays))
    .chain([objects])
    .collect()
}

#[tokio::test]
async fn an_unused_claim_refuses_no_token() {
    let app = App::start().await;
    let header = json!({ "alg": "HS256" });
    let token = |members: &str| {
        let expires = now() + 3600;
        let claims = format!(r#"{{{members},"id":"u","organizationId":"org_a","exp":{expires}}}"#);
        signed(&header, &claims, &hmac(SECRET))
    };
    for members in strange() {
        assert_accepted(&send(&app, &token(&members)).await, &members.get(..40));
    }
    for members in [
        r#""id":"\ud800""#,
        r#""organizationId":"\ud800""#,
        r#""exp":1"#,
        r#""nbf":"\ud800""#,
        r#""nbf":null"#,
        r#""nbf":0,"nbf":0"#,
        "\"x\":\"\u{1}\"",
        r#""x":"\u12""#,
        r#""x":01"#,
        r#""x""#,
        "x:1",
    ] {
        assert_refused(&send(&app, &token(members)).await, "invalid_token", &members);
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_unused_header_member_refuses_no_token() {
    let app = App::start().await;
    let claims = super::claims("org_a", "u").to_string();
    let token = |members: &str| {
        super::attacks::of_bytes(
            format!(r#"{{{members},"alg":"HS256"}}"#).as_bytes(),
            claims.as_bytes(),
            &hmac(SECRET),
        )
    };
    for members in strange() {
        assert_accepted(&send(&app, &token(&members)).await, &members.get(..40));
    }
    for members in [r#""typ":"\ud800""#, r#""jwk":1,"x5c":{},"cty":[],"zip":1,"enc":null"#] {
        assert_accepted(&send(&app, &token(members)).await, &members);
    }
    for members in [r#""kid":"\ud800""#, r#""kid":"a","kid":"a""#, r#""alg":"HS256""#] {
        assert_refused(&send(&app, &token(members)).await, "invalid_token", &members);
    }
    app.assert_accounting().await;
}
