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
            Value::String(secret) => confidential_secret(secret),
            Value::Array(secrets) => {
                secrets.iter().filter_map(Value::as_str).for_each(confidential_secret);
            }
            _ => {}
        }
    }
    json!({
        "id": node, "type": "WebhookTrigger",
        "data": { "webhookId": webhook, "verification": verification },
    })
}

/// With and without the prefix that says how it is encoded.
fn confidential_secret(secret: &str) {
    confidential::credential(secret);
    confidential::credential(secret.strip_prefix("whsec_").unwrap_or(secret));
}

/// Bytes in hex.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

/// An HMAC in hex.
pub fn hmac_sha256(secret: &str, message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex(hmac::sign(&key, message))
}

/// The value of GitHub's `X-Hub-Signature-256`.
pub fn github_signature(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hmac_sha256(secret, body))
}

impl App {
    /// The preview of an address of `org_a`.
    pub async fn preview_of(&self, webhook: &str) -> Value {
        let path = format!("{PREFIX}/org_a/{webhook}/preview");
        let reply = self.caller.call(Method::POST, &path).bearer("key_a").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["data"].clone()
    }

    /// Kind of the last refusal by the first trigger of an address of `org_a`.
    pub async fn last_refusal(&self, webhook: &str) -> String {
        let kind = &self.preview_of(webhook).await["triggers"][0]["lastRefusal"]["kind"];
        kind.as_str().unwrap_or_default().to_owned()
    }

    /// Asserts that the admin port and the previews of these addresses of `org_a` show none of these
    /// secrets.
    pub async fn assert_shows_none_of(&self, secrets: &[impl AsRef<str>], webhooks: &[&str]) {
        let mut shown = String::new();
        for path in ["/metrics", "/readyz", "/"] {
            let page = self.hookgate.admin_get(path).await.text().await.expect("a string");
            assert!(!page.is_empty(), "{path}");
            shown += &page;
        }
        for webhook in webhooks {
            shown.push('\n');
            shown.push_str(&self.preview_of(webhook).await.to_string());
        }
        for secret in secrets {
            assert!(!shown.contains(secret.as_ref()), "a secret is shown: {shown}");
        }
    }

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
