//! An address: the trigger nodes of a webhook, each with its verification.

use crate::endpoints::verification::{Digest, Refusal, Verification};
use crate::mirror::document::DocumentKey;
use crate::mirror::index::varint::push_bytes;
use crate::triggers::posting::KeptTexts;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Bound on the verifications whose last refusal is kept for one address.
const MAX_REFUSALS: usize = 16;

/// The workflows that a webhook starts and of which at least one node has a verification. A node
/// whose verification is malformed counts as one that has one.
#[derive(Debug, Clone, Default)]
pub struct Address {
    /// One for each workflow, in the order of their ids.
    pub triggers: Vec<Arc<AddressTrigger>>,
    /// Kept when triggers change, until all workflows are loaded again.
    pub last_refusals: Arc<LastRefusals>,
}

/// A workflow that is reached at an address.
#[derive(Debug, Clone)]
pub struct AddressTrigger {
    /// The id of the workflow.
    pub workflow: Box<str>,
    /// Its trigger nodes of this webhook, in the order of the document.
    pub nodes: Vec<AddressNode>,
    pub(super) document: DocumentKey,
}

/// A trigger node at an address.
#[derive(Debug, Clone)]
pub struct AddressNode {
    pub id: Box<str>,
    pub node_type: Box<str>,
    /// The kept fields of the workflow and of this node.
    pub fields: KeptFieldTexts,
    pub verification: NodeVerification,
}

/// What a trigger node says about its verification.
#[derive(Clone)]
pub enum NodeVerification {
    /// The description in the node. Equal ones share it.
    Described(Arc<Verification>),
    /// The name of a verification of the settings, by the node or by `default_verification`. There
    /// may be none of this name for the organization. Then the name must not be shown: it may be a
    /// secret at the wrong place.
    Named(Box<str>),
    /// Why the node has no endpoint. The text contains no value of the document.
    Malformed(Box<str>),
    /// The node has none and there is no default, so it has no endpoint.
    None,
}

impl fmt::Debug for NodeVerification {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Described(verification) => verification.fmt(formatter),
            Self::Named(_) => formatter.write_str("Named"),
            Self::Malformed(reason) => write!(formatter, "Malformed({reason})"),
            Self::None => formatter.write_str("None"),
        }
    }
}

/// The JSON texts of kept fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptFieldTexts(Box<[u8]>);

impl KeptFieldTexts {
    pub(super) fn new<'a>(texts: impl Iterator<Item = &'a String>) -> Self {
        let mut bytes = Vec::new();
        texts.for_each(|text| push_bytes(&mut bytes, text.as_bytes()));
        Self(bytes.into())
    }

    /// The texts, as a match of the seed's route has them.
    pub fn texts(&self) -> KeptTexts<'_> {
        KeptTexts::from_bytes(&self.0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The last refusal of each verification of an address, for previews.
#[derive(Debug, Default)]
pub struct LastRefusals(Mutex<Vec<(Digest, LastRefusal)>>);

/// When and why a verification last refused a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRefusal {
    pub at: SystemTime,
    pub refusal: Refusal,
}

impl LastRefusals {
    /// Records the last refusal of the verification with this identity. Of more verifications than
    /// an address can have, the oldest refusal is forgotten.
    pub fn set(&self, verification: Digest, last: LastRefusal) {
        let mut refusals = self.0.lock();
        if let Some(at) = refusals.iter().position(|(known, _)| *known == verification) {
            refusals.remove(at);
        } else if refusals.len() >= MAX_REFUSALS {
            refusals.remove(0);
        }
        refusals.push((verification, last));
    }

    /// The last refusal of the verification with this identity.
    pub fn get(&self, verification: Digest) -> Option<LastRefusal> {
        let refusals = self.0.lock();
        let found = refusals.iter().find(|(known, _)| *known == verification);
        found.map(|(_, last)| last.clone())
    }
}
