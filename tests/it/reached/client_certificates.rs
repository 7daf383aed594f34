//! `server.tls.client_ca_file`: who is let in, how it changes, and what the log says.

use std::time::Duration;

use reqwest::tls::Version;
use testkit::hookgate::check;
use testkit::raw::Connection;
use testkit::tls::{Authority, Identity};
use testkit::wait::until;
use testkit::{App, Caller, Config};

/// An app that accepts clients of this authority, and its file.
async fn app(server: &Authority, clients: &Authority) -> (App, String) {
    let file = clients.authority_file();
    let build = App::build().tls(server).config(|config| {
        config.set("server.tls.client_ca_file", file.as_str());
        config.set("telemetry.log", "info");
    });
    let app = build.start().await;
    (app, file)
}

/// A caller with a connection of its own for each request.
fn caller(app: &App, server: &Authority, identity: Option<&Identity>) -> Caller {
    let client = match identity {
        Some(identity) => server.client_as(identity),
        None => server.client(),
    };
    Caller::over_tls(app.hookgate.address(), client.pool_max_idle_per_host(0))
}

async fn is_let_in(app: &App, server: &Authority, identity: Option<&Identity>) -> bool {
    let reply = caller(app, server, identity).webhook("wh_1").try_send().await;
    reply.is_ok_and(|reply| reply.matched() == 1)
}

#[tokio::test]
async fn a_caller_needs_a_certificate_of_the_authority() {
    let (server, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let (app, _) = app(&server, &clients).await;
    let good = clients.issue();
    assert!(is_let_in(&app, &server, Some(&good)).await);
    for (identity, reason) in [
        (None, "it sent none"),
        (Some(others.issue()), "not signed by an authority in client_ca_file"),
        // The server's own authority is not that of clients.
        (Some(server.issue()), "not signed by an authority in client_ca_file"),
    ] {
        let is_logged = || {
            let log = app.hookgate.log();
            log.lines()
                .any(|line| line.contains("client certificate refused") && line.contains(reason))
        };
        // At most one line is written in a second.
        until("the refusal is logged", async || {
            assert!(!is_let_in(&app, &server, identity.as_ref()).await);
            is_logged()
        })
        .await;
    }
    let log = app.hookgate.log();
    assert!(log.contains("WARN") && log.contains("peer=127.0.0.1"), "{log}");
    let failed = app.hookgate.metrics().await.sum("hookgate_tls_handshake_errors_total");
    assert!(failed >= 3.0, "{failed}");
    assert!(is_let_in(&app, &server, Some(&good)).await);
}

#[tokio::test]
async fn refusals_do_not_flood_the_log() {
    let (server, clients) = (Authority::new(), Authority::new());
    let (app, _) = app(&server, &clients).await;
    for _ in 0..100 {
        assert!(!is_let_in(&app, &server, None).await);
    }
    until("all are counted", async || {
        app.hookgate.metrics().await.sum("hookgate_tls_handshake_errors_total") >= 100.0
    })
    .await;
    let log = app.hookgate.log();
    let lines = log.lines().filter(|line| line.contains("client certificate refused")).count();
    assert!((1..60).contains(&lines), "{lines}");
}

/// A resumed session would not show its certificate again, so none is resumed.
#[tokio::test]
async fn new_authorities_count_at_once_also_for_earlier_callers() {
    let (server, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let (app, file) = app(&server, &old).await;
    let (old_identity, new_identity) = (old.issue(), new.issue());
    // This caller would resume its sessions, and makes a connection for each request.
    let resuming = caller(&app, &server, Some(&old_identity));
    for _ in 0..3 {
        assert_eq!(resuming.webhook("wh_1").send().await.matched(), 1);
    }
    // Another certificate of the server ends no session.
    server.replace(&server.issue());
    // Both authorities, as during a change of them.
    let both = [old.certificate_pem(), new.certificate_pem()].concat();
    std::fs::write(&file, both).expect("the test's own directory");
    until("the new authority is in use", async || {
        is_let_in(&app, &server, Some(&new_identity)).await
    })
    .await;
    assert_eq!(resuming.webhook("wh_1").send().await.matched(), 1);
    std::fs::write(&file, new.certificate_pem()).expect("the test's own directory");
    until("the old authority is gone", async || resuming.webhook("wh_1").try_send().await.is_err())
        .await;
    assert!(!is_let_in(&app, &server, Some(&old_identity)).await);
    assert!(is_let_in(&app, &server, Some(&new_identity)).await);
}

/// A session that is resumed does not show its certificate again, so it would outlive it.
#[tokio::test]
async fn a_certificate_that_has_expired_lets_nobody_in_by_an_earlier_session() {
    let (server, clients) = (Authority::new(), Authority::new());
    let (app, _) = app(&server, &clients).await;
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let mut validity = Duration::from_secs(2);
        loop {
            let identity = clients.issue_for_time(validity);
            // This caller would resume its sessions, and makes a connection for each request.
            let client = server.client_as(&identity).tls_version_max(version);
            let client = client.pool_max_idle_per_host(0);
            let caller = Caller::over_tls(app.hookgate.address(), client);
            let mut accepted = 0;
            until("the certificate has expired", async || {
                let reply = caller.webhook("wh_1").try_send().await;
                accepted += usize::from(reply.is_ok());
                reply.is_err()
            })
            .await;
            // At most one line is written in a second.
            until("the refusal is logged", async || {
                assert!(caller.webhook("wh_1").try_send().await.is_err());
                app.hookgate.log().contains("it has expired")
            })
            .await;
            if accepted > 1 {
                break;
            }
            // It has expired before it was used twice.
            validity *= 2;
        }
    }
}

#[tokio::test]
async fn a_faulty_file_keeps_the_last_authorities() {
    let (server, clients) = (Authority::new(), Authority::new());
    let (app, file) = app(&server, &clients).await;
    let good = clients.issue();
    for spoiled in
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        std::fs::write(&file, spoiled).expect("the test's own directory");
        until("the fault is reported", async || {
            let degraded = app.hookgate.readiness().await.1["degraded"].to_string();
            degraded.contains("server.tls.client_ca_file")
        })
        .await;
        assert!(is_let_in(&app, &server, Some(&good)).await);
        assert!(!is_let_in(&app, &server, None).await);
        std::fs::write(&file, clients.certificate_pem()).expect("the test's own directory");
        until("the fault is gone", async || {
            !app.hookgate.readiness().await.1["degraded"].to_string().contains("tls")
        })
        .await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_handshake_are_no_certificate() {
    let (server, clients) = (Authority::new(), Authority::new());
    let (app, _) = app(&server, &clients).await;
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    connection.closed().await;
    assert!(!app.hookgate.log().contains("client certificate refused"));
}

#[tokio::test]
async fn wrong_settings_are_faults() {
    let authority = Authority::new();
    let ca = authority.authority_file();
    let pair = [authority.certificate_file(), authority.key_file()];
    let key = pair[1].clone();
    for (certificate, client_ca, words) in [
        (None, ca.as_str(), "needs certificate_file and key_file"),
        (Some(&pair), "/nowhere", "/nowhere"),
        (Some(&pair), key.as_str(), "contains no certificate in PEM"),
    ] {
        let mut config = Config::new();
        config.set("queue.redis", "redis://127.0.0.1:1").set("triggers.file", "/nowhere");
        config.set("server.tls.client_ca_file", client_ca);
        if let Some([certificate, key]) = certificate {
            config.set("server.tls.certificate_file", certificate.as_str());
            config.set("server.tls.key_file", key.as_str());
        }
        let output = check(&config, &[]).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains("server.tls.client_ca_file"), "{printed}");
        assert!(printed.contains(words), "{printed}");
    }
}
