//! `server.proxy_protocol`: whom it believes, and what it refuses.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::net::SocketAddr;

use testkit::app::Builder;
use testkit::hookgate::check;
use testkit::raw::Connection;
use testkit::relay::Relay;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config, ports};

use super::{WEBHOOK, client_of_webhook, logged_client};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 from 192.0.2.7 with this command and more bytes at its end.
fn binary(command: u8, more: usize) -> Vec<u8> {
    let rest = [&[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80][..], &vec![4; more]].concat();
    let length = u16::try_from(rest.len()).expect("a short header").to_be_bytes();
    [SIGNATURE, &[command, 0x11], &length, &rest].concat()
}

/// An app that expects headers from this network, and a relay that sends one.
async fn builder(trusted: &str, header: impl AsRef<[u8]>) -> (Builder, Relay, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let relay = Relay::start_with(address, header).await;
    let build = App::build().listening(&address.to_string(), relay.address()).config(|config| {
        config.set("server.proxy_protocol", true);
        config.set("server.trusted_proxies", vec![trusted, "10.0.0.0/8"]);
        config.set("telemetry.log", "info,hookgate::access=debug");
        config.set("telemetry.format", "json");
    });
    (build, relay, address)
}

async fn refused(app: &App) -> f64 {
    app.hookgate.metrics().await.sum("hookgate_proxy_protocol_errors_total")
}

#[tokio::test]
async fn both_versions_name_the_client() {
    let (build, relay, address) = builder("127.0.0.1", "").await;
    let app = build.start().await;
    let cases: [(&[u8], &str); 10] = [
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n", "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n", "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 80\r\n", "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", "unnamed"),
        (b"PROXY UNKNOWN 192.0.2.9 something else\r\n", "unnamed"),
        (&binary(0x21, 0), "192.0.2.7"),
        (&binary(0x21, 4068), "192.0.2.7"),
        (&binary(0x20, 0), "127.0.0.1"),
        (&[SIGNATURE, &[0x20, 0, 0, 0]].concat(), "127.0.0.1"),
        (&[SIGNATURE, &[0x21, 0, 0, 0]].concat(), "unnamed"),
    ];
    for (number, (header, expected)) in cases.into_iter().enumerate() {
        // In one piece, and byte by byte; then a second request on the same connection.
        for split in [false, true] {
            let mut connection = Connection::open(address).await;
            if split {
                for byte in header {
                    connection.send([*byte]).await;
                    tokio::task::yield_now().await;
                }
                connection.send(WEBHOOK).await;
            } else {
                connection.send([header, WEBHOOK.as_bytes()].concat()).await;
            }
            assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
            let id = format!("r{number}-{split}");
            let again = WEBHOOK.replace("Host: h", &format!("Host: h\r\nX-Request-Id: {id}"));
            connection.send(again).await;
            assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
            assert_eq!(logged_client(&app, &id).await, expected, "{}", header.escape_ascii());
        }
    }
    assert_eq!(refused(&app).await, 0.0);
    relay.set_header(binary(0x21, 9));
    assert_eq!(client_of_webhook(&app, "relayed", "").await, "192.0.2.7");
}

/// The header stands for the peer. What the client writes into its request counts only if the
/// client is itself a trusted proxy.
#[tokio::test]
async fn forwarded_fields_of_a_named_client_count_only_if_it_is_trusted() {
    let (build, relay, _) = builder("127.0.0.1", "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n").await;
    let app = build.start().await;
    assert_eq!(client_of_webhook(&app, "forged", "198.51.100.9").await, "192.0.2.1");
    let next = relay.address();
    let named = async |header: &[u8], id: &str| {
        relay.set_header(header);
        let mut connection = Connection::open(next).await;
        let fields = format!("Host: h\r\nX-Request-Id: {id}\r\nX-Forwarded-For: 198.51.100.9");
        connection.send(WEBHOOK.replace("Host: h", &fields)).await;
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
        logged_client(&app, id).await
    };
    assert_eq!(named(b"PROXY TCP4 10.1.1.1 127.0.0.1 1 2\r\n", "chain").await, "198.51.100.9");
    assert_eq!(named(b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n", "client").await, "203.0.113.1");
    // LOCAL: the proxy itself.
    assert_eq!(named(&binary(0x20, 0), "proxy itself").await, "198.51.100.9");
    // Clients that the proxy leaves unnamed: by a line, without an address, of a Unix socket.
    assert_eq!(named(b"PROXY UNKNOWN\r\n", "unknown").await, "unnamed");
    assert_eq!(named(&[SIGNATURE, &[0x21, 0, 0, 0]].concat(), "unspecified").await, "unnamed");
    let unix = [SIGNATURE, &[0x21, 0x31, 0, 216], &[b'a'; 216]].concat();
    assert_eq!(named(&unix, "unix").await, "unnamed");
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_is_closed_whatever_it_sends() {
    let (build, _relay, address) = builder("192.0.2.0/24", "").await;
    let app = build.start().await;
    let header = "PROXY TCP4 10.0.0.1 127.0.0.1 4711 80\r\n";
    let mut count = 0.0;
    for bytes in [format!("{header}{WEBHOOK}"), WEBHOOK.to_owned(), header.to_owned()] {
        let mut connection = Connection::open(address).await;
        connection.send(bytes).await;
        assert!(connection.closed().await.is_empty());
        count += 1.0;
        until("it is counted", async || refused(&app).await == count).await;
    }
    app.redis.queue().assert_empty().await;
    let log = app.hookgate.log();
    let mut lines = log.lines().filter(|line| line.contains("connection refused"));
    let line = lines.next().expect("a warning");
    assert!(line.contains("trusted_proxies") && line.contains("127.0.0.1"), "{line}");
    assert!(app.hookgate.metrics().await.sum("hookgate_requests_total") == 0.0);
}

#[tokio::test]
async fn a_malformed_or_late_header_closes_the_connection() {
    let (build, _relay, address) = builder("127.0.0.1", "").await;
    let build = build.config(|config| {
        config.set("server.header_timeout", "1s");
    });
    let app = build.start().await;
    let long_line = format!("PROXY UNKNOWN {}", "x".repeat(200));
    let cases: Vec<Vec<u8>> = vec![
        WEBHOOK.into(),
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.01 127.0.0.1 4711 80\r\n".to_vec(),
        long_line.into(),
        binary(0x21, 4069),
        [SIGNATURE, &[0x20, 0, 0xff, 0xff]].concat(),
        [SIGNATURE, &[0x31, 0x11, 0, 0]].concat(),
        // The first bytes of a handshake of TLS.
        vec![22, 3, 1, 2, 0, 1],
        // Incomplete, until the timeout.
        b"PROXY TCP4 192.0.2.1 ".to_vec(),
        SIGNATURE.to_vec(),
        binary(0x21, 100)[..60].to_vec(),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let mut connection = Connection::open(address).await;
        connection.send(bytes).await;
        let answer = connection.closed().await;
        assert!(answer.is_empty(), "{}: {}", bytes.escape_ascii(), answer.escape_ascii());
        let expected = f64::from(u32::try_from(number + 1).expect("a small number"));
        until("it is counted", async || refused(&app).await == expected).await;
    }
    // A connection that is closed or reset at once is a health check.
    drop(Connection::open(address).await);
    Connection::open(address).await.reset();
    let mut connection = Connection::open(address).await;
    connection.send([b"PROXY UNKNOWN\r\n", WEBHOOK.as_bytes()].concat()).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    assert_eq!(refused(&app).await, f64::from(u32::try_from(cases.len()).expect("few")));
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn connections_are_limited_by_the_named_client() {
    let (build, relay, _) = builder("127.0.0.1", "").await;
    let build = build.config(|config| {
        config.set("server.max_connections_per_address", 1);
    });
    let app = build.start().await;
    let open = async |source: &str| {
        relay.set_header(format!("PROXY TCP4 {source} 127.0.0.1 1 2\r\n"));
        let mut connection = Connection::open(relay.address()).await;
        connection.send(WEBHOOK).await;
        let reply = connection.reply().await;
        (connection, reply.map(|reply| reply.status))
    };
    let (first, status) = open("192.0.2.1").await;
    assert_eq!(status, Some(202));
    let (_second, status) = open("192.0.2.2").await;
    assert_eq!(status, Some(202), "another client of the same proxy");
    assert_eq!(open("192.0.2.1").await.1, None, "a second connection of the first client");
    drop(first);
    until("the client has a connection again", async || open("192.0.2.1").await.1 == Some(202))
        .await;
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.sum("hookgate_connections_refused_total") >= 1.0);
    assert_eq!(metrics.sum("hookgate_proxy_protocol_errors_total"), 0.0);
}

/// The header is read before a connection is evicted for the new one.
#[tokio::test]
async fn a_client_beyond_its_share_evicts_no_other() {
    let (build, relay, _) = builder("127.0.0.1", "").await;
    let build = build.config(|config| {
        testkit::config::patient(config);
        config.set("server.max_connections_per_address", 1);
        config.set("server.max_connections", 2);
    });
    let app = build.start().await;
    let mut kept = Vec::new();
    for source in ["192.0.2.1", "192.0.2.2"] {
        relay.set_header(format!("PROXY TCP4 {source} 127.0.0.1 1 2\r\n"));
        let mut connection = Connection::open(relay.address()).await;
        connection.send(WEBHOOK).await;
        assert_eq!(connection.reply().await.expect("an answer").status, 202);
        kept.push(connection);
    }
    for _ in 0..3 {
        let mut beyond = Connection::open(relay.address()).await;
        beyond.send(WEBHOOK).await;
        assert!(beyond.reply().await.is_none(), "a second connection of the client");
    }
    for connection in &mut kept {
        connection.send(WEBHOOK).await;
        assert_eq!(connection.reply().await.expect("it is still open").status, 202);
    }
    let metrics = app.hookgate.metrics().await;
    assert_eq!(metrics.sum("hookgate_connections_evicted_total"), 0.0);
    assert_eq!(metrics.sum("hookgate_connections_refused_total"), 3.0);
}

#[tokio::test]
async fn a_silent_proxy_is_evicted_for_another() {
    let (build, relay, address) = builder("127.0.0.1", "PROXY UNKNOWN\r\n").await;
    let build = build.config(|config| {
        testkit::config::patient(config);
        config.set("server.max_connections", 1);
    });
    let app = build.start().await;
    let mut silent = Connection::open(address).await;
    silent.send("PROXY ").await;
    until("the connection has a slot", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") == 1.0
    })
    .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert!(silent.closed().await.is_empty());
    drop(relay);
}

#[tokio::test]
async fn the_header_comes_before_tls_and_names_the_client_of_http_2() {
    let authority = Authority::new();
    let (build, _relay, address) = builder("127.0.0.1", binary(0x21, 3)).await;
    let app = build.tls(&authority).start().await;
    assert_eq!(app.webhook("wh_1").send().await.version, hyper::Version::HTTP_2);
    assert_eq!(client_of_webhook(&app, "over TLS", "198.51.100.9").await, "192.0.2.7");
    assert!(authority.connect(address, &[]).await.is_err(), "TLS without a header");
    until("it is counted", async || refused(&app).await == 1.0).await;
    assert_eq!(app.hookgate.terminate().await, 0);
}

#[tokio::test]
async fn a_process_that_stops_does_not_wait_for_a_header() {
    let (build, _relay, address) = builder("127.0.0.1", "").await;
    let app = build.config(testkit::config::patient).start().await;
    let mut silent = Connection::open(address).await;
    until("the connection is open", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") == 1.0
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 0);
    assert!(silent.closed().await.is_empty());
    assert!(!app.hookgate.log().contains("connection refused"), "{}", app.hookgate.log());
}

#[tokio::test]
async fn a_header_over_a_trusted_unix_socket_names_the_client() {
    let build = App::build();
    let path = build.directory().join("hookgate.sock");
    let relay = Relay::start_with(path.as_path(), "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n").await;
    let build = build.listening(&format!("unix:{}", path.display()), relay.address());
    let app = build.config(|config| {
        config.set("server.proxy_protocol", true);
        config.set("server.trusted_proxies", vec!["unix"]);
        config.set("telemetry.log", "info,hookgate::access=debug");
        config.set("telemetry.format", "json");
    });
    let app = app.start().await;
    assert_eq!(client_of_webhook(&app, "named", "198.51.100.9").await, "192.0.2.1");
    relay.set_header("PROXY UNKNOWN\r\n");
    let mut connection = Connection::open(relay.address()).await;
    connection.send(WEBHOOK.replace("Host: h", "Host: h\r\nX-Request-Id: local")).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    assert_eq!(logged_client(&app, "local").await, "unnamed");
}

#[tokio::test]
async fn settings_by_which_every_connection_would_be_closed_are_faults() {
    for (listen, trusted, words) in [
        ("127.0.0.1:2212", vec![], "needs trusted_proxies"),
        ("127.0.0.1:2212", vec!["unix"], "no network"),
        ("unix:/nowhere/a.sock", vec!["127.0.0.1"], "lacks \"unix\""),
    ] {
        let mut config = Config::new();
        config.set("queue.redis", "redis://127.0.0.1:1").set("triggers.file", "/nowhere");
        config.set("server.listen", listen).set("server.trusted_proxies", trusted);
        config.set("server.proxy_protocol", true);
        let output = check(&config, &[]).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains("server.proxy_protocol") && printed.contains(words), "{printed}");
    }
}
