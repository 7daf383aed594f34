//! TLS: which clients and certificates are accepted, and the effects of a failed handshake.

use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use reqwest::Version;
use rustls::version::{TLS12, TLS13};
use testkit::App;
use testkit::Caller;
use testkit::raw::Connection;
use testkit::tls::Authority;
use testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn every_version_of_tls_and_of_http_is_served() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    for tls in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        for (http, version) in [(true, Version::HTTP_11), (false, Version::HTTP_2)] {
            let mut client = authority.client().tls_version_min(tls).tls_version_max(tls);
            if http {
                client = client.http1_only();
            }
            let caller = Caller::over_tls(app.hookgate.address(), client);
            for _ in 0..3 {
                let reply = caller.webhook("wh_1").send().await;
                assert_eq!((reply.matched(), reply.version), (1, version));
            }
        }
    }
    let jobs = app.redis.queue().waiting_exactly(12).await;
    assert!(jobs.iter().all(|job| job.at("/workflowId") == "wf_1"));
}

#[tokio::test]
async fn the_protocol_is_one_that_both_sides_offer() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    let offers: [(&[&str], Option<&[u8]>); 4] = [
        (&[], None),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["h2"], Some(b"h2")),
        (&["http/1.1", "h2"], Some(b"h2")),
    ];
    for (offered, chosen) in offers {
        for version in [&TLS12, &TLS13] {
            let address = app.hookgate.address();
            let stream = authority.connect_by(address, offered, &[version]).await;
            let stream = stream.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
        }
    }
    assert!(authority.connect(app.hookgate.address(), &["spdy/3"]).await.is_err());
    until("the failed handshake is counted", async || failed(&app).await >= 1.0).await;
}

#[tokio::test]
async fn keys_of_every_kind_and_format_are_accepted() {
    let authority = Authority::new();
    let elliptic = authority.issue();
    let rsa = authority.issue_for(&PKCS_RSA_SHA256);
    let identities = [
        authority.issue_for(&PKCS_ED25519),
        authority.issue_for(&PKCS_ECDSA_P384_SHA384),
        elliptic.with_key_as("EC PRIVATE KEY"),
        rsa.with_key_as("RSA PRIVATE KEY"),
        rsa,
    ];
    for identity in identities {
        authority.replace(&identity);
        let app = App::build().tls(&authority).start().await;
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(shown(&app, &authority).await, identity.certificate.as_ref());
    }
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    let mut stream = TcpStream::connect(app.hookgate.address()).await.expect("hookgate listens");
    stream.write_all(&client_hello_of_tls_1_1()).await.expect("an open connection");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // A fatal alert: protocol_version.
    assert_eq!((answer[0], &answer[5..]), (0x15, &[2, 70][..]), "{answer:?}");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

fn client_hello_of_tls_1_1() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    // supported_groups: x25519 and secp256r1; signature_algorithms: RSA and ECDSA with SHA-256.
    let extensions = [0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 13, 0, 6, 0, 4, 4, 1, 4, 3];
    hello.extend([0, u8::try_from(extensions.len()).expect("a small number")]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).expect("a short message");
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn an_invalid_handshake_ends_only_its_connection() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    let attempts: [&[u8]; 5] = [
        b"POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 4096],
        &[22, 3, 1, 0xff, 0xff],
        &[0x80; 100],
    ];
    for bytes in attempts {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(bytes).await;
        connection.finish().await;
        let answer = connection.closed().await;
        assert!(answer.len() < 16, "at most an alert: {answer:?}");
    }
    until("every failed handshake is counted", async || failed(&app).await >= 5.0).await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    app.assert_accounting().await;
    let log = app.hookgate.log();
    let lines = log.lines().filter(|line| line.contains("handshake"));
    assert!(
        lines.clone().count() >= 5 && lines.clone().all(|line| line.contains("DEBUG")),
        "{log}"
    );
}

#[tokio::test]
async fn an_unfinished_handshake_is_timed_out_or_evicted() {
    let authority = Authority::new();
    let app = App::build()
        .tls(&authority)
        .config(|config| {
            config.set("server.header_timeout", "2s").set("server.max_connections", 2);
        })
        .start()
        .await;
    let mut silent = Connection::open(app.hookgate.address()).await;
    let mut half = Connection::open(app.hookgate.address()).await;
    half.send(&client_hello_of_tls_1_1()[..20]).await;
    // Both slots are in use; the third connection gets the slot of the one that is silent for
    // longest.
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert!(silent.closed().await.is_empty());
    assert!(half.closed().await.is_empty());
    let evicted = async || app.hookgate.metrics().await.sum("hookgate_connections_evicted_total");
    until("both handshakes are counted", async || failed(&app).await + evicted().await >= 2.0)
        .await;
    assert!(evicted().await >= 1.0);
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_failed_request() {
    let authority = Authority::new();
    let app = App::build().tls(&authority).start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (address, client) = (app.hookgate.address(), authority.client());
        // Half of them keep their connection; the others make a new one for each request.
        let client = if number % 2 == 0 { client } else { client.pool_max_idle_per_host(0) };
        let client = if number < 3 { client } else { client.http1_only() };
        let caller = Caller::over_tls(address, client);
        let stopped = stopped.clone();
        callers.spawn(async move {
            let mut sent = 0;
            while sent < 10 || !*stopped.borrow() {
                assert_eq!(caller.webhook("wh_1").send().await.matched(), 1);
                sent += 1;
            }
            sent
        });
    }
    let mut old = authority.connect(app.hookgate.address(), &["http/1.1"]).await.expect("TLS");
    for _ in 0..3 {
        let new = authority.issue();
        authority.replace(&new);
        until("the new certificate is in use", async || {
            shown(&app, &authority).await == new.certificate.as_ref()
        })
        .await;
    }
    old.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("an open connection");
    let mut answer = [0; 12];
    old.read_exact(&mut answer).await.expect("an answer over the old connection");
    assert_eq!(&answer, b"HTTP/1.1 404");
    stop.send_replace(true);
    let sent: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(app.redis.queue().waiting().await.len(), sent);
}

#[tokio::test]
async fn a_faulty_new_certificate_keeps_the_old_one_in_use() {
    let authority = Authority::new();
    let good = authority.issue();
    authority.replace(&good);
    let app = App::build().tls(&authority).start().await;
    let other = authority.issue();
    let faults: [(&dyn Fn(), &str); 4] = [
        (&|| authority.replace_key(&other.key_pem), "server.tls.key_file"),
        (&|| authority.replace_key("no key"), "server.tls.key_file"),
        (&|| authority.replace_certificate("no certificate"), "server.tls.certificate_file"),
        (
            &|| std::fs::remove_file(authority.certificate_file()).expect("a file"),
            "server.tls.certificate_file",
        ),
    ];
    for (spoil, key) in faults {
        spoil();
        until("the fault is reported", async || {
            app.hookgate.readiness().await.1["degraded"].to_string().contains(key)
        })
        .await;
        assert!(app.hookgate.readiness().await.0.is_success(), "degraded is ready");
        assert_eq!(shown(&app, &authority).await, good.certificate.as_ref());
        authority.replace(&good);
        until("the fault is gone", async || {
            app.hookgate.readiness().await.1["degraded"].to_string().matches("tls").count() == 0
        })
        .await;
    }
    let log = app.hookgate.log();
    let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains("certificate"));
    assert_eq!(warnings.count(), 4, "{log}");
}

/// The certificate that a new caller gets.
async fn shown(app: &App, authority: &Authority) -> Vec<u8> {
    let stream = authority.connect(app.hookgate.address(), &[]).await.expect("a handshake");
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    assert_eq!(chain.len(), 2, "the authority's certificate follows");
    chain.first().expect("a certificate").as_ref().to_vec()
}

async fn failed(app: &App) -> f64 {
    app.hookgate.metrics().await.value("hookgate_tls_handshake_errors_total", &[])
}
