//! Reading the verifications of trigger nodes.

use crate::endpoints::verification::{self, Verification};
use crate::endpoints::{EndpointsSettings, NamedVerifications};
use crate::ids::OrganizationId;
use crate::mirror::document::Malformed;
use crate::mirror::paths::projected;
use crate::triggers::address::{AddressNode, KeptFieldTexts, NodeVerification};
use crate::triggers::kept_fields::{self, KeptField};
use bson::{RawBsonRef, RawDocument};
use std::sync::Arc;

/// Bound on a description in a document, in bytes of BSON. In memory it takes at most eight times as
/// much.
pub(super) const MAX_DESCRIPTION: usize = 16 << 10;

/// Bound on all descriptions of one workflow together.
pub(super) const MAX_DESCRIPTIONS: usize = 256 << 10;

/// Bound on what is kept beside the descriptions of one workflow: ids, types and kept fields, with
/// [`NODE_OVERHEAD`] for each node.
pub(super) const MAX_NODES: usize = 1 << 20;

/// About what a node takes besides its texts.
const NODE_OVERHEAD: usize = 512;

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
    pub(super) fn read(&mut self, nodes: &[ValidNode<'_>]) -> Vec<AddressNode> {
        let read: Vec<NodeVerification> =
            nodes.iter().map(|node| self.verification(node)).collect();
        if read.iter().all(|verification| matches!(verification, NodeVerification::None)) {
            return Vec::new();
        }
        let nodes = nodes.iter().zip(read);
        nodes.filter_map(|(node, verification)| self.node(node, verification)).collect()
    }

    /// A node with its kept fields; `None` if the workflow has too many nodes.
    fn node(
        &mut self,
        node: &ValidNode<'_>,
        verification: NodeVerification,
    ) -> Option<AddressNode> {
        let (fields, verification) = self.with_fields(node, verification);
        let ValidNode { id, node_type, .. } = *node;
        let bytes = NODE_OVERHEAD + id.len() + node_type.len() + fields.len();
        match self.nodes.checked_sub(bytes) {
            Some(left) => self.nodes = left,
            None => {
                if !matches!(verification, NodeVerification::None | NodeVerification::Malformed(_))
                {
                    self.fault(node, self.unfit("is left out: too many nodes have endpoints"));
                }
                return None;
            }
        }
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
