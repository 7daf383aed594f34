//! Which workflows a webhook starts.

use serde::Deserialize;
use std::collections::HashMap;

pub struct Workflow {
    pub id: String,
    pub node_ids: Vec<String>,
}

/// By organization and webhook.
pub struct Workflows(HashMap<String, HashMap<String, Vec<Workflow>>>);

#[derive(Deserialize)]
struct File {
    workflows: Vec<Document>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(rename = "_id")]
    id: String,
    organization_id: String,
    enabled: bool,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    r#type: String,
    #[serde(default)]
    data: NodeData,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeData {
    webhook_id: Option<String>,
}

impl Workflows {
    pub fn read(path: &str) -> anyhow::Result<Self> {
        let file: File = serde_json::from_slice(&std::fs::read(path)?)?;
        let mut all = Self(HashMap::new());
        for document in file.workflows.into_iter().filter(|document| document.enabled) {
            all.insert(document);
        }
        Ok(all)
    }

    fn insert(&mut self, document: Document) {
        let mut node_ids: HashMap<String, Vec<String>> = HashMap::new();
        for node in document.nodes {
            if let ("WebhookTrigger", Some(webhook)) = (node.r#type.as_str(), node.data.webhook_id)
            {
                node_ids.entry(webhook).or_default().push(node.id);
            }
        }
        let webhooks = self.0.entry(document.organization_id).or_default();
        for (webhook, node_ids) in node_ids {
            let workflow = Workflow { id: document.id.clone(), node_ids };
            webhooks.entry(webhook).or_default().push(workflow);
        }
    }

    pub fn matching(&self, organization: &str, webhook: &str) -> &[Workflow] {
        self.0
            .get(organization)
            .and_then(|webhooks| webhooks.get(webhook))
            .map_or(&[], Vec::as_slice)
    }
}
