//! Users out of their documents: what is kept of each, and under which keys.

use super::callers::{Account, Callers, KeyDigest, OWNERS, USERS, digest_of, known};
use crate::ids::{OrganizationId, UserId, hex_in_lower_case};
use crate::log_rate::LogRate;
use crate::metrics::{Collection, Metrics};
use crate::mirror::View;
use crate::mirror::document::{DocumentKey, IdText, Malformed, field, identifier, is_active};
use crate::mirror::key::Key;
use crate::mirror::left_out::LeftOut;
use crate::mirror::load::Load;
use crate::mirror::snapshot::Snapshot;
use crate::mirror::writer::{Changes, Entry, Writer};
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

impl UsersSettings {
    /// What decides on what is made of a document.
    pub fn source_names(&self) -> [&str; 5] {
        let encoding = match self.api_key_encoding {
            Encoding::Plain => "plain",
            Encoding::Sha256 => "sha256",
        };
        let Self { collection, organization_field, api_key_field, active_field, .. } = self;
        [collection, organization_field, api_key_field, active_field, encoding]
    }
}

/// How often it is logged that there are more conflicts: each change may bring one.
const CONFLICTS_LOGGED: Duration = Duration::from_secs(10);

/// Users with such keys that `hookgate check` names.
const NAMED: usize = 10;

/// Makes callers out of the documents of users.
#[derive(Debug)]
pub struct UsersView {
    settings: UsersSettings,
    callers: Arc<Callers>,
    users: Writer,
    owners: Writer,
    /// Keys that belong to nobody, for being several organizations'.
    conflicts: HashSet<KeyDigest>,
    log_rate: LogRate,
    metrics: Arc<Metrics>,
}

impl UsersView {
    pub fn new(settings: UsersSettings, callers: &Arc<Callers>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            callers: Arc::clone(callers),
            users: Writer::new(Arc::clone(&callers.users)),
            owners: Writer::new(Arc::clone(&callers.owners)),
            conflicts: HashSet::new(),
            log_rate: LogRate::new(1, CONFLICTS_LOGGED),
            metrics,
        }
    }

    /// Looks again at keys that may have come to be several organizations', and at those that were.
    fn look_for_conflicts(&mut self, keys: impl IntoIterator<Item = KeyDigest>) {
        let before = self.conflicts.len();
        self.conflicts.extend(keys);
        let owners = &self.callers.owners;
        self.conflicts.retain(|key| {
            owners.read(Key::of(key), |accounts| {
                accounts.is_some_and(|accounts| known(accounts).is_none())
            })
        });
        if self.conflicts.len() > before && self.log_rate.allows() {
            tracing::warn!(
                conflicts = self.conflicts.len(),
                "API keys belong to users of several organizations and are refused"
            );
        }
        self.metrics.index_conflicting_api_keys.set(self.conflicts.len() as f64);
        self.metrics.index_api_keys.set(self.owners.keys() as f64);
    }

    /// The digests of a user's keys, and what of them is malformed: that leaves out the key and not the user.
    fn digests(&self, document: &RawDocument) -> (Vec<KeyDigest>, LeftOut) {
        let mut keys = (Vec::new(), LeftOut::default());
        match field(document, &self.settings.api_key_field) {
            Ok(None) => {}
            Ok(Some(RawBsonRef::Array(array))) => {
                for (at, key) in array.into_iter().enumerate() {
                    let key = key.map_err(|_| Malformed::Unreadable);
                    self.add_key(&mut keys, at, key);
                }
            }
            Ok(Some(key)) => self.add_key(&mut keys, 0, Ok(key)),
            Err(malformed) => self.add_key(&mut keys, 0, Err(malformed)),
        }
        keys
    }

    /// Adds the key at this place; nothing of a malformed one is shown, since it may be a good key in another encoding.
    fn add_key(
        &self,
        (digests, left_out): &mut (Vec<KeyDigest>, LeftOut),
        at: usize,
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
                left_out.add(|| format!("API key no. {}", at + 1), Some(fault));
            }
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

/// What a user's document comes to.
#[derive(Debug)]
pub struct UserRecord {
    organization: OrganizationId,
    is_active: bool,
    keys: Vec<KeyDigest>,
    left_out: LeftOut,
}

impl UserRecord {
    /// What is kept under the user's id, and under its keys.
    fn entries(&self, document: &DocumentKey) -> (Vec<Entry>, Vec<Entry>) {
        let data = Account::write(&self.organization, self.is_active);
        let id = IdText::of(document.as_bytes());
        let by_id = id.map(|id| Entry {
            key: Key::of(&*hex_in_lower_case(id.as_str())).to_bytes(),
            data: data.clone(),
        });
        let by_key = self
            .keys
            .iter()
            .map(|key| Entry { key: Key::of(key).to_bytes(), data: data.clone() })
            .collect();
        (by_id.into_iter().collect(), by_key)
    }
}

/// All users in the making, by id and by key.
#[derive(Debug)]
pub struct UsersLoad {
    users: Load,
    owners: Load,
}

impl View for UsersView {
    const COLLECTION: Collection = Collection::Users;

    type Record = UserRecord;
    type Load = UsersLoad;

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
        let (mut keys, left_out) = self.digests(document);
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
            left_out,
        })
    }

    fn left_out(record: &UserRecord) -> LeftOut {
        record.left_out.clone()
    }

    fn begin_load(&self) -> UsersLoad {
        UsersLoad { users: self.users.begin_load(), owners: self.owners.begin_load() }
    }

    fn load(&self, load: &mut UsersLoad, document: &DocumentKey, record: UserRecord) {
        let (by_id, by_key) = record.entries(document);
        load.users.put(document.as_bytes(), &by_id);
        load.owners.put(document.as_bytes(), &by_key);
    }

    fn finish_load(&mut self, load: UsersLoad) {
        self.users.replace(load.users);
        self.owners.replace(load.owners);
        let mut shared = Vec::new();
        self.callers.owners.for_each(|key, owners| {
            if owners.len() > 1 {
                shared.extend(KeyDigest::try_from(key.first()));
            }
        });
        self.look_for_conflicts(shared);
    }

    fn warnings(&self) -> Vec<String> {
        if self.conflicts.is_empty() {
            return Vec::new();
        }
        let mut users = Vec::new();
        for key in &self.conflicts {
            self.callers.owners.read(Key::of(key), |accounts| {
                let ids =
                    accounts.into_iter().flatten().filter_map(|each| IdText::of(each.document));
                users.extend(ids.map(|id| id.as_str().to_owned()));
            });
        }
        users.sort();
        users.dedup();
        users.truncate(NAMED);
        let count = self.conflicts.len();
        let users = users.join(", ");
        vec![format!(
            "API keys of users of several organizations, which are refused: {count}, such as those of {users}"
        )]
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        let mut load = self.begin_load();
        for (name, table) in [(USERS, &mut load.users), (OWNERS, &mut load.owners)] {
            for (document, entries) in snapshot.documents(name) {
                table.put(document, &entries);
            }
        }
        self.finish_load(load);
    }

    fn apply(&mut self, records: Vec<(DocumentKey, Option<UserRecord>)>) {
        let (mut users, mut owners) = (Changes::default(), Changes::default());
        let mut keys = Vec::new();
        for (document, record) in records {
            let (by_id, by_key) =
                record.as_ref().map(|record| record.entries(&document)).unwrap_or_default();
            users.put(document.as_bytes(), by_id);
            owners.put(document.as_bytes(), by_key);
            keys.extend(record.map(|record| record.keys).unwrap_or_default());
        }
        self.users.apply(users);
        self.owners.apply(owners);
        self.look_for_conflicts(keys);
    }
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
    use crate::auth::callers::Known;
    use crate::settings::Settings;
    use bson::rawdoc;

    /// Users `(id, organization, is active, key)`, loaded or put one by one, and who speaks for `key`.
    fn owner(users: &[(&str, &str, bool)], is_load: bool) -> Known {
        let callers = Arc::new(Callers::new(Duration::from_secs(30)));
        let settings = UsersSettings::read(&mut Settings::default().section("users"));
        let mut view = UsersView::new(settings, &callers, Metrics::new("v", "c").unwrap());
        let mut load = view.begin_load();
        for (id, organization, enabled) in users {
            let document = rawdoc! { "_id": *id, "organizationId": *organization, "enabled": *enabled, "apiKey": "key" };
            let record = view.read(&document).unwrap();
            let key = DocumentKey::of(&document).unwrap();
            if is_load {
                view.load(&mut load, &key, record);
            } else {
                view.apply(vec![(key, Some(record))]);
            }
        }
        if is_load {
            view.finish_load(load);
        }
        let organizations: HashSet<&str> = users.iter().map(|user| user.1).collect();
        assert_eq!(view.conflicts.len(), usize::from(organizations.len() > 1));
        callers.api_key("key")
    }

    #[test]
    fn a_key_of_several_organizations_belongs_to_nobody() {
        for is_load in [true, false] {
            let speaks = |users: &[(&str, &str, bool)], expected: &str| {
                let Known::Active { user, .. } = owner(users, is_load) else { panic!("{users:?}") };
                assert_eq!(user.as_str(), expected);
            };
            speaks(&[("b", "one", true), ("a", "one", false)], "b");
            speaks(&[("b", "one", true), ("a", "one", true)], "a");
            assert_eq!(owner(&[("a", "one", false)], is_load), Known::SwitchedOff);
            assert_eq!(owner(&[("a", "one", true), ("b", "two", true)], is_load), Known::Nobody);
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
