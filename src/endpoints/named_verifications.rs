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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::EndpointsSettings;
    use crate::settings::SettingsReader;

    fn named(text: &str) -> Arc<NamedVerifications> {
        let mut settings = SettingsReader::new(toml::from_str(text).unwrap(), std::iter::empty());
        let named = EndpointsSettings::read(&mut settings.section("endpoints")).verifications;
        assert_eq!(settings.into_faults(), []);
        named
    }

    #[test]
    fn a_name_is_for_its_organizations_and_can_be_replaced() {
        let text = "[endpoints.verification.ci]\nscheme = \"github\"\nsecret = \"0123456789abcdef\"\n\
                    organizations = [\"64d2f9c5e8a1d4e001a0b1c3\"]\n";
        let running = named(text);
        let [one, two] =
            ["64D2F9C5E8A1D4E001A0B1C3", "other"].map(|id| OrganizationId::new(id).unwrap());
        let first = running.get("ci", &one).unwrap();
        assert!(running.get("ci", &two).is_none() && running.get("cd", &one).is_none());
        assert!(running.contains("ci") && !running.contains("cd"));
        running.replace(&named(&text.replace("0123456789", "9876543210").replace(".ci]", ".cd]")));
        assert!(running.get("ci", &one).is_none());
        assert_ne!(running.get("cd", &one).unwrap().identity(), first.identity());
        assert!(!format!("{running:?}").contains("9876543210"));
    }
}
