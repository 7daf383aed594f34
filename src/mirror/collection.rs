//! What differs between the mirrored collections: how a document is read and where it is filed.

use crate::metrics::Collection;
use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::index::writer::{Entry, Writer};
use crate::mirror::path_survey::PathSurvey;
use crate::mirror::skipped_parts::SkippedParts;
use bson::{Document, RawDocument};
use std::fmt::Debug;
use std::sync::Arc;

/// Reads the documents of one collection and files them in two indexes.
///
/// [`CollectionIndexes`](crate::mirror::collection_indexes::CollectionIndexes) loads, restores and
/// changes the indexes of every collection. A collection that keeps more than its indexes does so
/// in [`collect_extras`](Self::collect_extras), [`on_load`](Self::on_load) and
/// [`on_change`](Self::on_change).
pub trait MirroredCollection: Send + 'static {
    const COLLECTION: Collection;

    /// The names of the two indexes in a snapshot.
    const INDEX_NAMES: [&'static str; 2];

    /// What is kept of one document.
    type Record: Send;

    /// What a load gathers in addition to the entries of the indexes.
    type Extras: Debug + Default + Send + 'static;

    /// The indexes that this collection fills, in the order of [`Self::INDEX_NAMES`].
    fn indexes(&self) -> [Arc<ShardedIndex>; 2];

    /// The query that a document must match. One that does not match is treated like one that does
    /// not exist. Every document matches an empty query.
    fn filter(&self) -> Document {
        Document::new()
    }

    /// The fields that the database returns, as the `$project` stage of an aggregation.
    fn projection(&self) -> Document;

    /// Reads a document. A projected document and a whole one have their fields at the same paths.
    fn read(&self, document: &RawDocument) -> Result<Self::Record, Malformed>;

    /// The parts of the document that are skipped although the rest of it is read.
    fn skipped(record: &Self::Record) -> SkippedParts;

    /// The entries of a record in each index. No two entries of one index have the same key.
    fn entries(document: &DocumentKey, record: Self::Record) -> [Vec<Entry>; 2];

    /// Adds what is kept of a loaded record in addition to its entries. May move parts of the
    /// record that its entries do not need.
    fn collect_extras(_: &mut Self::Extras, _document: &DocumentKey, _record: &mut Self::Record) {}

    /// Publishes what a load has gathered. The indexes already hold the load.
    fn on_load(&mut self, extras: Self::Extras);

    /// Records a changed document before its entries are applied, or `None` for one that is gone.
    /// May move parts of the record that its entries do not need.
    fn on_change(&mut self, document: &DocumentKey, record: Option<&mut Self::Record>);

    /// Called after each load and each set of changes, once the indexes hold it.
    fn on_publish(&mut self, writers: &[Writer; 2]);

    /// What was found at the configured paths in whole documents.
    fn shape(&self, _documents: &[&RawDocument]) -> PathSurvey {
        PathSurvey::default()
    }

    /// Faults of what is loaded that `hookgate check` reports.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
