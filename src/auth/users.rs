//! Reading users from their documents, and filing them by id and by API key.

use crate::auth::callers::{Callers, OWNERS, StoredUser, USERS};
use crate::auth::conflicts::Conflicts;
use crate::auth::key_encoding::{ApiKeyEncoding, KeyDigest};
use crate::ids::{OrganizationId, UserId, normalize_id};
use crate::metrics::{Collection, Metrics};
use crate::mirror::MirroredCollection;
use crate::mirror::active_field::ActiveField;
use crate::mirror::document::{DocumentKey, IdString, Malformed, identifier};
use crate::mirror::filter::Filter;
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::index::writer::{Entry, Writer};
use crate::mirror::path_survey::{PathSurvey, count};
use crate::mirror::paths;
use crate::mirror::skipped_parts::SkippedParts;
use crate::process::log_throttle::LogThrottle;
use crate::settings::Section;
use bson::{Bson, Document, RawBsonRef, RawDocument};
use std::sync::Arc;
use std::time::Duration;

/// The section `[users]`.
#[derive(Debug, Clone)]
pub struct UsersSettings {
    pub collection: String,
    /// The query that a user must match.
    pub filter: Filter,
    organization_field: String,
    api_key_field: String,
    api_key_encoding: ApiKeyEncoding,
    active: ActiveField,
}

impl UsersSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            collection: section.name("collection", "users"),
            filter: Filter::read(section),
            organization_field: paths::read(section, "organization_field", "organizationId"),
            api_key_field: api_key_field(section),
            api_key_encoding: ApiKeyEncoding::read(section),
            active: ActiveField::read(section),
        }
    }

    /// An index without users, for keys of the configured encoding.
    pub fn callers(&self, max_staleness: Duration) -> Callers {
        Callers::new(max_staleness).with_key_encoding(self.api_key_encoding.clone())
    }

    /// The settings that determine which records the documents become. They identify a snapshot,
    /// together with [`Self::additional_source_names`].
    pub fn source_names(&self) -> [&str; 5] {
        let encoding = self.api_key_encoding.as_str();
        let Self { collection, organization_field, api_key_field, active, .. } = self;
        let active = active.path().unwrap_or_default();
        [collection, organization_field, api_key_field, active, encoding]
    }

    /// Further such settings that are not the default, each after the name of its key.
    pub fn additional_source_names(&self) -> Vec<String> {
        let filter =
            self.filter.source_name().map(|filter| ["users.filter", filter].map(str::to_owned));
        let values =
            self.active.source_name().map(|values| ["users.active_values".to_owned(), values]);
        filter.into_iter().chain(values).flatten().collect()
    }

    /// The path of the API keys.
    pub fn api_key_field(&self) -> &str {
        &self.api_key_field
    }
}

const API_KEY_FIELD: &str = "apiKey";

fn api_key_field(section: &mut Section<'_>) -> String {
    let path = paths::read(section, "api_key_field", API_KEY_FIELD);
    if path.contains(['[', ']']) {
        let message = "has brackets: a path leads through arrays by itself, such as \"keys.hash\"";
        section.fault("api_key_field", message);
    }
    path
}

/// The least time between two log lines about new conflicts. Each change may add one.
const CONFLICT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The number of users in conflict that `hookgate check` names.
const MAX_NAMED: usize = 10;

/// Files users by their ids, and by the digests of their API keys.
#[derive(Debug)]
pub struct UserCollection {
    settings: UsersSettings,
    callers: Arc<Callers>,
    /// API keys that users of several organizations have. Such a key is refused.
    key_conflicts: Conflicts<KeyDigest>,
    /// Ids that users of several organizations have. A token with such an id is refused unless it
    /// claims an organization.
    id_conflicts: Conflicts<Box<[u8]>>,
    key_log_throttle: LogThrottle,
    id_log_throttle: LogThrottle,
    metrics: Arc<Metrics>,
}

impl UserCollection {
    pub fn new(settings: UsersSettings, callers: &Arc<Callers>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            callers: Arc::clone(callers),
            key_conflicts: Conflicts::default(),
            id_conflicts: Conflicts::default(),
            key_log_throttle: LogThrottle::new(1, CONFLICT_LOG_INTERVAL),
            id_log_throttle: LogThrottle::new(1, CONFLICT_LOG_INTERVAL),
            metrics,
        }
    }

    fn find_conflicts(&mut self) {
        let Callers { users, owners, .. } = &*self.callers;
        if self.key_conflicts.update(owners) && self.key_log_throttle.allows() {
            tracing::warn!(
                conflicts = self.key_conflicts.len(),
                "API keys belong to users of several organizations and are refused"
            );
        }
        if self.id_conflicts.update(users) && self.id_log_throttle.allows() {
            tracing::warn!(
                conflicts = self.id_conflicts.len(),
                "users of several organizations have equal ids; their tokens are refused unless they name an organization"
            );
        }
        let Metrics { index_conflicting_api_keys, index_conflicting_user_ids, .. } = &*self.metrics;
        index_conflicting_api_keys.set(self.key_conflicts.len() as f64);
        index_conflicting_user_ids.set(self.id_conflicts.len() as f64);
    }

    /// The digests of a user's keys, and the malformed ones, which are skipped alone.
    fn digests(&self, document: &RawDocument) -> (Vec<KeyDigest>, SkippedParts) {
        let mut keys = (Vec::new(), SkippedParts::default());
        let mut index = 0;
        paths::visit_values(document, &self.settings.api_key_field, &mut |key| {
            self.add_key(&mut keys, index, key);
            index += 1;
        });
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
        if stored.is_empty() {
            return Ok(None);
        }
        let digest = self.settings.api_key_encoding.digest_of_stored(stored);
        let malformed = |form| Malformed::wrong(&self.settings.api_key_field, form);
        digest.map(Some).map_err(malformed)
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

    fn filter(&self) -> Document {
        self.settings.filter.query().clone()
    }

    fn projection(&self) -> Document {
        let UsersSettings { organization_field, api_key_field, active, .. } = &self.settings;
        let mut paths = vec!["_id", organization_field, api_key_field];
        paths.extend(active.path());
        paths::outermost(&paths).into_iter().map(|path| (path.to_owned(), Bson::Int32(1))).collect()
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
            is_active: self.settings.active.is_active(document)?,
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
        let Callers { users, owners, .. } = &*self.callers;
        self.key_conflicts.suspect_shared(owners, |key| KeyDigest::try_from(key).ok());
        self.id_conflicts.suspect_shared(users, |id| Some(id.into()));
    }

    fn on_change(&mut self, document: &DocumentKey, record: Option<&mut UserRecord>) {
        let Some(record) = record else { return };
        self.key_conflicts.suspect(record.keys.iter().copied());
        let id = IdString::from_key(document.as_bytes());
        self.id_conflicts.suspect(id.map(|id| normalize_id(id.as_str()).as_bytes().into()));
    }

    fn shape(&self, documents: &[&RawDocument]) -> PathSurvey {
        let UsersSettings { organization_field, api_key_field, active, .. } = &self.settings;
        let keys: usize = documents.iter().map(|each| self.digests(each).0.len()).sum();
        let (keys, users) =
            (count(keys as u64, "API key"), count(documents.len() as u64, "document"));
        let summary = format!("{keys} in {users}, from {api_key_field}");
        let mut shape = PathSurvey { summary, missing: Vec::new() };
        shape.expect("document", documents, organization_field, true);
        shape.expect("document", documents, api_key_field, api_key_field != API_KEY_FIELD);
        // The values of a switch are shown, so a switch that has API keys is not looked at.
        let overlaps =
            |path| paths::is_within(path, api_key_field) || paths::is_within(api_key_field, path);
        if !active.path().is_some_and(overlaps) {
            shape.expect_active(documents, active);
        }
        shape
    }

    fn on_publish(&mut self, [_, owners]: &[Writer; 2]) {
        self.find_conflicts();
        self.metrics.index_api_keys.set(owners.keys() as f64);
    }

    fn warnings(&self) -> Vec<String> {
        let Callers { users, owners, .. } = &*self.callers;
        let Self { key_conflicts, id_conflicts, .. } = self;
        let mut warnings = Vec::new();
        if key_conflicts.len() > 0 {
            let (count, named) = (key_conflicts.len(), first_names(key_conflicts.users(owners)));
            warnings.push(format!(
                "API keys that belong to users of several organizations are refused: {count}, such as those of {named}"
            ));
        }
        if id_conflicts.len() > 0 {
            let (count, named) = (id_conflicts.len(), first_names(id_conflicts.users(users)));
            warnings.push(format!(
                "ids that users of several organizations have: {count}, such as {named}; a token with such an id is refused unless it names an organization"
            ));
        }
        warnings
    }
}

fn first_names(mut users: Vec<String>) -> String {
    users.truncate(MAX_NAMED);
    users.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::callers::UserLookup;
    use crate::mirror::CollectionIndexes;
    use crate::settings::SettingsReader;
    use bson::rawdoc;
    use std::collections::HashSet;

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
        assert_eq!(indexes.collection().key_conflicts.len(), usize::from(organizations.len() > 1));
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
}
