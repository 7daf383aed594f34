//! The documents that Hookgate reads, in the shape of the contract. The same values serve MongoDB
//! and the file source.

use serde_json::{Value, json};

use super::confidential;

/// A workflow with one `WebhookTrigger` node `n1`.
pub fn workflow(id: &str, organization: &str, webhook: &str) -> Value {
    workflow_of(
        id,
        organization,
        json!([trigger("n1", webhook), { "id": "n2", "type": "SendMessage" }]),
    )
}

/// A workflow with these nodes.
pub fn workflow_of(id: &str, organization: &str, nodes: Value) -> Value {
    json!({ "_id": id, "organizationId": organization, "enabled": true, "nodes": nodes })
}

/// A `WebhookTrigger` node.
pub fn trigger(node: &str, webhook: &str) -> Value {
    json!({ "id": node, "type": "WebhookTrigger", "data": { "webhookId": webhook } })
}

/// A user with an API key.
pub fn user(id: &str, organization: &str, api_key: &str) -> Value {
    confidential::credential(api_key);
    json!({ "_id": id, "organizationId": organization, "apiKey": api_key, "enabled": true })
}

/// The content of the two collections at the start.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    pub workflows: Vec<Value>,
    pub users: Vec<Value>,
}

impl Documents {
    /// Workflow `wf_1` of `org_a` on `wh_1` and user `user_1` of `org_a` with the key `key_a`;
    /// workflow `wf_b` and user `user_b` of `org_b` with the key `key_b` and the same `webhookId`.
    pub fn two_organizations() -> Self {
        Self {
            workflows: vec![workflow("wf_1", "org_a", "wh_1"), workflow("wf_b", "org_b", "wh_1")],
            users: vec![user("user_1", "org_a", "key_a"), user("user_b", "org_b", "key_b")],
        }
    }

    /// The file that `source = "file"` reads.
    pub fn to_json(&self) -> String {
        json!({ "workflows": self.workflows, "users": self.users }).to_string()
    }
}
