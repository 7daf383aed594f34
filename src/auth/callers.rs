//! Who has an API key, and which users there are, in memory. Of a key only the SHA-256 digest is kept.

use crate::ids::{OrganizationId, UserId, hex_in_lower_case};
use crate::mirror::Freshness;
use crate::mirror::document::IdText;
use crate::mirror::key::Key;
use crate::mirror::shard::{Posting, Postings};
use crate::mirror::sharded::Sharded;
use crate::mirror::snapshot::Table;
use aws_lc_rs::digest::{SHA256, digest};
use std::sync::Arc;
use std::time::Duration;

/// The SHA-256 digest of an API key.
pub(super) type KeyDigest = [u8; 32];

/// What is known of a user or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Active {
        organization: OrganizationId,
        user: UserId,
    },
    SwitchedOff,
    Nobody,
    /// Nobody was found, and users are not loaded yet or too old to say that there is nobody.
    Unknown,
}

/// All users, for reading.
#[derive(Debug)]
pub struct Callers {
    /// By their ids.
    pub(super) users: Arc<Sharded>,
    /// By the digests of API keys.
    pub(super) owners: Arc<Sharded>,
    freshness: Arc<Freshness>,
}

impl Callers {
    pub fn new(max_staleness: Duration) -> Self {
        Self {
            users: Arc::default(),
            owners: Arc::default(),
            freshness: Freshness::new(max_staleness),
        }
    }

    pub(super) fn user(&self, user: &UserId) -> Known {
        self.known(&self.users, Key::of(&*hex_in_lower_case(user.as_str())))
    }

    /// Whether a user is known and may not call. Cheaper than [`Self::user`], since it takes no name and has no need to
    /// know how current the users are: that nobody is found refuses nobody. Hex digits of the id must be in lower case.
    pub(super) fn is_switched_off(&self, user: &UserId) -> bool {
        self.users.read(Key::of(user.as_str()), |accounts| {
            accounts.and_then(speaker).is_some_and(|account| !account.is_active)
        })
    }

    pub(super) fn api_key(&self, key: &str) -> Known {
        let digest = digest_of(key.as_bytes());
        self.known(&self.owners, Key::of(&digest))
    }

    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// What goes into a snapshot. Of API keys only their digests are there.
    pub fn tables(&self) -> [Table; 2] {
        [(USERS, &self.users), (OWNERS, &self.owners)].map(|(name, map)| Table {
            name,
            map: Arc::clone(map),
            is_readable: |posting| Account::read(posting).is_some(),
        })
    }

    fn known(&self, map: &Sharded, key: Key<'_>) -> Known {
        let found = map.look(key, &self.freshness, |accounts| accounts.and_then(known));
        found.map_or(Known::Unknown, |found| found.unwrap_or(Known::Nobody))
    }
}

/// The names of the two maps in a snapshot.
pub(super) const USERS: &str = "users";
pub(super) const OWNERS: &str = "owners";

/// Who is known under a key.
pub(super) fn known(accounts: Postings<'_>) -> Option<Known> {
    let Account { user, organization, is_active } = speaker(accounts)?;
    if !is_active {
        return Some(Known::SwitchedOff);
    }
    let organization = OrganizationId::new(organization).ok()?;
    Some(Known::Active { organization, user: UserId::new(user.as_str()).ok()? })
}

/// Who speaks for a key: of several users of one organization an active one, and of several of those the first by
/// name, so that it is always the same. `None` if they are of several organizations.
fn speaker(accounts: Postings<'_>) -> Option<Account<'_>> {
    let mut best: Option<Account<'_>> = None;
    for posting in accounts {
        let account = Account::read(posting)?;
        best = match best {
            Some(other) if other.organization != account.organization => return None,
            Some(other) if other.rank() <= account.rank() => Some(other),
            _ => Some(account),
        };
    }
    best
}

/// What is kept of a user under its id and under each of its keys.
#[derive(Debug, Clone)]
pub(super) struct Account<'a> {
    user: IdText<'a>,
    organization: &'a str,
    is_active: bool,
}

impl<'a> Account<'a> {
    pub(super) fn write(organization: &OrganizationId, is_active: bool) -> Vec<u8> {
        [&[u8::from(is_active)], organization.as_str().as_bytes()].concat()
    }

    fn read(Posting { document, data }: Posting<'a>) -> Option<Self> {
        let (is_active, organization) = data.split_first()?;
        Some(Self {
            user: IdText::of(document)?,
            organization: std::str::from_utf8(organization).ok()?,
            is_active: *is_active == 1,
        })
    }

    fn rank(&self) -> (bool, &str) {
        (!self.is_active, self.user.as_str())
    }
}

pub(super) fn digest_of(key: &[u8]) -> KeyDigest {
    let digest = digest(&SHA256, key);
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}
