//! What is read of a collection: which documents, and which of their fields.

use crate::mirror::collection::MirroredCollection;
use bson::{Bson, Document, doc};

/// The filter and the projection of a collection.
#[derive(Debug, Clone)]
pub(in crate::mirror) struct Query {
    filter: Document,
    projection: Document,
}

impl Query {
    pub(in crate::mirror) fn from_collection(collection: &impl MirroredCollection) -> Self {
        Self { filter: collection.filter(), projection: collection.projection() }
    }

    /// The pipeline that returns all documents.
    pub(in crate::mirror) fn all(self) -> Vec<Document> {
        let mut stages = Vec::with_capacity(2);
        if !self.filter.is_empty() {
            stages.push(doc! { "$match": self.filter });
        }
        stages.push(doc! { "$project": self.projection });
        stages
    }

    /// The pipeline that returns those of these documents that match the filter.
    pub(in crate::mirror) fn some(self, ids: Vec<Bson>) -> Vec<Document> {
        let mut stages = vec![doc! { "$match": { "_id": { "$in": ids } } }];
        stages.extend(self.all());
        stages
    }
}

/// The pipeline that returns the first whole documents that match a filter.
pub(in crate::mirror) fn first_documents(filter: Document, limit: u32) -> Vec<Document> {
    vec![doc! { "$match": filter }, doc! { "$limit": limit }]
}
