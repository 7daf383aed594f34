//! The section `[triggers]`.

use crate::endpoints::EndpointsSettings;
use crate::mirror::filter::Filter;
use crate::settings::Section;
use crate::triggers::address_nodes::VerificationField;
use crate::triggers::fields::Fields;
use crate::triggers::kept_fields::KeptFields;
use crate::triggers::posting::PostingLayout;
use std::path::PathBuf;
use std::time::Duration;

/// The section `[triggers]`.
#[derive(Debug, Clone)]
pub struct TriggersSettings {
    pub source: DocumentSource,
    pub file: PathBuf,
    pub collection: String,
    /// The age of workflows and users up to which a miss is trusted, 1 s to a day.
    pub max_staleness: Duration,
    /// The file of the snapshot; `None` if none is kept.
    pub snapshot_file: Option<PathBuf>,
    /// The query that a workflow must match.
    pub filter: Filter,
    pub(super) fields: Fields,
}

/// The source of workflows and users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentSource {
    File,
    MongoDb,
}

impl TriggersSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            source: section.value("source", DocumentSource::MongoDb),
            file: section.value("file", PathBuf::from("config/workflows.json")),
            collection: section.name("collection", "workflows"),
            max_staleness: section.duration(
                "max_staleness",
                "30s",
                Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60),
            ),
            snapshot_file: Some(section.value("snapshot_file", PathBuf::new()))
                .filter(|file| !file.as_os_str().is_empty()),
            filter: Filter::read(section),
            fields: Fields::read(section),
        }
    }

    /// The dotted path of the array of nodes.
    pub fn nodes_field(&self) -> &str {
        &self.fields.nodes
    }

    /// The first configured type of trigger nodes.
    pub fn first_node_type(&self) -> &str {
        &self.fields.first_node_type
    }

    /// Keeps these fields of workflows for their jobs.
    pub fn keep_fields(&mut self, kept: KeptFields) {
        self.fields.kept = kept;
    }

    /// Keeps the verifications of trigger nodes if endpoints are enabled.
    pub fn keep_verifications(&mut self, endpoints: &EndpointsSettings) {
        self.fields.verification = VerificationField::new(endpoints);
    }

    /// The dotted paths within a trigger node at which it is read, each with its key.
    pub fn node_fields(&self) -> [(&'static str, &str); 3] {
        let Fields { node_type, node_id, webhook_id, .. } = &self.fields;
        [
            ("node_type_field", node_type),
            ("node_id_field", node_id),
            ("webhook_id_field", webhook_id),
        ]
    }

    pub(super) fn posting_layout(&self) -> PostingLayout {
        PostingLayout::new(&self.fields.node_types, self.fields.kept.len())
    }

    /// The settings that determine which records the documents become. They identify a snapshot,
    /// together with [`Self::additional_source_names`].
    pub fn source_names(&self) -> [&str; 4] {
        let Fields { nodes, organization, active, .. } = &self.fields;
        [&self.collection, nodes, organization, active.path().unwrap_or_default()]
    }

    /// Further such settings that are not the default, each after the name of its key.
    pub fn additional_source_names(&self) -> Vec<String> {
        let mut names = self.fields.source_names();
        if let Some(filter) = self.filter.source_name() {
            names.extend(["triggers.filter", filter].map(str::to_owned));
        }
        names
    }
}
