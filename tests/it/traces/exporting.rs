//! The export of spans: collectors that are dead, slow or refusing cost no request.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use serde_json::json;
use testkit::collector::{Answer, Collector};
use testkit::hookgate::check_connect;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, ports};

use super::{export_to, spans, traced};

/// Spans that wait for their export at most.
const QUEUED: f64 = 4096.0;

#[tokio::test]
async fn a_dead_collector_costs_no_request() {
    let port = ports::free();
    let endpoint = format!("http://127.0.0.1:{port}");
    let app = App::build().config(|config| export_to(config, &endpoint, 1.0)).start().await;
    for _ in 0..20 {
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    }
    until("an export has failed", async || spans(&app, "failed").await > 0.0).await;
    until("the failure is logged", async || app.hookgate.log().contains("spans not exported"))
        .await;
    let collector = Collector::start_on(port).await;
    until("spans are exported after the collector is back", async || {
        app.webhook("wh_1").send().await;
        spans(&app, "exported").await > 0.0
    })
    .await;
    assert!(!collector.spans().is_empty());
}

#[tokio::test]
async fn a_hanging_collector_fills_the_queue_and_no_more() {
    let collector = Collector::start().await;
    collector.answer(Answer::Hang);
    let app = traced(&collector, 1.0).start().await;
    until("spans are dropped", async || {
        let calls = (0..100).map(|_| app.webhook("wh_1").send());
        for reply in futures_util::future::join_all(calls).await {
            assert_eq!(reply.matched(), 1);
        }
        spans(&app, "dropped").await > 0.0
    })
    .await;
    assert!(app.hookgate.metrics().await.requests("accepted") > QUEUED / 3.0);
    app.assert_accounting().await;
    // The last spans are given up.
    assert_eq!(app.hookgate.terminate().await, 0);
    assert!(app.hookgate.log().contains("the last spans are lost"), "{}", app.hookgate.log());
}

#[tokio::test]
async fn a_refusing_collector_is_logged_once_and_without_its_words() {
    let collector = Collector::start().await;
    collector.answer(Answer::Refuse);
    let secret = "Bearer a-secret-of-the-collector";
    let headers = format!("authorization={secret}");
    let app = traced(&collector, 1.0).variable("OTEL_EXPORTER_OTLP_HEADERS", &headers);
    let app = app.start().await;
    for exports in 1..=2 {
        app.webhook("wh_1").send().await;
        until("another export is refused", async || collector.exports() >= exports).await;
    }
    until("the spans are counted", async || spans(&app, "failed").await >= 6.0).await;
    assert_eq!(collector.header("authorization").as_deref(), Some(secret));
    let log = app.hookgate.log();
    assert_eq!(log.matches("spans not exported").count(), 1, "{log}");
    assert!(log.contains("PermissionDenied") && !log.contains("a-secret-of"), "{log}");
}

#[tokio::test]
async fn the_last_spans_are_exported_before_the_end() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    assert_eq!(app.webhook("wh_1").header("x-request-id", "last").send().await.matched(), 1);
    assert_eq!(app.hookgate.terminate().await, 0);
    assert_eq!(collector.spans().len(), 3, "{:#?}", collector.spans());
}

#[tokio::test]
async fn the_resource_names_the_service_and_what_the_environment_says() {
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0).start().await;
    app.webhook("wh_1").send().await;
    until("spans arrive", async || !collector.spans().is_empty()).await;
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "hookgate");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(resource["service.instance.id"].is_string());
    drop(app);
    let collector = Collector::start().await;
    let app = traced(&collector, 1.0)
        .variable("OTEL_SERVICE_NAME", "ingress")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,k8s.pod.name=p1")
        .variable("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        // These are not read.
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .variable("OTEL_TRACES_SAMPLER", "always_off");
    let app = app.start().await;
    app.webhook("wh_1").send().await;
    until("spans arrive", async || !collector.spans().is_empty()).await;
    let resource = collector.resource();
    let expected = [
        ("service.name", "ingress"),
        ("deployment.environment.name", "test"),
        ("k8s.pod.name", "p1"),
    ];
    for (key, value) in expected {
        assert_eq!(resource[key], json!(value), "{resource:?}");
    }
    assert_eq!(collector.header("grpc-encoding").as_deref(), Some("gzip"));
}

#[tokio::test]
async fn spans_are_exported_over_tls_to_a_trusted_collector_only() {
    let authority = Authority::new();
    let collector = Collector::start_tls(&authority).await;
    let trusting = traced(&collector, 1.0).variable("SSL_CERT_FILE", &authority.authority_file());
    let app = trusting.start().await;
    app.webhook("wh_1").send().await;
    until("spans arrive", async || !collector.spans().is_empty()).await;
    drop(app);
    let other = Authority::new();
    let distrusting = traced(&collector, 1.0).variable("SSL_CERT_FILE", &other.authority_file());
    let app = distrusting.start().await;
    app.webhook("wh_1").send().await;
    until("the export fails", async || spans(&app, "failed").await >= 3.0).await;
    assert!(app.hookgate.log().contains("invalid peer certificate"), "{}", app.hookgate.log());
}

#[tokio::test]
async fn check_reports_a_collector_that_does_not_accept_spans() {
    let collector = Collector::start().await;
    let mut app = traced(&collector, 1.0).start().await;
    let (code, report) = check_connect(&app.hookgate.config).await;
    assert_eq!((code, &report["otlp"]["endpoint"]), (0, &json!(collector.url())), "{report}");
    assert_eq!(report["otlp"]["warnings"], json!([]), "{report}");
    assert!(collector.exports() > 0, "the collector was asked");

    collector.answer(Answer::Refuse);
    let dead = format!("http://127.0.0.1:{}", ports::free());
    for (endpoint, reason) in [(collector.url(), "PermissionDenied"), (&dead, "tcp connect error")]
    {
        export_to(&mut app.hookgate.config, endpoint, 1.0);
        let (code, report) = check_connect(&app.hookgate.config).await;
        assert_eq!(code, 0, "requests need no collector: {report}");
        assert!(report["otlp"]["warnings"].to_string().contains(reason), "{reason}: {report}");
    }

    app.hookgate.config.remove("telemetry.otlp");
    let (_, report) = check_connect(&app.hookgate.config).await;
    assert!(report.get("otlp").is_none(), "{report}");
}

#[tokio::test]
async fn nothing_is_exported_without_an_endpoint() {
    let app = App::build().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let app = app.start().await;
    app.webhook("wh_1").send().await;
    assert_eq!(app.hookgate.metrics().await.sum("hookgate_spans_total"), 0.0);
    assert!(!app.hookgate.log().contains("exporting spans"));
}
