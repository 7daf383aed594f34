//! The header fields of a delivery, for its verification and for its jobs.

use crate::endpoints::verification::{self, Field};
use crate::queue;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

/// The header fields of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryHeaders<'a>(pub(super) &'a HeaderMap);

impl verification::HeaderFields for DeliveryHeaders<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Field::Missing,
            (Some(value), None) => Field::Once(value.as_bytes()),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

/// The header fields of a delivery without those that carry a secret. No job contains a secret.
#[derive(Debug)]
pub(super) struct FieldsWithoutSecrets<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The names of fields that carry one, in lower case.
    pub(super) secret: &'a [&'a str],
}

impl queue::HeaderFields for FieldsWithoutSecrets<'_> {
    fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if !self.secret.contains(&name) {
            self.headers.get_all(name).iter().map(HeaderValue::as_bytes).for_each(visit);
        }
    }
}
