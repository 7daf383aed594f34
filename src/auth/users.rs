//! Reading users from their documents, and filing them by id and by API key.

use crate::auth::callers::{
    Callers, KeyDigest, OWNERS, StoredUser, USERS, digest_of, user_of_postings,
};
use crate::ids::{OrganizationId, UserId, normalize_id};
use crate::metrics::{Collection, Metrics};
use crate::mirror::MirroredCollection;
use crate::mirror::document::{DocumentKey, IdString, Malformed, field, identifier, is_active};
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::index::writer::{Entry, Writer};
use crate::mirror::skipped_parts::SkippedParts;
use crate::process::log_throttle::LogThrottle;
use crate::settings::Section;
use bson::{Document, RawBsonRef, RawDocument, doc};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The section `[users]`.
#[derive(Debug, Clone)]
pub struct UsersSettings {
    pub collection: String,
    organization_field: String,
    api_key_field: String,
    api_key_encoding: ApiKeyEncoding,
    /// If this is empty, every user is switched on.
    active_field: String,
}

/// The form in which the database stores API keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum ApiKeyEncoding {
    Plain,
    /// The hex digits of the SHA-256 digest.
    Sha256,
}

impl UsersSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            collection: section.name("collection", "users"),
            organization_field: section.name("organization_field", "organizationId"),
            api_key_field: section.name("api_key_field", "apiKey"),
            api_key_encoding: section.value("api_key_encoding", ApiKeyEncoding::Plain),
            active_field: section.value("active_field", "enabled".to_owned()),
        }
    }
}

impl UsersSettings {
    /// The dotted path of a user's API keys.
    pub fn api_key_field(&self) -> &str {
        &self.api_key_field
    }

    /// The settings that determine which records the documents become. They identify a snapshot.
    pub fn source_names(&self) -> [&str; 5] {
        let encoding = match self.api_key_encoding {
            ApiKeyEncoding::Plain => "plain",
            ApiKeyEncoding::Sha256 => "sha256",
        };
        let Self { collection, organization_field, api_key_field, active_field, .. } = self;
        [collection, organization_field, api_key_field, active_field, encoding]
    }
}

/// The least time between two log lines about new conflicts. Each change may add one.
const CONFLICT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The number of users with conflicting keys that `hookgate check` names.
const MAX_NAMED: usize = 10;

/// Files users by their ids, and by the digests of their API keys.
#[derive(Debug)]
pub struct UserCollection {
    settings: UsersSettings,
    callers: Arc<Callers>,
    /// Keys that users of several organizations have. Such a key is refused.
    conflicts: HashSet<KeyDigest>,
    /// Keys that may have come into conflict by the last load or set of changes.
    suspects: Vec<KeyDigest>,
    log_throttle: LogThrottle,
    metrics: Arc<Metrics>,
}

impl UserCollection {
    pub fn new(settings: UsersSettings, callers: &Arc<Callers>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            callers: Arc::clone(callers),
            conflicts: HashSet::new(),
            suspects: Vec::new(),
            log_throttle: LogThrottle::new(1, CONFLICT_LOG_INTERVAL),
            metrics,
        }
    }

    /// Checks the suspects and the earlier conflicts.
    fn find_conflicts(&mut self) {
        let before = self.conflicts.len();
        self.conflicts.extend(std::mem::take(&mut self.suspects));
        let owners = &self.callers.owners;
        self.conflicts.retain(|key| {
            owners.read(IndexKey::new(key), |accounts| {
                accounts.is_some_and(|accounts| user_of_postings(accounts).is_none())
            })
        });
        if self.conflicts.len() > before && self.log_throttle.allows() {
            tracing::warn!(
                conflicts = self.conflicts.len(),
                "API keys belong to users of several organizations and are refused"
            );
        }
        self.metrics.index_conflicting_api_keys.set(self.conflicts.len() as f64);
    }

    /// The digests of a user's keys, and the malformed ones, which are skipped alone.
    fn digests(&self, document: &RawDocument) -> (Vec<KeyDigest>, SkippedParts) {
        let mut keys = (Vec::new(), SkippedParts::default());
        match field(document, &self.settings.api_key_field) {
            Ok(None) => {}
            Ok(Some(RawBsonRef::Array(array))) => {
                for (index, key) in array.into_iter().enumerate() {
                    let key = key.map_err(|_| Malformed::Unreadable);
                    self.add_key(&mut keys, index, key);
                }
            }
            Ok(Some(key)) => self.add_key(&mut keys, 0, Ok(key)),
            Err(malformed) => self.add_key(&mut keys, 0, Err(malformed)),
        }
        keys
    }

    /// Adds the key at this index. A malformed key is never logged, because it may be a valid key
    /// in another encoding.
    fn add_key(
        &self,
        (digests, skipped): &mut (Vec<KeyDigest>, SkippedParts),
        index: usize,
        key: Result<RawBsonRef<'_>, Malformed>,
    ) {
        let digest = key.and_then(|key| match key {
            RawBsonRef::Null => Ok(None),
            RawBsonRef::String(stored) => self.digest(stored),
            _ => Err(Malformed::wrong(&self.settings.api_key_field, "a string")),
        });
        match digest {
            Ok(digest) => digests.extend(digest),
            Err(fault) => {
                skipped.add(|| format!("API key no. {}", index + 1), Some(fault));
            }
        }
    }

    /// The digest of a stored key; `None` if it is empty.
    fn digest(&self, stored: &str) -> Result<Option<KeyDigest>, Malformed> {
        match self.settings.api_key_encoding {
            _ if stored.is_empty() => Ok(None),
            ApiKeyEncoding::Plain => Ok(Some(digest_of(stored.as_bytes()))),
            ApiKeyEncoding::Sha256 => from_hex(stored).map(Some).ok_or_else(|| {
                Malformed::wrong(&self.settings.api_key_field, "a SHA-256 digest in 64 hex digits")
            }),
        }
    }
}

/// What is kept of a user.
#[derive(Debug)]
pub struct UserRecord {
    organization: OrganizationId,
    is_active: bool,
    keys: Vec<KeyDigest>,
    skipped: SkippedParts,
}

impl MirroredCollection for UserCollection {
    const COLLECTION: Collection = Collection::Users;
    const INDEX_NAMES: [&'static str; 2] = [USERS, OWNERS];

    type Record = UserRecord;
    type Extras = ();

    fn indexes(&self) -> [Arc<ShardedIndex>; 2] {
        [&self.callers.users, &self.callers.owners].map(Arc::clone)
    }

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
        identifier(document, "_id", UserId::new)?;
        let (mut keys, skipped) = self.digests(document);
        keys.sort_unstable();
        keys.dedup();
        Ok(UserRecord {
            organization: identifier(
                document,
                &self.settings.organization_field,
                OrganizationId::new,
            )?,
            is_active: is_active(document, &self.settings.active_field)?,
            keys,
            skipped,
        })
    }

    fn skipped(record: &UserRecord) -> SkippedParts {
        record.skipped.clone()
    }

    fn entries(document: &DocumentKey, record: UserRecord) -> [Vec<Entry>; 2] {
        let data = StoredUser::write(&record.organization, record.is_active);
        let entry = |key: IndexKey<'_>| Entry { key: key.to_bytes(), data: data.clone() };
        let id = IdString::from_key(document.as_bytes());
        let by_id = id.map(|id| entry(IndexKey::new(&*normalize_id(id.as_str()))));
        let by_key = record.keys.iter().map(|key| entry(IndexKey::new(key)));
        [by_id.into_iter().collect(), by_key.collect()]
    }

    fn on_load(&mut self, (): ()) {
        let suspects = &mut self.suspects;
        self.callers.owners.for_each(|key, owners| {
            if owners.len() > 1 {
                suspects.extend(KeyDigest::try_from(key.first()));
            }
        });
    }

    fn on_change(&mut self, _: &DocumentKey, record: Option<&mut UserRecord>) {
        self.suspects.extend(record.iter().flat_map(|record| &record.keys));
    }

    fn on_publish(&mut self, [_, owners]: &[Writer; 2]) {
        self.find_conflicts();
        self.metrics.index_api_keys.set(owners.keys() as f64);
    }

    fn warnings(&self) -> Vec<String> {
        if self.conflicts.is_empty() {
            return Vec::new();
        }
        let mut users = Vec::new();
        for key in &self.conflicts {
            self.callers.owners.read(IndexKey::new(key), |accounts| {
                let ids = accounts
                    .into_iter()
                    .flatten()
                    .filter_map(|each| IdString::from_key(each.document));
                users.extend(ids.map(|id| id.as_str().to_owned()));
            });
        }
        users.sort();
        users.dedup();
        users.truncate(MAX_NAMED);
        let count = self.conflicts.len();
        let users = users.join(", ");
        vec![format!(
            "API keys that belong to users of several organizations are refused: {count}, such as those of {users}"
        )]
    }
}

/// Reads a digest from 64 hex digits.
fn from_hex(string: &str) -> Option<KeyDigest> {
    let mut digest = [0; 32];
    if string.len() != 64 || !string.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        let digits = string.get(index * 2..index * 2 + 2)?;
        // from_str_radix accepts a sign.
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
    use crate::auth::callers::UserLookup;
    use crate::mirror::CollectionIndexes;
    use crate::settings::SettingsReader;
    use bson::rawdoc;

    /// Looks up the owner of `key` among users `(id, organization, is active)` that all have it.
    /// They are loaded together or applied one by one.
    fn owner(users: &[(&str, &str, bool)], is_load: bool) -> UserLookup {
        let callers = Arc::new(Callers::new(Duration::from_secs(30)));
        let settings = UsersSettings::read(&mut SettingsReader::default().section("users"));
        let collection = UserCollection::new(settings, &callers, Metrics::new("v", "c").unwrap());
        let mut indexes = CollectionIndexes::new(collection);
        let mut load = indexes.begin_load();
        for (id, organization, enabled) in users {
            let document = rawdoc! { "_id": *id, "organizationId": *organization, "enabled": *enabled, "apiKey": "key" };
            let record = indexes.collection().read(&document).unwrap();
            let key = DocumentKey::from_document(&document).unwrap();
            if is_load {
                load.upsert(&key, record);
            } else {
                indexes.apply(vec![(key, Some(record))]);
            }
        }
        if is_load {
            indexes.finish_load(load);
        }
        let organizations: HashSet<&str> = users.iter().map(|user| user.1).collect();
        assert_eq!(indexes.collection().conflicts.len(), usize::from(organizations.len() > 1));
        callers.api_key("key")
    }

    #[test]
    fn a_key_of_several_organizations_has_no_owner() {
        for is_load in [true, false] {
            let assert_owner = |users: &[(&str, &str, bool)], expected: &str| {
                let UserLookup::Active { user, .. } = owner(users, is_load) else {
                    panic!("{users:?}")
                };
                assert_eq!(user.as_str(), expected);
            };
            assert_owner(&[("b", "one", true), ("a", "one", false)], "b");
            assert_owner(&[("b", "one", true), ("a", "one", true)], "a");
            assert_eq!(owner(&[("a", "one", false)], is_load), UserLookup::Disabled);
            assert_eq!(
                owner(&[("a", "one", true), ("b", "two", true)], is_load),
                UserLookup::NotFound
            );
        }
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
