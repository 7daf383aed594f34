//! Where things are in the document of a workflow, and what the database returns of it.

use crate::mirror::active_field::ActiveField;
use crate::mirror::paths;
use crate::settings::Section;
use crate::triggers::address_nodes::VerificationField;
use crate::triggers::kept_fields::{KeptField, KeptFields};
use bson::{Document, doc};

/// The dotted paths of a document's fields, and the types of its trigger nodes.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) nodes: String,
    pub(super) organization: String,
    pub(super) active: ActiveField,
    /// The types that make a node a trigger. There is at least one.
    pub(super) node_types: Vec<String>,
    /// The one that is configured first; the others are sorted.
    pub(super) first_node_type: String,
    // Paths within a node.
    pub(super) node_type: String,
    pub(super) node_id: String,
    pub(super) webhook_id: String,
    pub(super) kept: KeptFields,
    /// `None` if endpoints are not enabled: then it is neither projected nor read.
    pub(super) verification: Option<VerificationField>,
}

const NODE_TYPE: &str = "WebhookTrigger";
const NODE_TYPE_FIELD: &str = "type";
const NODE_ID_FIELD: &str = "id";
const WEBHOOK_ID_FIELD: &str = "data.webhookId";

impl Fields {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let mut node_types = section.value("node_types", vec![NODE_TYPE.to_owned()]);
        if node_types.is_empty() || node_types.iter().any(String::is_empty) {
            section.fault("node_types", "is empty, or has an empty type");
        }
        let first_node_type = node_types.first().cloned().unwrap_or_default();
        node_types.sort();
        node_types.dedup();
        Self {
            nodes: paths::read(section, "nodes_field", "nodes"),
            organization: paths::read(section, "organization_field", "organizationId"),
            active: ActiveField::read(section),
            node_types,
            first_node_type,
            node_type: paths::read(section, "node_type_field", NODE_TYPE_FIELD),
            node_id: paths::read(section, "node_id_field", NODE_ID_FIELD),
            webhook_id: paths::read(section, "webhook_id_field", WEBHOOK_ID_FIELD),
            kept: KeptFields::default(),
            verification: None,
        }
    }

    /// The settings that are not the default, each after the name of its key. With the other paths,
    /// they decide what a document becomes.
    pub(super) fn source_names(&self) -> Vec<String> {
        let list = |list: &[String]| serde_json::json!(list).to_string();
        let kept = |fields: &[KeptField]| serde_json::json!(fields).to_string();
        let default_types = [NODE_TYPE.to_owned()];
        let settings = [
            ("node_types", list(&self.node_types), list(&default_types)),
            ("node_type_field", self.node_type.clone(), NODE_TYPE_FIELD.to_owned()),
            ("node_id_field", self.node_id.clone(), NODE_ID_FIELD.to_owned()),
            ("webhook_id_field", self.webhook_id.clone(), WEBHOOK_ID_FIELD.to_owned()),
            ("active_values", self.active.source_name().unwrap_or_default(), String::new()),
            ("kept workflow fields", kept(&self.kept.workflow), kept(&[])),
            ("kept node fields", kept(&self.kept.node), kept(&[])),
        ];
        let changed = settings.into_iter().filter(|(_, value, default)| value != default);
        changed.flat_map(|(key, value, _)| [format!("triggers.{key}"), value]).collect()
    }

    /// The `$project` stage that returns the organization, the switch, the kept fields and the
    /// trigger nodes. If the nodes are not an array, it returns the name of their type instead:
    /// then a malformed document neither fails the cursor nor transfers its content.
    pub(super) fn projection(&self) -> Document {
        let mut paths = vec!["_id", self.organization.as_str(), self.nodes.as_str()];
        paths.extend(self.active.path());
        paths.extend(self.kept.workflow.iter().map(|field| field.path.as_str()));
        let mut projection = Document::new();
        for path in paths::outermost(&paths) {
            if path == self.nodes && self.kept.workflow.iter().all(|field| field.path != path) {
                projection.insert(path, self.nodes_projection());
            } else {
                projection.insert(path, 1);
            }
        }
        projection
    }

    fn nodes_projection(&self) -> Document {
        let nodes = format!("${}", self.nodes);
        doc! { "$cond": [
            { "$isArray": [&nodes] },
            { "$map": {
                "input": { "$filter": { "input": &nodes, "as": "node", "cond": self.is_trigger() } },
                "as": "node",
                "in": self.node_projection(),
            } },
            { "$type": &nodes },
        ] }
    }

    /// Whether a node is a trigger. A type is literal: it may begin with `$`.
    fn is_trigger(&self) -> Document {
        let node_type = format!("$$node.{}", self.node_type);
        match self.node_types.as_slice() {
            [only] => doc! { "$eq": [node_type, { "$literal": only }] },
            types => doc! { "$in": [node_type, { "$literal": types }] },
        }
    }

    /// The fields of a trigger node, at the paths where they are.
    fn node_projection(&self) -> Document {
        let own = [&self.node_id, &self.node_type, &self.webhook_id].map(String::as_str);
        let mut own = own.to_vec();
        // Through an array it is an array of values, which is malformed and not missing.
        own.extend(self.verification.as_ref().map(|field| field.path.as_str()));
        let mut paths = own.clone();
        paths.extend(self.kept.node.iter().map(|field| field.path.as_str()));
        let mut projection = Document::new();
        for path in paths::outermost(&paths) {
            insert(&mut projection, path, path, own.contains(&path));
        }
        projection
    }
}

/// Inserts the field of a node at the end of its path. An expression reads a path through an array
/// as an array of values; where that must not be taken for a value, it is null.
fn insert(projection: &mut Document, rest: &str, path: &str, is_plain: bool) {
    if let Some((name, rest)) = rest.split_once('.') {
        if projection.get_document(name).is_err() {
            projection.insert(name, Document::new());
        }
        if let Ok(inner) = projection.get_document_mut(name) {
            insert(inner, rest, path, is_plain);
        }
        return;
    }
    let value = format!("$$node.{path}");
    match path.rsplit_once('.').filter(|_| !is_plain) {
        Some((parent, _)) => {
            let is_array = doc! { "$isArray": [format!("$$node.{parent}")] };
            projection.insert(rest, doc! { "$cond": [is_array, null, value] });
        }
        None => drop(projection.insert(rest, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;

    fn fields(toml: &str) -> Fields {
        let mut settings = SettingsReader::new(toml::from_str(toml).unwrap(), std::iter::empty());
        let fields = Fields::read(&mut settings.section("triggers"));
        assert!(settings.into_faults().is_empty());
        fields
    }

    fn kept(paths: &[&str]) -> Vec<KeptField> {
        let field = |path: &&str| KeptField { path: (*path).to_owned(), is_in_text: false };
        paths.iter().map(field).collect()
    }

    #[test]
    fn defaults_add_nothing_to_the_source() {
        assert_eq!(fields("").source_names(), [""; 0]);
        let mut fields = fields("[triggers]\nnode_types = [\"A\"]\nactive_values = [1]");
        fields.kept.node = kept(&["x"]);
        let names = ["triggers.node_types", "triggers.active_values", "triggers.kept node fields"];
        assert!(fields.source_names().iter().step_by(2).eq(names));
    }

    #[test]
    fn no_two_projected_paths_collide() {
        let mut fields = fields(
            "[triggers]\nnodes_field = \"graph.nodes\"\nnode_id_field = \"data\"\norganization_field = \"owner.id\"",
        );
        fields.kept.workflow = kept(&["owner", "graph.nodes.x", "graph.name"]);
        fields.kept.node = kept(&["data.x", "config.a.b", "config.a.c"]);
        let names: Vec<String> = fields.projection().keys().cloned().collect();
        assert_eq!(names, ["_id", "graph.nodes", "enabled", "owner", "graph.name"]);
        let node = fields.node_projection();
        assert_eq!(node.keys().collect::<Vec<_>>(), ["data", "type", "config"]);
        let a = node.get_document("config").unwrap().get_document("a").unwrap();
        assert!(a.contains_key("b") && a.contains_key("c"));
        fields.kept.workflow = kept(&["graph"]);
        assert_eq!(fields.projection().get("graph"), Some(&1.into()));
    }
}
