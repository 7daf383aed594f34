//! Triggers for certain clients only, of both families of addresses, behind proxies of both.

use super::route::{BODY, INVALID, SECRET, documents, matched};
use serde_json::json;
use testkit::deliveries::endpoints;
use testkit::{App, Reply};

/// A Hookgate behind proxies, with a trigger for two networks.
async fn start(header: &str) -> App {
    let verification = json!({
        "scheme": "github", "secret": SECRET,
        "allowedAddresses": ["203.0.113.0/24", "2001:db8:1::/48", "192.0.2.7"],
    });
    let build = App::build().documents(documents(&verification)).config(endpoints);
    let build = build.config(|config| {
        config.set("server.trusted_proxies", vec!["127.0.0.1", "10.0.0.0/8", "2001:db8:ff::/48"]);
        config.set("server.client_address_header", header);
    });
    build.start().await
}

async fn send(app: &App, secret: &str, header: &str, value: &str) -> Reply {
    app.github_delivery(secret, value, BODY).header(header, value).send().await
}

#[tokio::test]
async fn only_clients_of_the_networks_reach_a_trigger() {
    let app = start("X-Forwarded-For").await;
    for (value, is_allowed) in [
        ("203.0.113.0", true),
        ("203.0.113.255", true),
        ("203.0.112.255", false),
        ("203.0.114.0", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("2001:db8:1::", true),
        ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
        ("2001:db8:2::", false),
        ("2001:db8::ffff", false),
        ("[2001:db8:1::9]:4711", true),
        // The same client, as a proxy with sockets for both families writes it.
        ("::ffff:203.0.113.9", true),
        ("::ffff:198.51.100.9", false),
        // Proxies of both families, each of which adds the address that it has seen.
        ("203.0.113.9, 2001:db8:ff::1, 10.1.1.1", true),
        ("2001:db8:1::9, 10.1.1.1, 2001:db8:ff::1", true),
        // What the client itself has claimed.
        ("203.0.113.9, 198.51.100.9", false),
        ("203.0.113.9, 198.51.100.9, 10.1.1.1", false),
        ("2001:db8:1::9, 2001:db8:2::9, 2001:db8:ff::1", false),
        ("203.0.113.9, unknown, 10.1.1.1", false),
        ("unknown", false),
    ] {
        let reply = send(&app, SECRET, "x-forwarded-for", value).await;
        if is_allowed {
            assert_eq!(reply.status, 200, "{value}: {}", reply.text());
            assert_eq!(matched(&reply, 200), 1, "{value}");
        } else {
            assert_eq!(reply.status, 401, "{value}");
            assert_eq!(app.last_refusal("wh_1").await, "address_not_allowed", "{value}");
        }
    }
    let without = app.github_delivery(SECRET, "none", BODY).send().await;
    assert_eq!(without.status, 401, "the proxy itself is the client");
    // The address alone is not enough.
    let wrong = send(&app, "another secret of sixteen bytes", "x-forwarded-for", "203.0.113.9");
    wrong.await.assert_rejected(401, INVALID);
    app.redis.queue().waiting_exactly(9).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn the_field_of_rfc_7239_names_clients_too() {
    let app = start("Forwarded").await;
    for (value, status) in [
        ("for=203.0.113.9", 200),
        ("for=\"[2001:db8:1::9]:4711\", for=10.1.1.1", 200),
        ("for=203.0.113.9, for=198.51.100.9", 401),
        ("for=_hidden", 401),
    ] {
        assert_eq!(send(&app, SECRET, "forwarded", value).await.status, status, "{value}");
    }
    assert_eq!(send(&app, SECRET, "x-forwarded-for", "203.0.113.9").await.status, 401);
}
