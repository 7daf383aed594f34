//! The header fields of a delivery, for its verification.

use crate::endpoints::verification::{Field, HeaderFields};
use hyper::HeaderMap;

/// The header fields of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryHeaders<'a>(pub(super) &'a HeaderMap);

impl HeaderFields for DeliveryHeaders<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Field::Missing,
            (Some(value), None) => Field::Once(value.as_bytes()),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}
