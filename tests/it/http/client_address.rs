//! The address of the client: the peer, or what trusted proxies say, in the access log and in jobs.

use serde_json::{Value, json};
use testkit::app::Builder;
use testkit::http::Call;
use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config};

const LOOPBACK: [&str; 2] = ["127.0.0.1", "10.0.0.0/8"];

/// An app that logs each request, and whose jobs have the client's address.
fn build(change: impl FnOnce(&mut Config)) -> Builder {
    App::build().config(|config| {
        let template = "address = \"{clientAddress}\"\nrequest = \"{requestId}\"";
        config.set("queue.data", template.parse::<toml::Table>().expect("TOML"));
        config.set("telemetry.log", "info,hookgate::access=debug");
        config.set("telemetry.format", "json");
        change(config);
    })
}

fn trusting(field: &str) -> Builder {
    build(|config| {
        config.set("server.trusted_proxies", LOOPBACK.to_vec());
        config.set("server.client_address_header", field);
    })
}

/// The member `client` of the only line of the access log about a request.
async fn logged(app: &App, id: &str) -> Value {
    let lines = || -> Vec<Value> {
        let log = app.hookgate.log();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["request_id"] == id).collect()
    };
    until("the request is logged", async || lines().len() == 1).await;
    lines().pop().and_then(|line| line.get("client").cloned()).unwrap_or_default()
}

fn with_fields(mut call: Call, (name, lines): (&str, &[&str])) -> Call {
    for line in lines {
        call = call.add_header(name, *line);
    }
    call
}

/// Sends webhooks with header fields, and checks the address in the job and in the log.
async fn assert_clients(app: &App, cases: &[(&str, &[&str], &str)]) {
    for (number, (name, lines, expected)) in cases.iter().enumerate() {
        let id = format!("request-{number}");
        let call = app.webhook("wh_1").header("x-request-id", &id);
        assert_eq!(with_fields(call, (name, lines)).send().await.matched(), 1);
        let job = app.redis.queue().waiting().await.pop().expect("a job").data();
        assert_eq!(job, json!({ "address": expected, "request": id }), "{lines:?}");
        assert_eq!(logged(app, &id).await, *expected, "{lines:?}");
    }
}

#[tokio::test]
async fn the_fields_of_a_peer_that_is_not_trusted_count_for_nothing() {
    let untrusted = build(|config| {
        config.set("server.trusted_proxies", vec!["10.0.0.0/8", "::1"]);
    });
    for builder in [build(|_| ()), untrusted] {
        let app = builder.start().await;
        assert_clients(
            &app,
            &[
                ("x-forwarded-for", &[], "127.0.0.1"),
                ("x-forwarded-for", &["192.0.2.1"], "127.0.0.1"),
                ("forwarded", &["for=192.0.2.1"], "127.0.0.1"),
            ],
        )
        .await;
    }
}

const X_FORWARDED_FOR: &[(&str, &[&str], &str)] = &[
    ("x-forwarded-for", &[], "127.0.0.1"),
    ("x-forwarded-for", &["198.51.100.9, 192.0.2.1, 10.1.1.1"], "192.0.2.1"),
    ("x-forwarded-for", &["198.51.100.9", "[2001:db8::1]:4711", "10.1.1.1:80"], "2001:db8::1"),
    ("x-forwarded-for", &["192.0.2.1, unknown, 10.1.1.1"], "10.1.1.1"),
    ("forwarded", &["for=192.0.2.1"], "127.0.0.1"),
];

#[tokio::test]
async fn a_trusted_proxy_names_the_client_over_http_1() {
    let app = trusting("X-Forwarded-For").start().await;
    assert_clients(&app, X_FORWARDED_FOR).await;
    // A refused request has its client in the log too.
    let call = app.webhook("wh_1").bearer("unknown-key").header("x-request-id", "refused");
    let call = call.header("x-forwarded-for", "192.0.2.7");
    call.send().await.assert_rejected(401, "invalid_api_key");
    assert_eq!(logged(&app, "refused").await, "192.0.2.7");
    // A head full of proxies is read to a bound.
    let many = vec!["10.1.1.1"; 2000].join(",");
    let call = app.webhook("wh_1").header("x-request-id", "many");
    assert_eq!(call.header("x-forwarded-for", &many).send().await.matched(), 1);
    assert_eq!(logged(&app, "many").await, "10.1.1.1");
    let metrics = app.hookgate.metrics_text().await;
    assert!(!metrics.contains("192.0.2."), "no label has an address");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_over_http_2() {
    let authority = Authority::new();
    let app = trusting("X-Forwarded-For").tls(&authority).start().await;
    assert_eq!(app.webhook("wh_1").send().await.version, hyper::Version::HTTP_2);
    assert_clients(&app, X_FORWARDED_FOR).await;
}

#[tokio::test]
async fn the_peer_is_the_client_over_http_2() {
    let authority = Authority::new();
    let app = build(|_| ()).tls(&authority).start().await;
    assert_eq!(app.webhook("wh_1").send().await.version, hyper::Version::HTTP_2);
    assert_clients(&app, &[("x-forwarded-for", &["192.0.2.1"], "127.0.0.1")]).await;
}

#[tokio::test]
async fn the_field_of_rfc_7239_is_read_instead() {
    let app = trusting("forwarded").start().await;
    assert_clients(
        &app,
        &[
            ("forwarded", &["for=\"[2001:db8::1]:4711\";proto=https, for=10.1.1.1"], "2001:db8::1"),
            ("forwarded", &["for=192.0.2.9", "For=192.0.2.1;by=_p", "for=10.1.1.1"], "192.0.2.1"),
            ("forwarded", &["for=192.0.2.1, for=_hidden"], "127.0.0.1"),
            ("x-forwarded-for", &["192.0.2.1"], "127.0.0.1"),
        ],
    )
    .await;
}

/// The limit of connections counts peers: what a proxy says of its clients changes nothing.
#[tokio::test]
async fn connections_are_counted_by_peer() {
    let app = trusting("X-Forwarded-For").config(|config| {
        config.set("server.max_connections_per_address", 1);
    });
    let app = app.start().await;
    let body = r#"{"webhookId":"wh_1"}"#;
    let request = |client: &str| {
        format!(
            "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer key_a\r\n\
             X-Forwarded-For: {client}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut held = Connection::open(app.hookgate.address()).await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        held.send(request(client)).await;
        assert_eq!(held.reply().await.expect("an answer").matched(), 1);
        let job = app.redis.queue().waiting().await.pop().expect("a job");
        assert_eq!(job.at("/address"), client);
    }
    let mut surplus = Connection::open(app.hookgate.address()).await;
    assert!(surplus.closed().await.is_empty());
}
