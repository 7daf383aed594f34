//! Limits of deliveries that are not verified: by client, and for all of them together.

use super::route::{BODY, SECRET, documents, matched};
use serde_json::json;
use testkit::deliveries::endpoints;
use testkit::http::Call;
use testkit::{App, Config, Reply};

/// The client is in `X-Forwarded-For`, since the limit does not count internal peers.
pub(super) fn behind_a_proxy(config: &mut Config) {
    endpoints(config);
    config.set("server.trusted_proxies", vec!["127.0.0.1"]);
    config.set("endpoints.failed_verifications_per_minute", 5);
}

pub(super) async fn start(change: impl FnOnce(&mut Config)) -> App {
    let documents = documents(&json!({ "scheme": "github", "secret": SECRET }));
    App::build().documents(documents).config(behind_a_proxy).config(change).start().await
}

pub(super) fn from(client: &str, call: Call) -> Call {
    call.header("x-forwarded-for", client)
}

pub(super) fn wrong(app: &App, client: &str) -> Call {
    from(client, app.github_delivery("another secret of sixteen bytes", "d", BODY))
}

#[track_caller]
pub(super) fn assert_limited(reply: &Reply) {
    reply.assert_rejected(429, "rate_limited");
    let seconds: u64 = reply.header("retry-after").expect("a header").parse().expect("seconds");
    assert!((1..=60).contains(&seconds));
    assert_eq!(reply.header("ratelimit"), None);
}

#[tokio::test]
async fn a_client_that_fails_too_often_is_refused_before_its_body() {
    let app = start(|_| ()).await;
    for _ in 0..5 {
        wrong(&app, "203.0.113.7").send().await.assert_rejected(401, "invalid_signature");
    }
    assert_limited(&wrong(&app, "203.0.113.7").send().await);
    // A right signature too: its body is not read.
    let right = from("203.0.113.7", app.github_delivery(SECRET, "d", BODY));
    assert_limited(&right.send().await);
    let head = "POST /api/webhook/in/org_a/wh_1 HTTP/1.1\r\nHost: h\r\n\
        X-Forwarded-For: 203.0.113.7\r\nContent-Length: 1000\r\n\r\n";
    assert_limited(&app.raw(head).await);
    // Another client, and another endpoint, are not concerned.
    wrong(&app, "203.0.113.8").send().await.assert_rejected(401, "invalid_signature");
    let unknown = app.delivery("org_a", "wh_2", BODY);
    from("203.0.113.7", unknown).send().await.assert_rejected(404, "unknown_webhook");
    app.redis.queue().assert_empty().await;
    app.assert_accounting().await;
}

/// Providers share addresses: a stranger at the same one must not stop an honest sender.
#[tokio::test]
async fn a_client_with_an_accepted_delivery_is_not_refused() {
    let app = start(|_| ()).await;
    let right = |id: &str| from("203.0.113.7", app.github_delivery(SECRET, id, BODY)).send();
    assert_eq!(matched(&right("1").await, 200), 1);
    for _ in 0..20 {
        wrong(&app, "203.0.113.7").send().await.assert_rejected(401, "invalid_signature");
    }
    assert_eq!(matched(&right("2").await, 200), 1);
}

#[tokio::test]
async fn unknown_addresses_have_a_count_of_their_own() {
    let app = start(|_| ()).await;
    let unknown = |number: usize| {
        from("203.0.113.7", app.delivery("org_a", &format!("unknown_{number}"), BODY)).send()
    };
    for number in 0..5 {
        unknown(number).await.assert_rejected(404, "unknown_webhook");
    }
    assert_limited(&unknown(5).await);
    let known = from("203.0.113.7", app.github_delivery(SECRET, "d", BODY));
    assert_eq!(matched(&known.send().await, 200), 1);
}

#[tokio::test]
async fn clients_of_one_ipv6_network_are_one() {
    let app = start(|_| ()).await;
    for number in 0..5 {
        let client = format!("2001:db8:1:2::{number}");
        wrong(&app, &client).send().await.assert_rejected(401, "invalid_signature");
    }
    assert_limited(&wrong(&app, "2001:db8:1:2:ffff::1").send().await);
    wrong(&app, "2001:db8:1:3::1").send().await.assert_rejected(401, "invalid_signature");
}

#[tokio::test]
async fn a_peer_that_is_internal_and_not_trusted_is_not_counted() {
    let app = start(|config| {
        config.remove("server.trusted_proxies");
    })
    .await;
    for _ in 0..20 {
        wrong(&app, "203.0.113.7").send().await.assert_rejected(401, "invalid_signature");
    }
}
