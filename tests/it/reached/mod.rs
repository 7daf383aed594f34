//! How callers reach the service: the sockets that it listens on, what proxies say of their
//! clients, certificates of clients, and what the service manager learns.

#![expect(clippy::indexing_slicing, reason = "a test panics")]

mod activation;
mod client_certificates;
mod health_path;
mod listeners;
mod proxy_protocol;
mod service_manager;
mod unix_socket;

use serde_json::Value;
use testkit::App;
use testkit::wait::until;

/// A webhook as bytes.
pub(crate) const WEBHOOK: &str = "POST /api/webhook/workflow HTTP/1.1\r\nHost: h\r\n\
    Authorization: Bearer key_a\r\nContent-Length: 20\r\n\r\n{\"webhookId\":\"wh_1\"}";

/// The member `client` of the only line of the access log about a request. The log is JSON.
pub(crate) async fn logged_client(app: &App, id: &str) -> String {
    let lines = || -> Vec<Value> {
        let log = app.hookgate.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["request_id"] == id).collect()
    };
    until("the request is logged", async || lines().len() == 1).await;
    let line = lines().pop().unwrap_or_default();
    line["client"].as_str().unwrap_or_default().to_owned()
}

/// Sends a webhook, and returns the client that the access log has for it.
pub(crate) async fn client_of_webhook(app: &App, id: &str, forwarded_for: &str) -> String {
    let call = app.webhook("wh_1").header("x-request-id", id);
    assert_eq!(call.header("x-forwarded-for", forwarded_for).send().await.matched(), 1);
    logged_client(app, id).await
}
