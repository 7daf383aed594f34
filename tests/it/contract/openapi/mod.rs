//! The document at `GET /openapi.json` describes exactly what is served.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test panics")]

mod addresses;
mod document;

use std::collections::BTreeSet;
use std::time::Duration;

use addresses::{ADDRESS, ADDRESS_PREVIEW};
use document::{Cases, Document, TEXT, content, contents, path};
use hookgate::admission::OverLimit;
use hookgate::auth::AuthError;
use hookgate::endpoints::payload::MultipartFault;
use hookgate::ingress::{
    InvalidJson, InvalidJsonKind, PREVIEW_PATH, Rejection, WEBHOOK_PATH, WebhookError,
};
use hookgate::metrics::{Limit, Outcome};
use hookgate::queue::Enqueued;
use jsonwebtoken::Algorithm;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::deliveries::{endpoints, verified_trigger};
use testkit::documents::{workflow, workflow_of};
use testkit::keys::KeyPair;
use testkit::process::Process;
use testkit::python::python;
use testkit::raw::raw;
use testkit::refusals::{self, small_app};
use testkit::scratch::Scratch;
use testkit::tokens::{claims, sign_with_id, token};
use testkit::wait::until;
use testkit::{App, Caller, Config, Documents, Reply, ports};

/// The webhook that the examples of the document send.
const WEBHOOK_OF_EXAMPLES: &str = "wh_64d2f9c5e8a1d4e001a0b1c3";

#[test]
fn the_document_is_valid_openapi_and_its_examples_match() {
    let document = Document::read();
    assert_eq!(document.root["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut cases = Cases::default();
    for kind in ["headers", "parameters"] {
        for (name, holder) in document.members(&format!("/components/{kind}")) {
            for example in document.examples(holder) {
                cases.add(name, &holder["schema"], example);
            }
        }
    }
    for (path, method, operation) in document.operations() {
        let responses = operation["responses"].as_object().expect("an object").values();
        let bodies = responses.chain(operation.get("requestBody"));
        for body in bodies {
            for (_, content) in contents(document.resolve(body)) {
                for example in document.examples(content) {
                    cases.add(&format!("{method} {path}"), &content["schema"], example);
                }
            }
        }
    }
    cases.judge(&document);

    let unused = ["NotFound", "MethodNotAllowed", "bearerAuth"];
    for (kind, components) in document.members("/components") {
        for name in components.as_object().expect("an object").keys() {
            let is_used = TEXT.contains(&format!("\"#/components/{kind}/{name}\""));
            assert!(is_used || unused.contains(&name.as_str()), "{kind} {name} is not used");
        }
    }
}

/// One rejection of each kind that callers can get.
fn refusals() -> Vec<Rejection> {
    let over = OverLimit {
        limit: Limit::Rate,
        quota: 1,
        window: Some(Duration::from_secs(1)),
        retry_after: Duration::from_secs(1),
    };
    let invalid = [
        (InvalidJsonKind::Syntax, Some(1)),
        (InvalidJsonKind::Utf8, Some(1)),
        (InvalidJsonKind::Depth, Some(1)),
        (InvalidJsonKind::Framing, None),
    ];
    let invalid = invalid.map(|(kind, offset)| InvalidJson { kind, offset });
    let bodies = [WebhookError::NotAnObject, WebhookError::MissingWebhookId];
    let bodies = bodies.into_iter().chain(invalid.map(WebhookError::InvalidJson));
    let credentials = [
        AuthError::ExpiredToken,
        AuthError::InvalidApiKey,
        AuthError::InvalidToken,
        AuthError::KeyUnavailable,
        AuthError::MissingCredentials,
        AuthError::StaleIndex,
    ];
    let mut refusals = vec![
        Rejection::FanoutTooLarge { matches: 1, max_matches: 1, bytes: 1, max_bytes: 1 },
        Rejection::IdempotencyKeyReused,
        Rejection::StaleIndex,
        Rejection::DeliveryMethodNotAllowed,
        Rejection::Internal,
        Rejection::InvalidIdempotencyKey,
        Rejection::JobTooLarge { bytes: 2, max_bytes: Some(1) },
        Rejection::JobTooLarge { bytes: 2, max_bytes: None },
        Rejection::MethodNotAllowed,
        Rejection::NotFound,
        Rejection::Overloaded,
        Rejection::BodyTooLarge { max_bytes: 1 },
        Rejection::QueueUnavailable(Enqueued::Nothing),
        Rejection::QueueUnavailable(Enqueued::Unknown),
        Rejection::RateLimited(over),
        Rejection::RequestTimeout,
        Rejection::TooManyFailures { retry_after_seconds: 1 },
        Rejection::Undecodable,
        Rejection::UnknownWebhook,
        Rejection::UnsupportedEncoding { accepted: String::new() },
        Rejection::UnsupportedMediaType,
        Rejection::InvalidSignature,
        Rejection::StaleSignature,
    ];
    let faults = [
        MultipartFault::Boundary,
        MultipartFault::Incomplete,
        MultipartFault::Header,
        MultipartFault::Name,
    ];
    refusals.extend(faults.map(Rejection::InvalidMultipart));
    refusals.extend(bodies.map(Rejection::InvalidBody));
    refusals.extend(credentials.map(Rejection::Unauthorized));
    refusals
}

#[test]
fn the_document_has_every_rejection_of_the_code() {
    let document = Document::read();
    let refusals = refusals();
    let mut codes: BTreeSet<&str> = Outcome::WORDS.iter().copied().collect();
    // `accepted` and `handshake` are no rejections, and `client_closed` is never answered.
    assert!(["accepted", "handshake", "client_closed"].iter().all(|word| codes.remove(word)));
    assert_eq!(codes, refusals.iter().map(|each| each.outcome().as_str()).collect());
    let listed =
        document.members("/components/schemas/Error")["properties"]["code"]["enum"].clone();
    let listed: BTreeSet<String> = serde_json::from_value(listed).expect("strings");
    assert_eq!(listed, codes.iter().map(ToString::to_string).collect());

    let expected: BTreeSet<String> = refusals
        .iter()
        .map(|each| {
            let error = json!({
                "code": each.outcome().as_str(), "error": each.sentence(),
                "retryable": each.is_retryable(), "details": each.details(),
            });
            line(each.status().as_u16(), &error, each.retry_after().is_some())
        })
        .collect();
    let mut documented = BTreeSet::new();
    for (status, answer) in document.answers_to_callers() {
        if status >= 400 {
            let waits = answer["headers"].get("Retry-After").is_some();
            let examples = document.examples(content(answer).1).into_iter();
            documented.extend(examples.map(|error| line(status, error, waits)));
        }
    }
    assert_eq!(documented, expected);
}

/// A rejection without its numbers, which depend on the request and the configuration.
fn line(status: u16, error: &Value, waits: bool) -> String {
    let [code, sentence, retryable] = ["code", "error", "retryable"].map(|name| &error[name]);
    let mut details = error["details"].clone();
    for value in details.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if value.is_number() {
            *value = json!(0);
        }
    }
    format!("{status} {code}: {sentence} (again: {retryable}, {details}, Retry-After: {waits})")
}

#[tokio::test]
async fn the_document_has_every_path() {
    let document = Document::read();
    let source = include_str!("../../../../src/admin/mod.rs");
    let (_, routes) = source.split_once("match request.uri().path() {").expect("the routes");
    let (routes, _) = routes.split_once("_ =>").expect("a last arm");
    let literals = routes.split('"').skip(1).step_by(2).filter(|each| each.starts_with('/'));
    let mut served: BTreeSet<(&str, &str)> = literals.map(|path| (path, "get")).collect();
    assert!(served.len() > 5, "{served:?}: are the routes still found?");
    let of_operators: Vec<&str> = served.iter().map(|(path, _)| *path).collect();
    served.extend([(WEBHOOK_PATH, "post"), (PREVIEW_PATH, "post"), (ADDRESS_PREVIEW, "post")]);
    let methods = ["delete", "get", "head", "options", "patch", "post", "put"];
    served.extend(methods.map(|method| (ADDRESS, method)));
    let operations = document.operations().into_iter();
    assert_eq!(served, operations.map(|(path, method, _)| (path, method)).collect());

    let app = App::start().await;
    let operators = Caller::new(app.hookgate.admin_address());
    let mut cases = Cases::default();
    for path in of_operators {
        let reply = operators.call(Method::GET, path).send().await;
        assert_eq!(reply.status, 200, "{path}");
        cases.add_reply(&document, path, "get", &reply);
        let elsewhere = operators.call(Method::GET, path).header("host", "elsewhere");
        let reply = elsewhere.send().await;
        assert_eq!(reply.status, 421, "{path}");
        cases.add_reply(&document, path, "get", &reply);
    }
    cases.judge(&document);
    assert_eq!(app.hookgate.admin_get("/openapi.json").await.text().await.expect("a string"), TEXT);
}

#[tokio::test]
async fn real_rejections_match_the_document() {
    let document = Document::read();
    let mut cases = Cases::default();
    let mut seen = BTreeSet::new();
    let mut add = |path: &str, reply: &Reply| {
        cases.add_reply(&document, path, "post", reply);
        let examples = document.examples(content(document.answer(path, "post", reply.status)).1);
        let sentence = &reply.json()["error"];
        assert!(examples.iter().any(|each| each["error"] == *sentence), "{path} {sentence}");
        seen.insert(reply.code());
    };
    let app = small_app().await;
    for row in refusals::rows(&app) {
        add(WEBHOOK_PATH, &row.call.send().await);
    }
    for reply in preview_refusals(&app).await {
        add(PREVIEW_PATH, &reply);
    }
    for reply in unavailable().await {
        add(WEBHOOK_PATH, &reply);
    }
    let unloaded = App::build().config(without_mongodb).start_unready().await;
    let jwt = token(&claims("org_a", "user_1"));
    for path in [WEBHOOK_PATH, PREVIEW_PATH] {
        add(path, &to(&unloaded, path).bearer(&jwt).send().await);
    }
    for (path, reply) in unknown_key().await {
        add(path, &reply);
    }
    for (path, reply) in addresses::refusals().await {
        add(path, &reply);
    }
    let operators = Caller::new(unloaded.hookgate.admin_address());
    let reply = operators.call(Method::GET, "/readyz").send().await;
    assert_eq!(reply.status, 503);
    cases.add_reply(&document, "/readyz", "get", &reply);
    cases.judge(&document);

    let mut codes: BTreeSet<String> =
        Outcome::WORDS.iter().map(|word| (*word).to_owned()).collect();
    // `accepted` and `handshake` are no rejections, `client_closed` is never answered, and `internal`
    // should never happen.
    let others = ["accepted", "handshake", "client_closed", "internal"];
    assert!(others.iter().all(|word| codes.remove(*word)));
    assert_eq!(seen, codes);
}

async fn preview_refusals(app: &App) -> Vec<Reply> {
    let ask = || to(app, PREVIEW_PATH);
    let calls = [
        ask().body("[]"),
        ask().without("authorization"),
        ask().header("content-type", "text/plain"),
        ask().header("content-encoding", "gzip"),
        ask().body("x".repeat(2000)),
        ask().header("idempotency-key", ""),
    ];
    let mut replies = Vec::new();
    for call in calls {
        replies.push(call.send().await);
    }
    replies
}

/// Rejections of a busy app, of one whose Redis is frozen, and of one over its limit.
/// Tokens of an issuer whose keys have not been fetched yet.
async fn unknown_key() -> Vec<(&'static str, Reply)> {
    let app = App::with(|config| {
        config.set("auth.jwt.algorithms", vec!["ES256"]).remove("auth.jwt.secrets");
        config.set("auth.jwt.jwks_url", format!("http://127.0.0.1:{}/jwks", ports::free()));
    })
    .await;
    let key = KeyPair::for_algorithm(Algorithm::ES256).encoding_key(Algorithm::ES256);
    let jwt = sign_with_id(&claims("org_a", "user_1"), Algorithm::ES256, &key, "key");
    let mut replies = Vec::new();
    for path in [WEBHOOK_PATH, PREVIEW_PATH] {
        replies.push((path, to(&app, path).bearer(&jwt).send().await));
    }
    replies
}

async fn unavailable() -> Vec<Reply> {
    let app = App::with(|config| {
        config.set("server.body_timeout", "300ms").set("queue.enqueue_timeout", "5s");
        config.set("limits.in_flight_requests", 1).set("server.workers", 1);
        config.set("limits.organization.requests_per_second", 1);
        config.set("limits.organization.burst", 1);
    })
    .await;
    let mut replies = Vec::new();
    let head =
        format!("POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n");
    let half = format!("{head}Content-Length: 1000\r\n\r\n{{");
    replies.push(raw(app.hookgate.address(), half).await);
    until("the organization is over its limit", async || {
        let reply = app.webhook("wh_1").send().await;
        (reply.status == 429).then(|| replies.push(reply)).is_some()
    })
    .await;
    app.redis.freeze();
    let stuck = tokio::spawn(app.webhook("wh_1").bearer("key_b").send());
    app.in_flight(1).await;
    replies.push(app.webhook("wh_1").send().await);
    replies.push(stuck.await.expect("an answer"));
    app.redis.thaw();
    replies
}

#[tokio::test]
async fn the_documents_requests_are_accepted_and_answered_as_described() {
    let document = Document::read();
    let app = app_of_examples().await;
    let mut cases = Cases::default();
    let mut jobs = 0;
    for (path, status) in [(WEBHOOK_PATH, 202), (PREVIEW_PATH, 200)] {
        let (media_type, content) = content(&document.root["paths"][path]["post"]["requestBody"]);
        for example in document.examples(content) {
            let call = to(&app, path).header("content-type", media_type).body(example.to_string());
            let reply = call.send().await;
            assert_eq!(reply.status, status, "{}", reply.text());
            assert_eq!(reply.json()["data"]["matchedCount"], 1, "{}", reply.text());
            cases.add_reply(&document, path, "post", &reply);
            jobs += usize::from(status == 202);
        }
    }
    jobs += 1;
    let repeated = || to(&app, WEBHOOK_PATH).header("idempotency-key", "once");
    for replayed in [None, Some("true")] {
        let reply = repeated().send().await;
        assert_eq!(reply.header("idempotency-replayed"), replayed);
        cases.add_reply(&document, WEBHOOK_PATH, "post", &reply);
    }
    cases.judge(&document);
    app.redis.queue().waiting_exactly(jobs).await;
}

/// Checks the part for callers and the part for operators of the served document, and the earlier
/// contract of Tether's API, which is kept.
#[tokio::test]
async fn schemathesis_finds_no_fault_in_either_contract() {
    let app = app_of_examples().await;
    let ours = app.hookgate.admin_url("/openapi.json");
    let callers = format!("http://{}", app.hookgate.address());
    let operators = format!("http://{}", app.hookgate.admin_address());
    let before = path("tether.yaml");
    schemathesis(&ours, &callers, &["--include-path-regex", "^/api/"]).await;
    schemathesis(&ours, &operators, &["--exclude-path-regex", "^/api/"]).await;
    schemathesis(before.to_str().expect("a string"), &callers, &[]).await;

    let metrics = app.hookgate.metrics().await;
    let counted = |code: &str| metrics.value("hookgate_requests_total", &[("code", code)]);
    for code in ["accepted", "missing_webhook_id", "missing_credentials", "method_not_allowed"] {
        assert!(counted(code) >= 5.0, "{code} {}: were requests really sent?", counted(code));
    }
    assert!(counted("handshake") >= 2.0, "were HEAD and OPTIONS really sent?");
    assert!(metrics.sum("hookgate_jobs_enqueued_total") >= 5.0);
}

async fn schemathesis(document: &str, address: &str, only: &[&str]) {
    let scratch = Scratch::new("schemathesis");
    let mut command = python("schemathesis");
    // The requests are the same in every run.
    command.env("PYTHONHASHSEED", "1").env("SCHEMATHESIS_HOOKS", path("webhook_ids.py"));
    command.current_dir(scratch.path()).args(["-m", "schemathesis.cli", "--config-file"]);
    command.arg(path("schemathesis.toml")).args(["run", document, "--url", address]);
    // An address is no resource: DELETE delivers to it as any other method does, and it stays.
    command.args(["--checks", "all", "--exclude-checks", "use_after_free"]).args(only);
    command.args(["--seed", "1", "--max-examples", "60", "--generation-database", "none"]);
    // The machine may be busy.
    command.args(["--request-timeout", "60", "--suppress-health-check", "too_slow"]);
    command.args(["--continue-on-failure", "--no-color"]);
    let process = Process::start("schemathesis", &command, &scratch.join("log"));
    let code = process.wait_within(Duration::from_mins(10)).await;
    let log = process.log_text();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("No issues found"), "{log}");
}

/// An app whose `org_a` has the workflows that the examples start.
async fn app_of_examples() -> App {
    let mut documents = Documents::two_organizations();
    let mut inactive = workflow("wf_off", "org_a", WEBHOOK_OF_EXAMPLES);
    inactive["enabled"] = json!(false);
    documents.workflows.extend([workflow("wf_on", "org_a", WEBHOOK_OF_EXAMPLES), inactive]);
    let address = json!([verified_trigger("n1", "wh_in", &json!({ "scheme": "none" }))]);
    documents.workflows.push(workflow_of("wf_in", "org_a", address));
    App::build().documents(documents).config(endpoints).start().await
}

fn to(app: &App, path: &str) -> testkit::http::Call {
    let body = json!({ "webhookId": "wh_1" }).to_string();
    let call = app.caller.call(Method::POST, path).bearer("key_a").body(body);
    call.header("content-type", "application/json")
}

fn without_mongodb(config: &mut Config) {
    config.set("triggers.source", "mongodb");
    config.set("mongodb.uri", format!("mongodb://127.0.0.1:{}/", ports::free()));
}
