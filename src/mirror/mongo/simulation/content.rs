//! The documents of a simulated collection, and a collection that files them by their keys.

use crate::metrics::Collection;
use crate::mirror::MirroredCollection;
use crate::mirror::active_field::ActiveField;
use crate::mirror::document::{DocumentKey, Malformed, field};
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::shard::Postings;
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::index::writer::{Entry, Writer};
use crate::mirror::skipped_parts::SkippedParts;
use bson::oid::ObjectId;
use bson::{
    Bson, Document, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

pub(super) const DOCUMENTS: u8 = 6;
pub(super) const KEYS: u8 = 4;

/// The content of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) keys: BTreeSet<u8>,
    pub(super) is_active: bool,
    pub(super) is_malformed: bool,
    /// Differs between any two contents.
    pub(super) version: u32,
}

/// A collection at one moment.
pub(super) type State = BTreeMap<u8, Content>;

/// What a lookup finds: documents and their versions.
pub(super) type Answer = Vec<(u8, u32)>;

/// What a lookup of a key finds in a collection, among the documents that are switched on or off.
pub(super) fn answer(state: &State, key: u8, is_active: bool) -> Answer {
    let matching = state.iter().filter(|(_, content)| {
        !content.is_malformed && content.is_active == is_active && content.keys.contains(&key)
    });
    matching.map(|(document, content)| (*document, content.version)).collect()
}

/// The `_id`s of all documents, of three types, with their keys.
static IDS: LazyLock<Vec<(RawBson, DocumentKey)>> = LazyLock::new(|| {
    let id = |document: u8| match document % 3 {
        0 => RawBson::from(format!("d{document}")),
        1 => RawBson::from(ObjectId::from_bytes([document; 12])),
        _ => RawBson::from(i32::from(document)),
    };
    let with_key = |id: RawBson| {
        let key = DocumentKey::from_bson(id.as_raw_bson_ref());
        (id, key)
    };
    (0..DOCUMENTS).map(id).map(with_key).collect()
});

/// The `_id` of a document.
pub(super) fn id(document: u8) -> RawBson {
    IDS[usize::from(document)].0.clone()
}

pub(super) fn document_key(document: u8) -> DocumentKey {
    IDS[usize::from(document)].1.clone()
}

/// The number of the document with this key.
fn number_of_key(key: &[u8]) -> u8 {
    let at = IDS.iter().position(|(_, of_document)| of_document.as_bytes() == key);
    at.expect("the key of a document").try_into().unwrap()
}

/// The number of a document by its `_id`.
pub(super) fn number(id: &Bson) -> u8 {
    let id = RawBson::try_from(id.clone()).unwrap();
    number_of_key(DocumentKey::from_bson(id.as_raw_bson_ref()).as_bytes())
}

pub(super) fn document(number: u8, content: &Content) -> RawDocumentBuf {
    let mut keys = RawArrayBuf::new();
    content.keys.iter().for_each(|key| keys.push(i32::from(*key)));
    let mut document =
        rawdoc! { "enabled": content.is_active, "version": i64::from(content.version) };
    document.append("_id", id(number));
    if content.is_malformed {
        document.append("keys", "malformed");
    } else {
        document.append("keys", keys);
    }
    document
}

/// Files documents by their keys: those that are switched on, and those that are switched off.
#[derive(Debug)]
pub(super) struct SimulatedCollection(pub(super) [Arc<ShardedIndex>; 2]);

impl MirroredCollection for SimulatedCollection {
    const COLLECTION: Collection = Collection::Workflows;
    const INDEX_NAMES: [&'static str; 2] = ["active", "inactive"];

    type Record = Content;
    type Extras = ();

    fn indexes(&self) -> [Arc<ShardedIndex>; 2] {
        self.0.clone()
    }

    fn projection(&self) -> Document {
        doc! { "keys": 1, "enabled": 1, "version": 1 }
    }

    fn read(&self, document: &RawDocument) -> Result<Content, Malformed> {
        let Some(RawBsonRef::Array(array)) = field(document, "keys")? else {
            return Err(Malformed::wrong("keys", "an array"));
        };
        let keys = array.into_iter().map(|key| key.unwrap().as_i32().unwrap());
        let version = document.get_i64("version").unwrap();
        Ok(Content {
            keys: keys.map(|key| u8::try_from(key).unwrap()).collect(),
            is_active: ActiveField::boolean("enabled").is_active(document)?,
            is_malformed: false,
            version: u32::try_from(version).unwrap(),
        })
    }

    fn skipped(_: &Content) -> SkippedParts {
        SkippedParts::default()
    }

    fn entries(_: &DocumentKey, content: Content) -> [Vec<Entry>; 2] {
        let data = content.version.to_le_bytes().to_vec();
        let entry = |key: &u8| Entry { key: IndexKey::new(&[*key]).to_bytes(), data: data.clone() };
        let entries = content.keys.iter().map(entry).collect();
        if content.is_active { [entries, Vec::new()] } else { [Vec::new(), entries] }
    }

    fn on_load(&mut self, (): ()) {}

    fn on_change(&mut self, _: &DocumentKey, _: Option<&mut Content>) {}

    fn on_publish(&mut self, _: &[Writer; 2]) {}
}

/// Reads the answer of an index.
pub(super) fn found(postings: Option<Postings<'_>>) -> Answer {
    let mut found: Answer = postings
        .into_iter()
        .flatten()
        .map(|posting| {
            let version = u32::from_le_bytes(posting.data.try_into().unwrap());
            (number_of_key(posting.document), version)
        })
        .collect();
    found.sort_unstable();
    found
}
