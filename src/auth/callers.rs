//! The users and API keys in memory. Only the digest of a key is kept.

use crate::auth::key_encoding::ApiKeyEncoding;
use crate::ids::{OrganizationId, UserId, normalize_id};
use crate::mirror::Freshness;
use crate::mirror::document::IdString;
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::{Posting, Postings};
use crate::mirror::index::sharded::{ShardLayout, ShardedIndex};
use crate::mirror::snapshot::SavedIndex;
use std::sync::Arc;
use std::time::Duration;

/// The result of looking up a user or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserLookup {
    Active {
        organization: OrganizationId,
        user: UserId,
    },
    Disabled,
    NotFound,
    /// No user was found, and the users are not loaded yet or are stale, so the miss proves
    /// nothing.
    StaleIndex,
}

/// All users, for lookups.
#[derive(Debug)]
pub struct Callers {
    /// Users by id.
    pub(super) users: Arc<ShardedIndex>,
    /// Users by the digest of their API keys.
    pub(super) owners: Arc<ShardedIndex>,
    key_encoding: ApiKeyEncoding,
    freshness: Arc<Freshness>,
}

impl Callers {
    pub fn new(max_staleness: Duration) -> Self {
        Self::with_layout(max_staleness, ShardLayout::default())
    }

    pub(super) fn with_layout(max_staleness: Duration, layout: ShardLayout) -> Self {
        Self {
            users: Arc::new(ShardedIndex::new(layout)),
            owners: Arc::new(ShardedIndex::new(layout)),
            key_encoding: ApiKeyEncoding::default(),
            freshness: Freshness::new(max_staleness),
        }
    }

    /// Looks keys up that are stored in this form instead of plain.
    #[must_use]
    pub(super) fn with_key_encoding(self, key_encoding: ApiKeyEncoding) -> Self {
        Self { key_encoding, ..self }
    }

    /// Looks up the user of a token. Of users with equal ids, those of the claimed organization
    /// are meant, if there are any.
    pub(super) fn user(&self, user: &UserId, claimed: Option<&OrganizationId>) -> UserLookup {
        let key = normalize_id(user.as_str());
        self.lookup(&self.users, IndexKey::new(&*key), |postings| match claimed {
            Some(claimed) => user_of_claim(postings, claimed),
            None => user_of_postings(postings),
        })
    }

    /// Whether the user of a token is known and switched off. This is cheaper than [`Self::user`],
    /// because it copies no id and does not check freshness: a miss rejects no one. Hex digits of
    /// the id must be in lower case.
    pub(super) fn is_switched_off(&self, user: &UserId, claimed: &OrganizationId) -> bool {
        self.users.read(IndexKey::new(user.as_str()), |postings| {
            postings.is_some_and(|postings| are_switched_off(postings, claimed))
        })
    }

    pub(super) fn api_key(&self, key: &str) -> UserLookup {
        let digest = self.key_encoding.digest_of_sent(key);
        self.lookup(&self.owners, IndexKey::new(&digest), |postings| user_of_postings(postings))
    }

    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// The indexes of a snapshot. They have only the digests of API keys.
    pub fn saved_indexes(&self) -> [SavedIndex; 2] {
        [(USERS, &self.users), (OWNERS, &self.owners)].map(|(name, map)| {
            SavedIndex::new(name, map, |posting| StoredUser::read(posting).is_some())
        })
    }

    fn lookup(
        &self,
        map: &ShardedIndex,
        key: IndexKey<'_>,
        read: impl FnOnce(Postings<'_>) -> Option<UserLookup>,
    ) -> UserLookup {
        let found = map.lookup(key, &self.freshness, |postings| postings.and_then(read));
        found.map_or(UserLookup::StaleIndex, |found| found.unwrap_or(UserLookup::NotFound))
    }
}

/// The names of the two maps in a snapshot.
pub(super) const USERS: &str = "users";
pub(super) const OWNERS: &str = "owners";

/// Whether users with equal ids are switched off: all those of the claimed organization, or all of
/// them if none is of it.
fn are_switched_off(postings: Postings<'_>, claimed: &OrganizationId) -> bool {
    let (mut any_own_active, mut any_other_active) = (None, None);
    for user in postings.filter_map(StoredUser::read) {
        let is_own = user.is_of_organization(claimed.as_str());
        let any_active = if is_own { &mut any_own_active } else { &mut any_other_active };
        *any_active = Some(any_active.unwrap_or(false) || user.is_active);
    }
    any_own_active.or(any_other_active) == Some(false)
}

/// Returns the user that a posting list represents for a token that claims an organization.
fn user_of_claim(postings: Postings<'_>, claimed: &OrganizationId) -> Option<UserLookup> {
    if are_switched_off(postings.clone(), claimed) {
        return Some(UserLookup::Disabled);
    }
    let is_own = |posting: &Posting<'_>| {
        StoredUser::read(*posting).is_some_and(|user| user.is_of_organization(claimed.as_str()))
    };
    let own = user_of_postings(postings.clone().filter(is_own));
    own.or_else(|| user_of_postings(postings))
}

/// Returns the user that postings represent, active or disabled; `None` if there are none, if their
/// users have several organizations, or if a posting cannot be read.
pub(super) fn user_of_postings<'a>(
    postings: impl Iterator<Item = Posting<'a>>,
) -> Option<UserLookup> {
    let StoredUser { user, organization, is_active } = representative(postings)?;
    if !is_active {
        return Some(UserLookup::Disabled);
    }
    let organization = OrganizationId::new(organization).ok()?;
    Some(UserLookup::Active { organization, user: UserId::new(user.as_str()).ok()? })
}

/// Chooses one of several users of one organization: an active one, and of those the first by id,
/// so that the choice is stable. `None` if the users have several organizations.
fn representative<'a>(postings: impl Iterator<Item = Posting<'a>>) -> Option<StoredUser<'a>> {
    let mut best: Option<StoredUser<'a>> = None;
    for posting in postings {
        let candidate = StoredUser::read(posting)?;
        best = match best {
            Some(other) if !other.is_of_organization(candidate.organization) => return None,
            Some(other) if other.rank() <= candidate.rank() => Some(other),
            _ => Some(candidate),
        };
    }
    best
}

/// The posting of a user under its id and under each of its keys.
#[derive(Debug, Clone)]
pub(super) struct StoredUser<'a> {
    user: IdString<'a>,
    organization: &'a str,
    is_active: bool,
}

impl<'a> StoredUser<'a> {
    pub(super) fn write(organization: &OrganizationId, is_active: bool) -> Vec<u8> {
        [&[u8::from(is_active)], organization.as_str().as_bytes()].concat()
    }

    fn read(Posting { document, data }: Posting<'a>) -> Option<Self> {
        let (is_active, organization) = data.split_first()?;
        Some(Self {
            user: IdString::from_key(document)?,
            organization: std::str::from_utf8(organization).ok()?,
            is_active: *is_active == 1,
        })
    }

    fn is_of_organization(&self, other: &str) -> bool {
        self.organization == other || normalize_id(self.organization) == normalize_id(other)
    }

    /// The least rank is chosen.
    fn rank(&self) -> (bool, &str) {
        (!self.is_active, self.user.as_str())
    }
}
