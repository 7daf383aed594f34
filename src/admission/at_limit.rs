//! The organizations that have lately been at a limit, for the status page. They are found by
//! looking at all accounts once a second, so that requests do nothing for it.

use crate::ids::OrganizationId;
use crate::metrics::Limit;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Maximum organizations that are remembered.
const MAX_ORGANIZATIONS: usize = 100;

/// How long an organization is remembered after it was last at its limit, in seconds.
const KEPT_SECONDS: usize = 60;

/// The organizations that were at a limit within the last minute.
#[derive(Debug, Default)]
pub(super) struct AtLimit(Mutex<HashMap<OrganizationId, Entry>>);

#[derive(Debug)]
struct Entry {
    limit: Limit,
    seconds: usize,
    last: usize,
}

/// An organization that was at a limit within the last minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationAtLimit {
    pub organization: OrganizationId,
    /// The limit that it was at last.
    pub limit: Limit,
    /// The number of seconds in which it was at a limit when the accounts were looked at.
    pub seconds: usize,
}

impl AtLimit {
    /// Records the organizations that are at a limit in this second.
    pub(super) fn record(
        &self,
        second: usize,
        organizations: impl IntoIterator<Item = (OrganizationId, Limit)>,
    ) {
        let mut entries = self.0.lock();
        for (organization, limit) in organizations {
            if let Some(entry) = entries.get_mut(&organization) {
                *entry = Entry { limit, seconds: entry.seconds + 1, last: second };
            } else if entries.len() < MAX_ORGANIZATIONS {
                entries.insert(organization, Entry { limit, seconds: 1, last: second });
            }
        }
        entries.retain(|_, entry| second.saturating_sub(entry.last) < KEPT_SECONDS);
    }

    /// At most `max` organizations: those that were at a limit for longest, and by name.
    pub(super) fn list(&self, max: usize) -> Vec<OrganizationAtLimit> {
        let entries = self.0.lock();
        let mut list: Vec<OrganizationAtLimit> = entries
            .iter()
            .map(|(organization, Entry { limit, seconds, .. })| OrganizationAtLimit {
                organization: organization.clone(),
                limit: *limit,
                seconds: *seconds,
            })
            .collect();
        drop(entries);
        list.sort_by(|a, b| {
            let by_name = || a.organization.as_str().cmp(b.organization.as_str());
            b.seconds.cmp(&a.seconds).then_with(by_name)
        });
        list.truncate(max);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> OrganizationId {
        OrganizationId::new(&format!("org_{number}")).unwrap()
    }

    #[test]
    fn an_organization_is_listed_for_a_minute() {
        let at_limit = AtLimit::default();
        at_limit.record(1, [(id(1), Limit::Rate)]);
        at_limit.record(2, [(id(1), Limit::Jobs), (id(2), Limit::InFlight)]);
        let first = OrganizationAtLimit { organization: id(1), limit: Limit::Jobs, seconds: 2 };
        assert_eq!(at_limit.list(1), [first]);
        assert_eq!(at_limit.list(9).len(), 2);
        at_limit.record(2 + KEPT_SECONDS, []);
        assert_eq!(at_limit.list(9), []);
    }

    #[test]
    fn the_list_is_bounded() {
        let at_limit = AtLimit::default();
        at_limit.record(1, (0..2 * MAX_ORGANIZATIONS).map(|number| (id(number), Limit::Rate)));
        assert_eq!(at_limit.list(usize::MAX).len(), MAX_ORGANIZATIONS);
    }
}
