//! The verifications of the settings while the service runs. A reload replaces them.

use crate::endpoints::verification::{NamedVerification, Verification};
use crate::ids::OrganizationId;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The verifications that nodes refer to by name.
#[derive(Debug, Default)]
pub struct NamedVerifications(ArcSwap<BTreeMap<String, Named>>);

#[derive(Debug)]
struct Named {
    /// Those that may refer to it. `None`: all.
    organizations: Option<Vec<OrganizationId>>,
    verification: Arc<Verification>,
}

impl NamedVerifications {
    pub fn new(named: BTreeMap<String, NamedVerification>) -> Self {
        let named = named.into_iter().map(|(name, named)| {
            let NamedVerification { organizations, verification } = named;
            (name, Named { organizations, verification: Arc::new(verification) })
        });
        Self(ArcSwap::from_pointee(named.collect()))
    }

    /// The verification of this name, if the documents of the organization may refer to it.
    pub fn get(&self, name: &str, organization: &OrganizationId) -> Option<Arc<Verification>> {
        let named = self.0.load();
        let Named { organizations, verification } = named.get(name)?;
        let is_for = organizations.as_ref().is_none_or(|those| those.contains(organization));
        is_for.then(|| Arc::clone(verification))
    }

    /// Whether there is a verification of this name, for whichever organizations.
    pub fn contains(&self, name: &str) -> bool {
        self.0.load().contains_key(name)
    }

    /// Puts other verifications in place of these.
    pub fn replace(&self, others: &Self) {
        self.0.store(others.0.load_full());
    }
}
