//! Each kind of listener through the table of refusals, and its end.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use testkit::app::Builder;
use testkit::refusals::{self, assert_envelope, small_app_from};
use testkit::relay::Relay;
use testkit::tls::Authority;
use testkit::{App, ports};

use super::WEBHOOK;
use testkit::raw::Connection;

/// A builder whose app is reached in one way, and what must live as long as the app.
pub(super) struct Way {
    pub(super) what: &'static str,
    pub(super) build: Builder,
    _relay: Option<Relay>,
}

/// All ways except TCP and TLS alone, which the other tests use.
pub(super) async fn ways(authority: &Authority) -> Vec<Way> {
    vec![
        unix(None).await,
        unix(Some(authority)).await,
        activated_tcp(),
        activated_unix().await,
        proxied("PROXY over TCP", None).await,
        proxied("PROXY before TLS", Some(authority)).await,
    ]
}

async fn unix(authority: Option<&Authority>) -> Way {
    let build = App::build();
    let path = build.directory().join("hookgate.sock");
    let relay = Relay::start(path.as_path()).await;
    let build = build.listening(&format!("unix:{}", path.display()), relay.address());
    let (what, build) = match authority {
        None => ("Unix socket", build),
        Some(authority) => ("TLS over a Unix socket", build.tls(authority)),
    };
    Way { what, build, _relay: Some(relay) }
}

fn activated_tcp() -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    Way { what: "activated TCP", build: App::build().activated_by(listener, address), _relay: None }
}

async fn activated_unix() -> Way {
    let build = App::build();
    let path = build.directory().join("activated.sock");
    let listener = UnixListener::bind(&path).expect("the test's own directory");
    let relay = Relay::start(path.as_path()).await;
    let build = build.activated_by(listener, relay.address());
    Way { what: "activated Unix socket", build, _relay: Some(relay) }
}

async fn proxied(what: &'static str, authority: Option<&Authority>) -> Way {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let header = "PROXY TCP4 192.0.2.1 127.0.0.1 4711 2212\r\n";
    let relay = Relay::start_with(address, header).await;
    let build = App::build().listening(&address.to_string(), relay.address()).config(|config| {
        config.set("server.proxy_protocol", true);
        config.set("server.trusted_proxies", vec!["127.0.0.1"]);
    });
    let build = match authority {
        None => build,
        Some(authority) => build.tls(authority),
    };
    Way { what, build, _relay: Some(relay) }
}

#[tokio::test]
async fn every_listener_answers_the_table_of_refusals() {
    let authority = Authority::new();
    for Way { what, build, _relay } in ways(&authority).await {
        let app = small_app_from(build).await;
        // A client library sends no method in lower case over HTTP/2, and no empty header.
        for row in refusals::rows(&app) {
            let reply = row.call.send().await;
            assert_envelope(&reply, row.status, row.code, &format!("{what}: {}", row.what));
        }
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{what}");
        app.redis.queue().only_job().await;
        app.assert_accounting().await;
    }
}

#[tokio::test]
async fn every_listener_drains_its_connections() {
    let authority = Authority::new();
    for Way { what, build, _relay } in ways(&authority).await {
        let has_tls = what.contains("TLS");
        let app = build.start().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{what}");
        if !has_tls {
            drain_in_flight(&app, what).await;
            continue;
        }
        app.hookgate.process().signal("TERM");
        assert_eq!(app.hookgate.process().wait().await, 0, "{what}: {}", app.hookgate.log());
    }
}

/// The connections of a process that does not run wait in the kernel.
#[tokio::test]
async fn a_drain_serves_all_queued_connections() {
    let app = App::with(|config| {
        config.set("server.workers", 1);
    })
    .await;
    app.hookgate.process().signal("STOP");
    let mut queued = Vec::new();
    for _ in 0..400 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(WEBHOOK).await;
        queued.push(connection);
    }
    app.hookgate.process().signal("TERM");
    app.hookgate.process().signal("CONT");
    for mut connection in queued {
        assert_eq!(connection.reply().await.expect("no connection is reset").matched(), 1);
    }
    assert_eq!(app.hookgate.process().wait().await, 0);
}

/// A request that has begun is answered after the process was asked to stop.
async fn drain_in_flight(app: &App, what: &str) {
    let mut begun = Connection::open(app.hookgate.address()).await;
    let (head, rest) = WEBHOOK.split_at(WEBHOOK.len() - 5);
    begun.send(head).await;
    app.in_flight(1).await;
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    begun.send(rest).await;
    assert_eq!(begun.reply().await.expect("an answer").matched(), 1, "{what}");
    assert!(begun.closed().await.is_empty());
    assert_eq!(app.hookgate.process().wait().await, 0, "{what}: {}", app.hookgate.log());
}
