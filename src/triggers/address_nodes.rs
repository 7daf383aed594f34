//! Reading the verifications of trigger nodes.

use crate::endpoints::verification::{self, Verification};
use crate::endpoints::{EndpointsSettings, NamedVerifications};
use crate::ids::{OrganizationId, WebhookId};
use crate::mirror::document::Malformed;
use crate::mirror::paths::projected;
use crate::triggers::address::{AddressNode, KeptFieldTexts, NodeVerification};
use crate::triggers::kept_fields::{self, KeptField};
use bson::{RawBsonRef, RawDocument};
use std::sync::Arc;

/// Bound on a description in a document, in bytes of BSON. In memory it takes at most eight times as
/// much.
const MAX_DESCRIPTION: usize = 16 << 10;

/// Bound on all descriptions of one workflow together.
const MAX_DESCRIPTIONS: usize = 256 << 10;

/// Bound on what is kept beside the descriptions of one workflow: ids, types and kept fields, with
/// [`NODE_OVERHEAD`] for each node.
const MAX_NODES: usize = 1 << 20;

/// What a node takes besides its texts at most, if it is the only one of its address.
const NODE_OVERHEAD: usize = 1536;

/// Bound on the length of a verification's name.
const MAX_NAME: usize = 64;

/// Where the verification of a node is, and what stands for one that is missing.
#[derive(Debug, Clone)]
pub(super) struct VerificationField {
    /// The dotted path within a node.
    pub(super) path: String,
    default: Option<Box<str>>,
    named: Arc<NamedVerifications>,
}

impl VerificationField {
    /// `None` if endpoints are not enabled.
    pub(super) fn new(settings: &EndpointsSettings) -> Option<Self> {
        let EndpointsSettings { verification_field, default_verification, .. } = settings;
        settings.enabled.then(|| Self {
            path: verification_field.clone(),
            default: default_verification.as_deref().map(Box::from),
            named: Arc::clone(&settings.verifications),
        })
    }
}

/// A trigger node whose id and webhook are valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValidNode<'a> {
    pub(super) id: &'a str,
    pub(super) node_type: &'a str,
    pub(super) document: &'a RawDocument,
}

/// Reads the nodes of one workflow.
#[derive(Debug)]
pub(super) struct AddressReader<'a> {
    field: &'a VerificationField,
    organization: &'a OrganizationId,
    /// The texts of the workflow's kept fields.
    workflow_texts: &'a [String],
    node_fields: &'a [KeptField],
    /// What is left of [`MAX_DESCRIPTIONS`].
    descriptions: usize,
    /// What is left of [`MAX_NODES`].
    nodes: usize,
    /// The nodes that have no endpoint though something stands for their verification.
    pub(super) faults: Vec<(String, Malformed)>,
}

impl<'a> AddressReader<'a> {
    pub(super) fn new(
        field: &'a VerificationField,
        organization: &'a OrganizationId,
        workflow_texts: &'a [String],
        node_fields: &'a [KeptField],
    ) -> Self {
        Self {
            field,
            organization,
            workflow_texts,
            node_fields,
            descriptions: MAX_DESCRIPTIONS,
            nodes: MAX_NODES,
            faults: Vec::new(),
        }
    }

    /// The nodes of one webhook at its address; empty if none of them has a verification.
    pub(super) fn read(
        &mut self,
        webhook: &WebhookId,
        nodes: &[ValidNode<'_>],
    ) -> Vec<AddressNode> {
        let read: Vec<NodeVerification> =
            nodes.iter().map(|node| self.verification(node)).collect();
        if read.iter().all(|verification| matches!(verification, NodeVerification::None)) {
            return Vec::new();
        }
        // An address is known by its webhook and by its workflows.
        let bytes = NODE_OVERHEAD + 2 * webhook.as_str().len();
        let nodes = nodes.iter().zip(read);
        nodes.filter_map(|(node, verification)| self.node(node, verification, bytes)).collect()
    }

    /// A node with its kept fields, which takes these bytes and its texts. `None` if the workflow has
    /// too many nodes.
    fn node(
        &mut self,
        node: &ValidNode<'_>,
        verification: NodeVerification,
        bytes: usize,
    ) -> Option<AddressNode> {
        let (fields, verification) = self.with_fields(node, verification);
        let ValidNode { id, node_type, .. } = *node;
        let bytes = bytes + id.len() + node_type.len() + fields.len();
        let Some(left) = self.nodes.checked_sub(bytes) else {
            if !matches!(verification, NodeVerification::None | NodeVerification::Malformed(_)) {
                self.fault(node, self.unfit("is left out: too many nodes have endpoints"));
            }
            return None;
        };
        self.nodes = left;
        Some(AddressNode { id: id.into(), node_type: node_type.into(), fields, verification })
    }

    /// The kept fields of a node. Webhooks of the seed's route use those of the first node only, so
    /// if they do not fit, the node has no endpoint and the document is not malformed.
    fn with_fields(
        &mut self,
        node: &ValidNode<'_>,
        verification: NodeVerification,
    ) -> (KeptFieldTexts, NodeVerification) {
        match kept_fields::texts(node.document, self.node_fields, "node") {
            Ok(texts) => {
                (KeptFieldTexts::new(self.workflow_texts.iter().chain(&texts)), verification)
            }
            Err(malformed) => {
                let verification = match verification {
                    NodeVerification::Described(_) | NodeVerification::Named(_) => {
                        self.fault(node, malformed)
                    }
                    other => other,
                };
                (KeptFieldTexts::default(), verification)
            }
        }
    }

    fn verification(&mut self, node: &ValidNode<'_>) -> NodeVerification {
        match projected(node.document, &self.field.path) {
            Ok(None) => {
                self.field.default.clone().map_or(NodeVerification::None, NodeVerification::Named)
            }
            Ok(Some(RawBsonRef::Document(description))) => self.described(node, description),
            Ok(Some(RawBsonRef::String(name))) => self.named(node, name),
            Ok(Some(_)) => self.fault(node, self.wrong("an object or the name of a verification")),
            Err(malformed) => self.fault(node, malformed),
        }
    }

    fn described(&mut self, node: &ValidNode<'_>, description: &RawDocument) -> NodeVerification {
        let bytes = description.as_bytes().len();
        if bytes > MAX_DESCRIPTION {
            return self.fault(node, self.unfit("is longer than 16 KiB"));
        }
        let Some(left) = self.descriptions.checked_sub(bytes) else {
            return self
                .fault(node, self.unfit("is left out: those of the workflow exceed 256 KiB"));
        };
        self.descriptions = left;
        match Verification::from_document(description) {
            Ok(verification) => NodeVerification::Described(Arc::new(verification)),
            Err(verification::Malformed { member, reason }) => {
                let field = format!("{}.{member}", self.field.path);
                self.fault(node, Malformed::Described { field, reason })
            }
        }
    }

    /// A node that names a verification. One that the settings do not have yet may be there after a
    /// reload, so the name is kept.
    fn named(&mut self, node: &ValidNode<'_>, name: &str) -> NodeVerification {
        if name.is_empty() || name.len() > MAX_NAME {
            return self.fault(node, self.wrong("the name of a verification"));
        }
        if self.field.named.get(name, self.organization).is_none() {
            let expected = "the name of a verification that the settings have for its organization";
            self.fault(node, self.wrong(expected));
        }
        NodeVerification::Named(name.into())
    }

    /// Records what is wrong with a node.
    fn fault(&mut self, node: &ValidNode<'_>, malformed: Malformed) -> NodeVerification {
        let reason = malformed.to_string();
        self.faults.push((node.id.to_owned(), malformed));
        NodeVerification::Malformed(reason.into())
    }

    fn wrong(&self, expected: &'static str) -> Malformed {
        Malformed::wrong(&self.field.path, expected)
    }

    fn unfit(&self, reason: &str) -> Malformed {
        Malformed::Described { field: self.field.path.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;
    use crate::triggers::document::WorkflowRecord;
    use crate::triggers::posting::PostingLayout;
    use crate::triggers::{Address, KeptFields, TriggersSettings};
    use bson::{RawArrayBuf, RawBson, RawDocumentBuf, rawdoc};

    /// A value that must not be shown.
    const SECRET: &str = "hunter2-hunter2-hunter2";

    const ENDPOINTS: &str = "[endpoints]\nenabled = true\n[endpoints.verification.ci]\n\
        scheme = \"github\"\nsecret = \"0123456789abcdef\"\norganizations = [\"o\"]\n\
        [endpoints.verification.other]\nscheme = \"none\"\norganizations = [\"another\"]\n";

    fn settings(text: &str) -> TriggersSettings {
        let mut reader = SettingsReader::new(toml::from_str(text).unwrap(), std::iter::empty());
        let mut settings = TriggersSettings::read(&mut reader.section("triggers"));
        settings.keep_verifications(&EndpointsSettings::read(&mut reader.section("endpoints")));
        assert_eq!(reader.into_faults(), []);
        settings
    }

    /// The nodes of one webhook.
    fn read(settings: &TriggersSettings, nodes: Vec<RawDocumentBuf>) -> WorkflowRecord {
        let fields = &settings.fields;
        let layout = PostingLayout::new(&fields.node_types, fields.kept.len());
        let mut array = RawArrayBuf::new();
        for node in nodes {
            array.push(node);
        }
        let document = rawdoc! { "_id": "w", "organizationId": "o", "nodes": array };
        WorkflowRecord::read(&document, fields, &layout).unwrap()
    }

    fn node(id: &str, verification: impl Into<RawBson>) -> RawDocumentBuf {
        let data = rawdoc! { "webhookId": "wh", "verification": verification.into() };
        rawdoc! { "id": id, "type": "WebhookTrigger", "data": data }
    }

    /// Ids and verifications of the nodes at the only address.
    fn shown(record: &WorkflowRecord) -> Vec<String> {
        let nodes = record.addresses.iter().flat_map(|(_, nodes)| nodes);
        let text = |node: &AddressNode| {
            let verification = match &node.verification {
                NodeVerification::Described(verification) => verification.scheme().to_owned(),
                NodeVerification::Named(name) => format!("named {name}"),
                NodeVerification::Malformed(reason) => format!("malformed: {reason}"),
                NodeVerification::None => "none".to_owned(),
            };
            format!("{} {verification}", node.id)
        };
        nodes.map(text).collect()
    }

    fn github(secret: &str) -> RawDocumentBuf {
        rawdoc! { "scheme": "github", "secret": secret }
    }

    #[test]
    fn what_a_node_says_is_kept() {
        let settings = settings(ENDPOINTS);
        let whole = rawdoc! { "id": "n4", "type": "WebhookTrigger", "data": { "webhookId": "wh" } };
        let nodes = vec![
            node("n1", github(SECRET)),
            node("n2", "ci"),
            node("n3", RawBson::Null),
            whole,
            rawdoc! { "id": "n5", "type": "Other", "data": { "webhookId": "wh", "verification": 5 } },
        ];
        let record = read(&settings, nodes);
        assert_eq!(shown(&record), ["n1 github", "n2 named ci", "n3 none", "n4 none"]);
        assert_eq!(record.skipped_nodes.parts.malformed, 0);
        assert!(!format!("{record:?}").contains(SECRET));
    }

    #[test]
    fn nodes_without_any_verification_have_no_address() {
        let plain = || vec![node("n1", RawBson::Null), node("n2", RawBson::Null)];
        assert!(read(&settings(ENDPOINTS), plain()).addresses.is_empty());
        // For an organization that may not refer to the default, it may be there after a reload.
        for name in ["ci", "other"] {
            let named = ENDPOINTS.replace(
                "enabled = true",
                &format!("enabled = true\ndefault_verification = {name:?}"),
            );
            let record = read(&settings(&named), plain());
            assert_eq!(shown(&record), [format!("n1 named {name}"), format!("n2 named {name}")]);
            assert_eq!(record.skipped_nodes.parts.malformed, 0);
        }
    }

    #[test]
    fn nothing_is_read_unless_endpoints_are_enabled() {
        let record = read(&settings(""), vec![node("n1", github(SECRET)), node("n2", 5)]);
        assert!(record.addresses.is_empty());
        assert_eq!(record.addresses.capacity(), 0);
        assert_eq!(record.skipped_nodes.parts.malformed, 0);
        assert_eq!(record.triggers.len(), 1);
        let projection = |text: &str| settings(text).fields.projection().to_string();
        assert!(!projection("").contains("verification"));
        assert!(projection(ENDPOINTS).contains(r#""verification": "$$node.data.verification""#));
    }

    /// A node never falls back to the default or to another verification.
    #[test]
    fn a_malformed_verification_is_counted_and_named_without_its_values() {
        let with_default =
            ENDPOINTS.replace("[endpoints]", "[endpoints]\ndefault_verification = \"ci\"");
        let settings = settings(&with_default);
        let path = "data.verification";
        let long = "x".repeat(MAX_DESCRIPTION);
        for (value, reason) in [
            (5.into(), format!("{path} is not an object or the name of a verification")),
            (true.into(), format!("{path} is not an object or the name of a verification")),
            (
                RawBson::Array(RawArrayBuf::from_iter([SECRET])),
                format!("{path} is not an object or the name of a verification"),
            ),
            ("".into(), format!("{path} is not the name of a verification")),
            (SECRET.repeat(3).into(), format!("{path} is not the name of a verification")),
            (rawdoc! {}.into(), format!("{path}.scheme is missing")),
            (
                rawdoc! { "scheme": SECRET }.into(),
                format!("{path}.scheme is neither a preset nor a scheme"),
            ),
            (rawdoc! { "scheme": "github" }.into(), format!("{path}.secret is missing")),
            (github("").into(), format!("{path}.secret is empty")),
            (
                rawdoc! { "scheme": "github", "secret": SECRET, "sekret": 1 }.into(),
                format!("{path}.sekret is an unknown member; did you mean secret?"),
            ),
            (github(&long).into(), format!("{path} is longer than 16 KiB")),
        ] {
            let record = read(&settings, vec![node("good", "ci"), node("bad", value)]);
            let expected = [String::from("good named ci"), format!("bad malformed: {reason}")];
            assert_eq!(shown(&record), expected);
            let parts = &record.skipped_nodes.parts;
            assert_eq!((parts.malformed, parts.unconfigured), (1, 0), "{reason}");
            let part = parts.parts.first().unwrap();
            assert_eq!(part.name, "node bad");
            assert_eq!(part.fault.as_ref().unwrap().to_string(), reason);
            assert!(!format!("{record:?}").contains(SECRET), "{reason}");
            // It is a trigger of the seed's route all the same.
            assert_eq!(record.triggers.first().unwrap().1, br#"["good","bad"]"#);
        }
    }

    #[test]
    fn a_verification_within_an_array_is_malformed() {
        let text = format!("[triggers]\nwebhook_id_field = \"hook\"\n{ENDPOINTS}");
        let data = RawArrayBuf::from_iter([rawdoc! { "verification": "ci" }]);
        let node = rawdoc! { "id": "n", "type": "WebhookTrigger", "hook": "wh", "data": data };
        let record = read(&settings(&text), vec![node]);
        let reason = "n malformed: data.verification is not outside of arrays";
        assert_eq!(shown(&record), [reason]);
    }

    /// The name is kept, because a reload may bring the verification.
    #[test]
    fn a_name_that_is_not_for_the_organization_is_counted() {
        for name in ["other", "unknown", SECRET] {
            let record = read(&settings(ENDPOINTS), vec![node("n1", name)]);
            assert_eq!(shown(&record), [format!("n1 named {name}")]);
            let part = record.skipped_nodes.parts.parts.first().unwrap();
            let reason = part.fault.as_ref().unwrap().to_string();
            let expected = "data.verification is not the name of a verification that the settings \
                            have for its organization";
            assert_eq!(reason, expected);
            assert!(!format!("{record:?}").contains(name));
        }
    }

    #[test]
    fn a_workflow_that_is_switched_off_has_no_address_and_is_counted() {
        let fields = &settings(ENDPOINTS).fields;
        let layout = PostingLayout::new(&fields.node_types, 0);
        let nodes = RawArrayBuf::from_iter([node("n1", "ci"), node("n2", 5)]);
        let off = rawdoc! { "_id": "w", "organizationId": "o", "enabled": false, "nodes": nodes };
        let record = WorkflowRecord::read(&off, fields, &layout).unwrap();
        assert!(record.addresses.is_empty());
        assert_eq!(record.skipped_nodes.parts.malformed, 1);
    }

    #[test]
    fn each_node_has_its_own_kept_fields() {
        let mut settings = settings(ENDPOINTS);
        let field = |path: &str| KeptField { path: path.to_owned(), is_in_text: false };
        settings.keep_fields(KeptFields { workflow: vec![field("_id")], node: vec![field("x")] });
        let with = |id: &str, verification: RawBson, x: String| {
            let mut node = node(id, verification);
            node.append("x", x);
            node
        };
        let long = "x".repeat(2000);
        let nodes = vec![
            with("n1", "ci".into(), "one".to_owned()),
            with("n2", "ci".into(), long.clone()),
            with("n3", RawBson::Null, long),
            with("n4", "ci".into(), "four".to_owned()),
        ];
        let record = read(&settings, nodes);
        let malformed = "malformed: {node.x} is not a value of at most 1 KiB as JSON";
        let expected = ["n1 named ci", &format!("n2 {malformed}"), "n3 none", "n4 named ci"];
        assert_eq!(shown(&record), expected);
        assert_eq!(record.skipped_nodes.parts.malformed, 1);
        let (_, nodes) = record.addresses.first().unwrap();
        let texts = |at: usize| {
            let texts = nodes.get(at).unwrap().fields.texts();
            (0..).map_while(|number| texts.get(number)).collect::<Vec<_>>()
        };
        assert_eq!(texts(0), [r#""w""#, r#""one""#]);
        assert_eq!(texts(1), [""; 0]);
        assert_eq!(texts(3), [r#""w""#, r#""four""#]);
    }

    #[test]
    fn what_one_workflow_keeps_is_bounded() {
        let long =
            |number: usize| github(&format!("{number}{}", "x".repeat(MAX_DESCRIPTION - 100)));
        let settings = settings(ENDPOINTS);
        let record = read(&settings, (0..40).map(|n| node(&n.to_string(), long(n))).collect());
        let of_scheme = |record: &WorkflowRecord, scheme: &str| {
            shown(record).iter().filter(|text| text.ends_with(scheme)).count()
        };
        assert_eq!(of_scheme(&record, " github"), 16);
        let reason = "data.verification is left out: those of the workflow exceed 256 KiB";
        assert_eq!(of_scheme(&record, &format!(" malformed: {reason}")), 24);
        assert_eq!(record.skipped_nodes.parts.malformed, 24);

        let nodes = (0..3000).map(|n| node(&n.to_string(), "ci")).collect();
        let record = read(&settings, nodes);
        let kept = of_scheme(&record, " named ci");
        assert!((600..=MAX_NODES / NODE_OVERHEAD).contains(&kept), "{kept}");
        assert_eq!(record.skipped_nodes.parts.malformed, 3000 - kept);
        let part = record.skipped_nodes.parts.parts.first().unwrap();
        let reason = "data.verification is left out: too many nodes have endpoints";
        assert_eq!(part.fault.as_ref().unwrap().to_string(), reason);
        let structs = size_of::<Verification>() + size_of::<AddressNode>() + size_of::<Address>();
        assert!(structs <= NODE_OVERHEAD / 2, "{structs}: the rest is for keys and pointers");
        // Nodes of other webhooks that have none use nothing of the bound.
        let others = (0..3000).map(|n| {
            let data = rawdoc! { "webhookId": format!("other {n}") };
            rawdoc! { "id": n, "type": "WebhookTrigger", "data": data }
        });
        let record = read(&settings, others.chain([node("last", "ci")]).collect());
        assert_eq!(shown(&record), ["last named ci"]);
        assert_eq!(record.skipped_nodes.parts.malformed, 0);
    }
}
