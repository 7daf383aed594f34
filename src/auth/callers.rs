//! Users and their API keys in memory. Of a key only the SHA-256 digest is kept.

use crate::ids::{OrganizationId, UserId};
use crate::metrics::{Collection, Metrics};
use crate::mirror::document::{DocumentKey, Malformed, field, identifier, is_active};
use crate::mirror::{Freshness, View};
use crate::settings::Section;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use bson::{Document, RawBsonRef, RawDocument, doc};
use std::collections::HashMap;
use std::sync::Arc;

/// The SHA-256 digest of an API key.
type KeyDigest = [u8; 32];

/// The section `[users]`.
#[derive(Debug, Clone)]
pub struct UsersSettings {
    pub collection: String,
    organization_field: String,
    api_key_field: String,
    api_key_encoding: Encoding,
    /// Empty: every user counts as switched on.
    active_field: String,
}

/// How the database stores API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Plain,
    /// The hex digits of the SHA-256 digest.
    Sha256,
}

impl UsersSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            collection: section.name("collection", "users"),
            organization_field: section.name("organization_field", "organizationId"),
            api_key_field: section.name("api_key_field", "apiKey"),
            api_key_encoding: section.value("api_key_encoding", Encoding::Plain),
            active_field: section.value("active_field", "enabled".to_owned()),
        }
    }
}

/// What is known of a user or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Active {
        organization: OrganizationId,
        user: UserId,
    },
    SwitchedOff,
    Nobody,
    /// Nobody can say yet.
    NotLoaded,
}

/// All users, for reading.
#[derive(Debug, Default)]
pub struct Callers {
    state: ArcSwap<State>,
    freshness: Arc<Freshness>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<UserId, Account>,
    keys: HashMap<KeyDigest, Owner>,
    /// How many of the keys belong to nobody for being several organizations'.
    conflicts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    organization: OrganizationId,
    is_active: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Owner {
    User {
        user: UserId,
        account: Account,
    },
    /// Users of several organizations have this key; it is refused.
    Conflict,
}

impl Callers {
    pub(super) fn user(&self, user: &UserId) -> Known {
        let state = self.state.load();
        match state.users.get(user) {
            Some(account) => known(user, account),
            None => self.unknown(),
        }
    }

    pub(super) fn api_key(&self, key: &str) -> Known {
        let state = self.state.load();
        match state.keys.get(&digest_of(key.as_bytes())) {
            Some(Owner::User { user, account }) => known(user, account),
            Some(Owner::Conflict) => Known::Nobody,
            None => self.unknown(),
        }
    }

    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    fn unknown(&self) -> Known {
        if self.freshness.is_loaded() { Known::Nobody } else { Known::NotLoaded }
    }
}

fn known(user: &UserId, account: &Account) -> Known {
    if !account.is_active {
        return Known::SwitchedOff;
    }
    Known::Active { organization: account.organization.clone(), user: user.clone() }
}

/// Makes callers out of the documents of users.
#[derive(Debug)]
pub struct UsersView {
    settings: UsersSettings,
    callers: Arc<Callers>,
    metrics: Arc<Metrics>,
}

impl UsersView {
    pub fn new(settings: UsersSettings, callers: Arc<Callers>, metrics: Arc<Metrics>) -> Self {
        Self { settings, callers, metrics }
    }

    fn digests(&self, document: &RawDocument) -> Result<Vec<KeyDigest>, Malformed> {
        let path = &self.settings.api_key_field;
        let malformed = || Malformed::wrong(path, "a text or an array of texts");
        match field(document, path)? {
            None => Ok(Vec::new()),
            Some(RawBsonRef::String(key)) => {
                self.digest(key).map(|digest| digest.into_iter().collect())
            }
            Some(RawBsonRef::Array(keys)) => {
                let mut digests = Vec::new();
                for key in keys {
                    let Ok(RawBsonRef::String(key)) = key else { return Err(malformed()) };
                    digests.extend(self.digest(key)?);
                }
                Ok(digests)
            }
            Some(_) => Err(malformed()),
        }
    }

    /// The digest of a stored key; an empty one is no key.
    fn digest(&self, stored: &str) -> Result<Option<KeyDigest>, Malformed> {
        match self.settings.api_key_encoding {
            _ if stored.is_empty() => Ok(None),
            Encoding::Plain => Ok(Some(digest_of(stored.as_bytes()))),
            Encoding::Sha256 => from_hex(stored).map(Some).ok_or_else(|| {
                Malformed::wrong(&self.settings.api_key_field, "a SHA-256 digest in 64 hex digits")
            }),
        }
    }
}

/// What is kept of a user.
#[derive(Debug)]
pub struct UserRecord {
    user: UserId,
    account: Account,
    keys: Vec<KeyDigest>,
}

impl View for UsersView {
    const COLLECTION: Collection = Collection::Users;

    type Record = UserRecord;

    fn projection(&self) -> Document {
        let settings = &self.settings;
        let mut projection =
            doc! { "_id": 1, &settings.organization_field: 1, &settings.api_key_field: 1 };
        if !settings.active_field.is_empty() {
            projection.insert(&settings.active_field, 1);
        }
        projection
    }

    fn read(&self, document: &RawDocument) -> Result<UserRecord, Malformed> {
        Ok(UserRecord {
            user: identifier(document, "_id", UserId::new)?,
            account: Account {
                organization: identifier(
                    document,
                    &self.settings.organization_field,
                    OrganizationId::new,
                )?,
                is_active: is_active(document, &self.settings.active_field)?,
            },
            keys: self.digests(document)?,
        })
    }

    fn publish(&self, records: &HashMap<DocumentKey, UserRecord>) {
        let mut state = State::default();
        let mut conflicts = 0_u32;
        for record in records.values() {
            state.users.insert(record.user.clone(), record.account.clone());
            for key in &record.keys {
                conflicts += u32::from(own(&mut state.keys, *key, record));
            }
        }
        state.conflicts = conflicts;
        if conflicts > self.callers.state.load().conflicts {
            tracing::warn!(
                conflicts,
                "API keys belong to users of several organizations and are refused"
            );
        }
        self.metrics.index_conflicting_api_keys.set(conflicts);
        self.metrics.index_api_keys.set(state.keys.len() as f64);
        self.callers.state.store(Arc::new(state));
    }
}

/// Enters the owner of a key, and tells whether that has made a conflict.
fn own(keys: &mut HashMap<KeyDigest, Owner>, key: KeyDigest, record: &UserRecord) -> bool {
    let owner = Owner::User { user: record.user.clone(), account: record.account.clone() };
    match keys.get(&key) {
        Some(Owner::Conflict) => false,
        Some(Owner::User { account, .. })
            if account.organization != record.account.organization =>
        {
            keys.insert(key, Owner::Conflict);
            true
        }
        // Of several users of one organization, an active one speaks for the key; of several
        // active ones the first by name, so that it is always the same.
        Some(Owner::User { user, account })
            if (!account.is_active, user) <= (!record.account.is_active, &record.user) =>
        {
            false
        }
        _ => {
            keys.insert(key, owner);
            false
        }
    }
}

fn digest_of(key: &[u8]) -> KeyDigest {
    let digest = digest(&SHA256, key);
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

fn from_hex(text: &str) -> Option<KeyDigest> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        let digits = text.get(index * 2..index * 2 + 2)?;
        // from_str_radix takes a sign, which is no digit.
        if digits.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(user: &str, organization: &str, is_active: bool) -> UserRecord {
        let organization = OrganizationId::new(organization).unwrap();
        UserRecord {
            user: UserId::new(user).unwrap(),
            account: Account { organization, is_active },
            keys: vec![],
        }
    }

    #[test]
    fn a_key_of_several_organizations_belongs_to_nobody() {
        let mut keys = HashMap::new();
        assert!(!own(&mut keys, [0; 32], &record("b", "one", true)));
        assert!(!own(&mut keys, [0; 32], &record("a", "one", false)));
        assert!(
            matches!(keys.get(&[0; 32]), Some(Owner::User { user, .. }) if user.as_str() == "b")
        );
        assert!(own(&mut keys, [0; 32], &record("c", "two", true)));
        assert!(!own(&mut keys, [0; 32], &record("b", "one", true)));
        assert_eq!(keys.get(&[0; 32]), Some(&Owner::Conflict));
    }

    #[test]
    fn a_digest_is_read_from_hex() {
        let hex = "2C26B46B68FFC68FF99B453C1D30413413422D706483BFA0F98A5E886266E7AE";
        assert_eq!(from_hex(hex), Some(digest_of(b"foo")));
        assert_eq!(from_hex("2c"), None);
        assert_eq!(from_hex(&"+1".repeat(32)), None);
        assert_eq!(from_hex(&"é".repeat(32)), None);
    }
}
