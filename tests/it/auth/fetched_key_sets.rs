//! `auth.jwt.jwks_url`: which sets are fetched, when, and what callers get meanwhile.

use super::{assert_accepted, merged, send};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use testkit::app::Builder;
use testkit::hookgate::check_connect;
use testkit::key_server::{Answer, KeyServer};
use testkit::keys::{KeyPair, KeyRing, hmac, jwk_set, octet_jwk};
use testkit::tls::Authority;
use testkit::tokens::{claims, sign, sign_with_id};
use testkit::wait::until;
use testkit::{App, Config, Reply};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const ES256: Algorithm = Algorithm::ES256;

/// The least time between two fetches.
const FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// A key of an issuer.
#[derive(Clone)]
struct Key {
    pair: Arc<KeyPair>,
    id: &'static str,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Self { pair: Arc::new(KeyPair::for_algorithm(ES256)), id }
    }

    fn jwk(&self) -> Value {
        self.pair.jwk(ES256, self.id)
    }

    /// A token that was not sent before, so no cache has it.
    fn token(&self) -> String {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let serial = json!({ "jti": SERIAL.fetch_add(1, Ordering::Relaxed) });
        let claims = merged(&claims("org_a", "u"), &serial);
        sign_with_id(&claims, ES256, &self.pair.encoding_key(ES256), self.id)
    }
}

fn set(keys: &[&Key]) -> String {
    jwk_set(&keys.iter().map(|key| key.jwk()).collect::<Vec<_>>())
}

/// A service without keys of its own.
fn build(url: &str) -> Builder {
    App::build().config(|config| {
        config.remove("auth.jwt.secrets").set("auth.jwt.jwks_url", url);
        config.set("auth.jwt.algorithms", vec!["ES256", "RS256", "PS256", "EdDSA", "HS256"]);
    })
}

/// Starts and waits for the first set.
async fn start_with_set(build: Builder) -> App {
    let app = build.start().await;
    until("the set is fetched", async || !is_degraded(&app).await).await;
    app
}

async fn send_key(app: &App, key: &Key) -> Reply {
    send(app, &key.token()).await
}

async fn metric(app: &App, name: &str) -> f64 {
    app.hookgate.metrics().await.value(name, &[])
}

/// What `/readyz` says of the set.
async fn condition(app: &App) -> (u16, String) {
    let (status, report) = app.hookgate.readiness().await;
    let notes = ["reasons", "degraded"].map(|kind| report.get(kind).map(Value::to_string));
    let notes = notes.map(Option::unwrap_or_default);
    let about = notes.iter().find(|notes| notes.contains("token keys"));
    (status.as_u16(), about.cloned().unwrap_or_default())
}

async fn is_degraded(app: &App) -> bool {
    condition(app).await.1.contains("auth.jwt.jwks_url")
}

#[track_caller]
fn assert_unavailable(reply: &Reply) {
    assert_eq!((reply.status, reply.code().as_str()), (503, "keys_unavailable"));
    assert_eq!(reply.header("retry-after"), Some("10"));
    let envelope = reply.json();
    assert_eq!(envelope.get("retryable"), Some(&json!(true)));
    assert_eq!(envelope.get("details"), Some(&json!({ "enqueued": "none" })));
}

#[track_caller]
fn assert_unknown(reply: &Reply) {
    assert_eq!((reply.status, reply.code().as_str()), (401, "invalid_token"));
}

#[tokio::test]
async fn the_keys_of_a_url_verify_tokens() {
    let keys = KeyRing::new();
    let algorithms = [Algorithm::ES256, Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA];
    let mut entries: Vec<Value> = algorithms
        .iter()
        .map(|algorithm| keys.jwk(*algorithm, "", &format!("{algorithm:?}")))
        .collect();
    let secret = "a-secret-that-everyone-can-read-which-is-long-enough";
    entries.extend([json!(null), octet_jwk(secret, "HS256", "secret"), json!({ "kty": "?" })]);
    let server = KeyServer::start(Answer::set(&jwk_set(&entries))).await;
    // A name is looked up, and a proxy of the environment is not used.
    let build = build(&server.url_of("localhost", "/jwks"));
    let proxy = "http://127.0.0.1:1";
    let build = build.variable("http_proxy", proxy).variable("HTTP_PROXY", proxy);
    let app = start_with_set(build.variable("ALL_PROXY", proxy)).await;
    for algorithm in algorithms {
        let (key, id) = (keys.signing_key(algorithm, ""), format!("{algorithm:?}"));
        let token = sign_with_id(&claims("org_a", "u"), algorithm, &key, &id);
        assert_accepted(&send(&app, &token).await, &algorithm);
        // Without a key id, the keys of the algorithm are tried.
        let token = sign(&claims("org_a", "u"), algorithm, &key);
        assert_accepted(&send(&app, &token).await, &algorithm);
    }
    // A URL yields no secrets, so these tokens start no fetch: they are refused at once.
    for token in [
        sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret), "secret"),
        sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret), "unknown"),
        sign(&claims("org_a", "u"), ES256, &KeyPair::for_algorithm(ES256).encoding_key(ES256)),
    ] {
        assert_unknown(&send(&app, &token).await);
    }
    assert!((metric(&app, "hookgate_jwks_skipped_keys_total").await - 3.0).abs() < 0.5);
    assert!((0.0..60.0).contains(&metric(&app, "hookgate_jwks_age_seconds").await));
    let log = app.hookgate.log();
    for expected in
        ["auth.jwt.jwks_url, entry 5 is skipped", "a secret, which a URL must not publish"]
    {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert!(!is_degraded(&app).await);
    let fetches = server.fetches();
    let fetch = fetches.first().expect("a fetch");
    assert!(fetch.head.starts_with("GET /jwks?token="), "{}", fetch.head);
    assert!(fetch.head.contains("\r\nhost: localhost:"), "{}", fetch.head);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_url_yields_at_most_64_keys() {
    let keys: Vec<KeyPair> = (0..66).map(|_| KeyPair::for_algorithm(ES256)).collect();
    let named = |serial: usize| format!("key-{serial}");
    let entries = keys.iter().enumerate().map(|(serial, key)| key.jwk(ES256, &named(serial)));
    let server = KeyServer::start(Answer::set(&jwk_set(&entries.collect::<Vec<_>>()))).await;
    let app = start_with_set(build(&server.url())).await;
    for (serial, key) in keys.iter().enumerate() {
        let key = key.encoding_key(ES256);
        let token = sign_with_id(&claims("org_a", "u"), ES256, &key, &named(serial));
        let expected = if serial < 64 { 202 } else { 503 };
        assert_eq!(send(&app, &token).await.status, expected, "{serial}");
    }
    assert!((metric(&app, "hookgate_jwks_skipped_keys_total").await - 2.0).abs() < 0.5);
    assert!(app.hookgate.log().contains("the set has more than 64 keys"));
}

#[tokio::test]
async fn a_rotation_refuses_no_token_of_a_published_key() {
    let [old, new, last] = ["old", "new", "last"].map(Key::new);
    let start = Instant::now();
    let server = KeyServer::start(Answer::set(&set(&[&old]))).await;
    let app = start_with_set(build(&server.url())).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let load = |key| load(key, &app, &is_over);
    let of_old = load(&old);
    server.publish(&set(&[&old, &new]));
    let of_new = load(&new);
    until("the new key verifies", async || send_key(&app, &new).await.status == 202).await;
    server.publish(&set(&[&new, &last]));
    until("another key verifies", async || send_key(&app, &last).await.status == 202).await;
    // The old key was taken away with it, so its tokens are answered as unknown.
    is_over.store(true, Ordering::Relaxed);
    let (of_old, of_new) = (of_old.await.expect("its task"), of_new.await.expect("its task"));
    let is_unanswered = |status: &&u16| **status == 503;
    let first_of_new = of_new.iter().position(|status| *status == 202).expect("it verifies");
    assert_eq!(of_new[first_of_new..].iter().find(is_unanswered), None);
    let last_of_old = of_old.iter().rposition(|status| *status == 202).expect("it verifies");
    assert_eq!(of_old[..last_of_old].iter().find(is_unanswered), None);
    assert!(of_old.len() > 100 && of_new.len() > 100, "{} {}", of_old.len(), of_new.len());
    assert_few_fetches(&server, start);
    app.assert_accounting().await;
}

/// Sends tokens of a key until `is_over`, each of which is accepted or may be sent again. Returns the
/// statuses.
fn load(key: &Key, app: &App, is_over: &Arc<AtomicBool>) -> JoinHandle<Vec<u16>> {
    let (key, caller, is_over) = (key.clone(), app.caller.clone(), Arc::clone(is_over));
    tokio::spawn(async move {
        let mut statuses = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            // Each string that is confidential makes every test slower.
            let authorization = format!("Bearer {}", key.token());
            let call = caller.webhook("wh_1").header("authorization", authorization);
            let reply = call.send().await;
            if reply.status != 202 {
                assert_unavailable(&reply);
            }
            statuses.push(reply.status);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        statuses
    })
}

/// Asserts that no more fetches have begun than one in each interval.
#[track_caller]
fn assert_few_fetches(server: &KeyServer, start: Instant) {
    let at_most = 2 + start.elapsed().as_secs() / FETCH_INTERVAL.as_secs();
    let count = server.fetches().len() as u64;
    assert!(count <= at_most, "{count} fetches, at most {at_most}");
}

/// The issuer refuses connections, and then accepts them without an answer, for two fetches together.
#[tokio::test]
async fn an_issuer_that_is_down_keeps_the_last_good_set_in_use() {
    let [old, new] = ["old", "new"].map(Key::new);
    let start = Instant::now();
    let mut server = KeyServer::start(Answer::set(&set(&[&old]))).await;
    let mut app = start_with_set(build(&server.url())).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let of_old = load(&old, &app, &is_over);

    server.stop().await;
    assert_unavailable(&send_key(&app, &new).await);
    let failed = async |reason: &str| {
        until(reason, async || condition(&app).await.1.contains(reason)).await;
        // A fetch that fails says nothing about the key.
        assert_unavailable(&send_key(&app, &new).await);
        assert_eq!(condition(&app).await.0, 200);
        metric(&app, "hookgate_jwks_age_seconds").await
    };
    let age = failed("keeping the last good set: no connection").await;
    assert!(age > 9.0, "{age}");
    server.answer("/jwks", Answer::Silence);
    server.resume().await;
    let age = failed("keeping the last good set: no answer within 5 s").await;
    assert!(age > 20.0, "{age}");
    // A reload of other keys keeps the set.
    app.hookgate.config.set("auth.jwt.leeway", "31s");
    app.hookgate.reload().await;

    server.publish(&set(&[&old, &new]));
    until("the set is fetched again", async || !is_degraded(&app).await).await;
    assert_accepted(&send_key(&app, &new).await, &"the new key");
    is_over.store(true, Ordering::Relaxed);
    let of_old = of_old.await.expect("its task");
    assert!(of_old.len() > 100 && of_old.iter().all(|status| *status == 202), "{of_old:?}");
    assert!(app.hookgate.log().contains("is fetched again"));
    assert_few_fetches(&server, start);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_set_that_arrives_slowly_is_used() {
    let key = Key::new("key");
    let slow = Answer::trickle(&set(&[&key]), Duration::from_secs(3));
    let server = KeyServer::start(slow).await;
    let app = start_with_set(build(&server.url())).await;
    assert_accepted(&send_key(&app, &key).await, &"after the fetch");
}

#[tokio::test]
async fn without_other_credentials_the_service_is_not_ready_before_the_first_set() {
    let key = Key::new("key");
    let mut server = KeyServer::start(Answer::set(&set(&[&key]))).await;
    server.stop().await;
    let build = build(&server.url()).config(|config| {
        config.set("auth.api_key.enabled", false);
    });
    let app = build.start_unready().await;
    until("the failure is reported", async || condition(&app).await.1.contains("no set yet")).await;
    let (status, reason) = condition(&app).await;
    assert_eq!(status, 503, "{reason}");
    assert!(reason.contains("no connection"), "{reason}");
    // Nothing is known about any key, so no token is refused.
    assert_unavailable(&send_key(&app, &key).await);
    let claims = claims("org_a", "u");
    let without_id = sign(&claims, ES256, &key.pair.encoding_key(ES256));
    assert_unavailable(&send(&app, &without_id).await);

    server.resume().await;
    app.hookgate.ready().await;
    assert_accepted(&send_key(&app, &key).await, &"after the first fetch");
    assert_accepted(&send(&app, &without_id).await, &"without a key id");
}

#[tokio::test]
async fn other_credentials_work_before_the_first_set() {
    let key = Key::new("key");
    let server = KeyServer::start(Answer::Silence).await;
    let pair = KeyPair::rsa();
    let build = build(&server.url());
    let pem = build.file("public.pem", &pair.public_pem);
    let build = build.config(|config| {
        config.set("auth.jwt.public_key_files", vec![pem]);
    });
    let app = build.start().await;
    let (status, note) = condition(&app).await;
    assert_eq!(status, 200);
    assert!(note.contains("no set yet: no answer within 5 s"), "{note}");
    assert_accepted(&send(&app, "key_a").await, &"an API key");
    let claims = claims("org_a", "u");
    let own = sign_with_id(&claims, Algorithm::RS256, &pair.encoding_key(Algorithm::RS256), "x");
    assert_accepted(&send(&app, &own).await, &"a key of the configuration");
    assert_unavailable(&send_key(&app, &key).await);
    server.publish(&set(&[&key]));
    until("the set is fetched", async || send_key(&app, &key).await.status == 202).await;
    assert!(!is_degraded(&app).await);
}

/// An answer that is no set, and what `/readyz` says of it.
fn bad_answers() -> Vec<(&'static str, Answer, &'static str)> {
    let good = set(&[&Key::new("key")]);
    let padded = |bytes: usize| good.clone() + &" ".repeat(bytes - good.len());
    let large = padded((1 << 20) + 1);
    let in_chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    let cut_short = format!("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{good}");
    let with = |status: &str, fields: &str| Answer::with_head(status, fields, &good);
    let secrets = jwk_set(&[octet_jwk(&"s".repeat(40), "HS256", "key")]);
    // All of it would have arrived after eight seconds.
    let slow = Answer::trickle(&good, Duration::from_secs(8));
    vec![
        ("slow", slow, "no answer within 5 s"),
        ("not-json", Answer::set("<html>"), "not a JWK set"),
        ("empty", Answer::set(""), "not a JWK set"),
        ("no-keys", Answer::set("{}"), "not a JWK set"),
        ("only-broken", Answer::set(r#"{"keys":[null]}"#), "none of its 1 keys can be used"),
        ("only-secrets", Answer::set(&secrets), "none of its 1 keys can be used"),
        ("large", Answer::set(&large), "larger than 1048576 bytes"),
        ("chunks", Answer::Bytes(in_chunks.into_bytes()), "larger than 1048576 bytes"),
        ("endless", Answer::Endless, "larger than 1048576 bytes"),
        ("moved", with("302 Found", "Location: /jwks\r\n"), "redirects are not followed"),
        ("moved-for-good", with("308 Permanent Redirect", "Location: /jwks\r\n"), "redirects"),
        ("missing", with("404 Not Found", ""), "404 Not Found"),
        ("broken", with("500 Internal Server Error", ""), "500 Internal Server Error"),
        ("empty-success", with("204 No Content", ""), "204 No Content"),
        ("encoded", with("200 OK", "Content-Encoding: gzip\r\n"), "Content-Encoding"),
        ("not-http", Answer::Bytes(b"no HTTP\r\n\r\n".to_vec()), "invalid HTTP"),
        ("closed", Answer::Bytes(Vec::new()), "connection closed"),
        ("cut-short", Answer::Bytes(cut_short.into_bytes()), "end of file"),
        ("silence", Answer::Silence, "no answer within 5 s"),
    ]
}

/// Each reload with another URL fetches at once.
#[tokio::test]
async fn an_answer_that_is_no_set_is_reported() {
    let key = Key::new("key");
    let server = KeyServer::start(Answer::set(&set(&[&key]))).await;
    let mut app = start_with_set(build(&server.url())).await;
    assert_accepted(&send_key(&app, &key).await, &"a good set");
    let good_fetches = server.fetches().len();
    for (name, answer, reason) in bad_answers() {
        let path = format!("/{name}");
        server.answer(&path, answer);
        let url = server.url_of("127.0.0.1", &path);
        app.hookgate.config.set("auth.jwt.jwks_url", url);
        app.hookgate.reload().await;
        until(&format!("{name} is reported"), async || condition(&app).await.1.contains(reason))
            .await;
        assert_unavailable(&send_key(&app, &key).await);
        assert_accepted(&send(&app, "key_a").await, &name);
    }
    let of_good = server.fetches().iter().filter(|fetch| fetch.head.contains(" /jwks")).count();
    assert_eq!(of_good, good_fetches, "a redirect was followed");
    // The largest set that is allowed, in chunks of a connection that stays open.
    let good = set(&[&key]);
    server.publish(&(good.clone() + &" ".repeat((1 << 20) - good.len())));
    app.hookgate.config.set("auth.jwt.jwks_url", server.url());
    app.hookgate.reload().await;
    until("the good set is in use", async || send_key(&app, &key).await.status == 202).await;
    assert!(!is_degraded(&app).await);
    // A set without entries verifies nothing.
    server.answer("/none", Answer::set(r#"{"keys":[]}"#));
    app.hookgate.config.set("auth.jwt.jwks_url", server.url_of("127.0.0.1", "/none"));
    app.hookgate.reload().await;
    let has_no_keys = "auth.jwt.jwks_url has no keys and verifies no token";
    until("the set is empty", async || app.hookgate.log().contains(has_no_keys)).await;
    assert_eq!(send_key(&app, &key).await.status, 503);
    let without_id = sign(&claims("org_a", "u"), ES256, &key.pair.encoding_key(ES256));
    assert_unknown(&send(&app, &without_id).await);
    assert!(!is_degraded(&app).await);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_flood_of_unknown_ids_starts_few_fetches() {
    let key = Key::new("key");
    let server = KeyServer::start(Answer::set(&set(&[&key]))).await;
    let app = start_with_set(build(&server.url())).await;
    let signing = KeyPair::for_algorithm(ES256).encoding_key(ES256);
    let unknown = |id: &str| sign_with_id(&claims("org_a", "u"), ES256, &signing, id);
    let first = unknown("the first");
    let start = Instant::now();
    assert_unavailable(&send(&app, &first).await);
    let mut serial = 0;
    until_refused(&app, &first, async || {
        for _ in 0..50 {
            serial += 1;
            let token = unknown(&format!("{serial} {}", "x".repeat(300)));
            let call = app.webhook("wh_1").header("authorization", format!("Bearer {token}"));
            let reply = call.send().await;
            if reply.status == 503 { assert_unavailable(&reply) } else { assert_unknown(&reply) }
        }
        assert_accepted(&send_key(&app, &key).await, &"in the flood");
    })
    .await;
    assert!(serial > 50, "{serial} ids were sent");
    assert!(server.fetches().len() >= 2);
    until("the id starts another fetch", async || send(&app, &first).await.status == 503).await;
    assert_few_fetches(&server, start);
    app.assert_accounting().await;
}

/// Sends a token until it is refused, and something else in between.
async fn until_refused(app: &App, token: &str, mut between: impl AsyncFnMut()) {
    loop {
        between().await;
        let reply = send(app, token).await;
        if reply.status == 401 {
            return assert_unknown(&reply);
        }
        assert_unavailable(&reply);
    }
}

#[tokio::test]
async fn a_set_is_fetched_again_by_its_cache_control() {
    let [kept, revoked] = ["kept", "revoked"].map(Key::new);
    let head = "Cache-Control: public, max-age=1\r\n";
    let both = Answer::with_head("200 OK", head, &set(&[&kept, &revoked]));
    let server = KeyServer::start(both).await;
    let app = start_with_set(build(&server.url())).await;
    assert_accepted(&send_key(&app, &revoked).await, &"before");
    server.answer("/jwks", Answer::with_head("200 OK", head, &set(&[&kept])));
    // Waiting for a condition is limited to a minute.
    tokio::time::sleep(Duration::from_secs(50)).await;
    until("the set is fetched again", async || server.fetches().len() > 1).await;
    let fetches = server.fetches();
    // The server may see the first one as late as a fetch may take.
    let between = fetches[1].at - fetches[0].at;
    assert!(between > Duration::from_secs(54), "a minute is the least: {between:?}");
    until("the key is revoked", async || send_key(&app, &revoked).await.status != 202).await;
    assert_accepted(&send_key(&app, &kept).await, &"after");
}

#[tokio::test]
async fn tls_trusts_the_configured_authority_alone() {
    let key = Key::new("key");
    let [authority, other] = [Authority::new(), Authority::new()];
    let answer = || Answer::set(&set(&[&key]));
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let good = KeyServer::start_tls(answer(), &authority.issue()).await;
    let stranger = KeyServer::start_tls(answer(), &other.issue()).await;
    let wrong_name =
        KeyServer::start_tls(answer(), &authority.issue_to("id.example", algorithm)).await;
    let build = build(&good.url());
    let private = build.file("ca.pem", authority.certificate_pem());
    let build = build.config(|config| {
        config.set("auth.jwt.jwks_ca_file", private);
    });
    let mut app = start_with_set(build).await;
    assert_accepted(&send_key(&app, &key).await, &"a private authority");
    for (url, reason) in [
        (stranger.url(), "not signed by a trusted authority"),
        (wrong_name.url(), "not valid for the host name"),
    ] {
        app.hookgate.config.set("auth.jwt.jwks_url", url);
        app.hookgate.reload().await;
        until(reason, async || condition(&app).await.1.contains(reason)).await;
        assert_unavailable(&send_key(&app, &key).await);
    }
    let asked = [&stranger, &wrong_name].iter().any(|server| !server.fetches().is_empty());
    assert!(!asked, "a request was sent to a server that is not trusted");
    app.hookgate.config.set("auth.jwt.jwks_url", good.url());
    app.hookgate.reload().await;
    until("the good server is asked", async || send_key(&app, &key).await.status == 202).await;
    // Without the file, the authorities of the system are trusted, and this one is none of them.
    app.hookgate.config.remove("auth.jwt.jwks_ca_file");
    app.hookgate.config.set("auth.jwt.jwks_url", good.url_of("127.0.0.1", "/other"));
    good.answer("/other", answer());
    app.hookgate.reload().await;
    let reason = "not signed by a trusted authority";
    until(reason, async || condition(&app).await.1.contains(reason)).await;
}

#[tokio::test]
async fn tls_trusts_the_authorities_of_the_system() {
    let key = Key::new("key");
    let authority = Authority::new();
    let server = KeyServer::start_tls(Answer::set(&set(&[&key])), &authority.issue()).await;
    let build = build(&server.url());
    let file = build.file("system.pem", authority.certificate_pem());
    let app = start_with_set(build.variable("SSL_CERT_FILE", &file)).await;
    assert_accepted(&send_key(&app, &key).await, &"an authority of the system");
}

/// The name is that of 0.0.0.0, where this machine answers too.
#[tokio::test]
async fn http_is_only_used_to_a_loopback_address() {
    let key = Key::new("key");
    let server = KeyServer::start(Answer::set(&set(&[&key]))).await;
    let app = build(&server.url_of("0x0", "/jwks")).start().await;
    let reason = "only allowed for a loopback address";
    until(reason, async || condition(&app).await.1.contains(reason)).await;
    assert_unavailable(&send_key(&app, &key).await);
    assert!(server.fetches().is_empty());
}

#[tokio::test]
async fn the_check_fetches_the_set() {
    let key = Key::new("key");
    let mut other_use = Key::new("").jwk();
    other_use["kid"] = json!("\u{e4}".repeat(1000));
    other_use["use"] = json!("enc");
    let entries = jwk_set(&[key.jwk(), json!(null), other_use]);
    let answer = Answer::with_head("200 OK", "Cache-Control: max-age=600\r\n", &entries);
    let mut server = KeyServer::start(answer).await;
    let app = start_with_set(build(&server.url())).await;
    let mut config = app.hookgate.config.clone();
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 0, "{report}");
    let at = |report: &Value, pointer: &str| report.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at(&report, "/jwks/keys"), 1, "{report}");
    assert_eq!(at(&report, "/jwks/skipped"), 2);
    assert_eq!(at(&report, "/jwks/lifetime_seconds"), 600);
    let warnings = at(&report, "/jwks/warnings").to_string();
    let long = format!("entry 3 (kid \\\"{}\u{2026}\\\") is skipped: its use", "\u{e4}".repeat(64));
    for expected in ["entry 2 is skipped", &long] {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }

    server.stop().await;
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 0, "with API keys it is degraded: {report}");
    assert!(at(&report, "/jwks/warnings").to_string().contains("no connection"), "{report}");
    config.set("auth.api_key.enabled", false);
    let (code, report) = check_connect(&config).await;
    assert_eq!(code, 1, "{report}");
    assert!(at(&report, "/jwks/faults").to_string().contains("no connection"), "{report}");
    config.remove("auth.jwt.jwks_url").set("auth.api_key.enabled", true);
    let (code, report) = check_connect(&config).await;
    assert!(code == 0 && report.get("jwks").is_none(), "{report}");
}

#[tokio::test]
async fn a_faulty_url_or_authority_is_a_fault_without_the_url() {
    let check = async |change: &dyn Fn(&mut Config)| {
        let mut config = Config::new();
        config
            .set("auth.jwt.jwks_url", "https://127.0.0.1/jwks")
            .set("auth.jwt.algorithms", vec!["ES256"]);
        change(&mut config);
        let output = testkit::hookgate::check(&config, &[]).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, report) = check(&|_| ()).await;
    assert_eq!(code, Some(0), "{report}");
    for secret in ["secret-path", "http://10.0.0.1/secret-path", "https://u:secret-path@id/"] {
        let (code, report) = check(&|config| {
            config.set("auth.jwt.jwks_url", secret);
        })
        .await;
        assert_eq!(code, Some(2), "{report}");
        assert!(report.contains("auth.jwt.jwks_url") && !report.contains("secret-path"));
    }
    let files = testkit::scratch::Scratch::new("authorities");
    let empty = files.write("empty.pem", "").display().to_string();
    let text = files.write("text.pem", "a certificate").display().to_string();
    let missing = files.join("missing.pem").display().to_string();
    for file in [empty, text, missing] {
        let (code, report) = check(&|config| {
            config.set("auth.jwt.jwks_ca_file", file.as_str());
        })
        .await;
        assert_eq!(code, Some(2), "{report}");
        assert!(report.contains("auth.jwt.jwks_ca_file"), "{report}");
    }
    let set = files.write("jwks.json", set(&[&Key::new("key")])).display().to_string();
    let (code, report) = check(&|config| {
        config.set("auth.jwt.jwks_file", set.as_str());
    })
    .await;
    assert_eq!(code, Some(2), "{report}");
    assert!(report.contains("auth.jwt.jwks_url: is set besides jwks_file"), "{report}");
    let (code, report) = check(&|config| {
        config.set("auth.jwt.algorithms", vec!["HS256"]);
    })
    .await;
    assert_eq!(code, Some(0), "{report}");
    let warning = "warning: auth.jwt.jwks_url has no effect: auth.jwt.algorithms lists only HS";
    assert!(report.contains(warning) && report.contains("such as \"RS256\""), "{report}");
    let warning = "auth.jwt.jwks_url: begins with http://, so it works only if its host";
    for (url, is_warned) in [
        ("http://sidecar.example/secret-path", true),
        ("http://localhost:1/secret-path", false),
        ("http://[::1]:1/secret-path", false),
        ("https://id.example/secret-path", false),
    ] {
        let (code, report) = check(&|config| {
            config.set("auth.jwt.jwks_url", url);
        })
        .await;
        assert_eq!((code, report.contains(warning)), (Some(0), is_warned), "{report}");
        assert!(!report.contains("secret-path"), "{report}");
    }
}
