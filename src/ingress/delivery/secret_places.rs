//! The places of a request that carry a secret of its verification. No job contains them.

use crate::ingress::delivery::candidates::Candidates;
use std::borrow::Cow;

/// The names of header fields and query parameters that carry a secret.
#[derive(Debug)]
pub(super) struct SecretPlaces<'a> {
    pub(super) headers: Vec<&'a str>,
    query: Vec<&'a str>,
}

impl<'a> SecretPlaces<'a> {
    /// Those of all verifications of the address, since a request may carry several.
    pub(super) fn new(candidates: &'a Candidates) -> Self {
        Self {
            headers: candidates.iter().filter_map(|each| each.secret_header()).collect(),
            query: candidates.iter().filter_map(|each| each.secret_parameter()).collect(),
        }
    }

    /// A query without the parameters that carry a secret.
    pub(super) fn query_without<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        query.map(|query| crate::queue::query_without(query, &self.query))
    }
}
