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
        add_name(&mut self.headers, verification.secret_header());
        add_name(&mut self.parameters, verification.secret_parameter());
    }

    /// A query without the parameters that carry a secret.
    pub(super) fn query_without<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        query.map(|query| queue::query_without(query, &self.parameters))
    }
}

fn add_name(names: &mut Vec<String>, name: Option<&str>) {
    if let Some(name) = name.filter(|name| !names.iter().any(|known| known == name)) {
        names.push(name.to_owned());
    }
}
