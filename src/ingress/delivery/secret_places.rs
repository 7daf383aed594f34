//! The places of a request that carry a secret of its verification. No job contains them.

use crate::endpoints::verification::Verification;
use crate::queue;
use std::borrow::Cow;

/// The names of header fields and query parameters that carry a secret.
#[derive(Debug, Default)]
pub(super) struct SecretPlaces {
    /// In lower case.
    pub(super) headers: Vec<String>,
    parameters: Vec<String>,
}

impl SecretPlaces {
    pub(super) fn add(&mut self, verification: &Verification) {
        verification.secret_header().into_iter().for_each(|name| add(&mut self.headers, name));
        verification.secret_parameters().for_each(|name| add(&mut self.parameters, name));
    }

    /// A query without the parameters that carry a secret.
    pub(super) fn query_without<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        query.map(|query| queue::query_without(query, &self.parameters))
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}
