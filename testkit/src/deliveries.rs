//! Deliveries to endpoints, signed as their senders sign them.

use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Value, json};

use super::app::App;
use super::confidential;
use super::config::Config;
use super::http::Call;

/// The path of every endpoint, as shipped.
pub const PREFIX: &str = "/api/webhook/in";

/// Switches endpoints on.
pub fn endpoints(config: &mut Config) {
    config.set("endpoints.enabled", true);
}

/// A trigger node with a verification. Its secrets may be in no log.
pub fn verified_trigger(node: &str, webhook: &str, verification: &Value) -> Value {
    for member in ["secret", "secrets", "verifyToken"] {
        match &verification[member] {
            Value::String(secret) => confidential::credential(secret),
            Value::Array(secrets) => {
                secrets.iter().filter_map(Value::as_str).for_each(confidential::credential);
            }
            _ => {}
        }
    }
    json!({
        "id": node, "type": "WebhookTrigger",
        "data": { "webhookId": webhook, "verification": verification },
    })
}

/// An HMAC in hex.
pub fn hmac_sha256(secret: &str, message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, message);
    tag.as_ref().iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

/// The value of GitHub's `X-Hub-Signature-256`.
pub fn github_signature(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hmac_sha256(secret, body))
}

impl App {
    /// A POST to an address, without header fields.
    pub fn delivery(&self, organization: &str, webhook: &str, body: impl Into<Vec<u8>>) -> Call {
        self.caller.call(Method::POST, &format!("{PREFIX}/{organization}/{webhook}")).body(body)
    }

    /// A delivery of JSON as GitHub sends it.
    pub fn github_delivery(&self, secret: &str, id: &str, body: &str) -> Call {
        self.delivery("org_a", "wh_1", body)
            .header("content-type", "application/json")
            .header("x-github-delivery", id)
            .header("x-hub-signature-256", github_signature(secret, body.as_bytes()))
    }
}
