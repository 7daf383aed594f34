//! Descriptions and requests that would cost too much, or get around the record of a delivery.

use super::{Request, described, verification};
use crate::endpoints::verification::RefusalKind;
use serde_json::json;

const SECRET: &str = "a secret of 24 bytes ...";

#[test]
fn at_most_a_thousand_members_are_compared_with_a_secret() {
    let rule = verification(&json!({ "scheme": "bodySecret", "path": "v.*.s", "secret": SECRET }));
    let body = |count: usize| {
        let members = vec![json!({ "s": SECRET }); count];
        Request::post(json!({ "v": members }).to_string())
            .header("content-type", "application/json")
    };
    assert!(body(1000).verify(&rule).is_ok());
    assert_eq!(body(1001).refusal(&rule), RefusalKind::Malformed);
}

#[test]
fn an_audience_contains_the_url_once() {
    let with = |audience: &str| {
        described(&json!({ "scheme": "jwt", "secret": SECRET, "audience": audience }))
    };
    assert!(with("{url}").is_ok());
    assert_eq!(with("{url}{url}").unwrap_err().member, "audience");
}

#[test]
fn forms_of_the_url_are_distinct() {
    let with = |forms: &[&str]| {
        let description = json!({
            "scheme": "hmac", "secret": SECRET, "header": "X-Sig", "signed": "{url}", "urlForms": forms,
        });
        verification(&description).identity()
    };
    let many = vec!["asSent"; 800];
    with(&many);
    assert!(with(&["asSent", "withPort"]) != with(&["asSent"]));
}

#[test]
fn the_token_of_a_handshake_is_a_secret_parameter() {
    let meta = verification(&json!({ "scheme": "meta", "secret": SECRET, "verifyToken": "t" }));
    assert_eq!(meta.secret_parameters().collect::<Vec<_>>(), ["hub.verify_token"]);
    let query = verification(&json!({ "scheme": "query", "name": "key", "secret": SECRET }));
    assert_eq!(query.secret_parameters().collect::<Vec<_>>(), ["key"]);
}
