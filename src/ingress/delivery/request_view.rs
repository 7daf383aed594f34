//! A request as its verification sees it.

use crate::endpoints::verification::{DeliveryRequest, Field, HeaderFields};
use crate::ingress::delivery::arrival::Delivery;
use hyper::HeaderMap;

/// A request without its body, as its verification sees it.
#[derive(Debug)]
pub(super) struct RequestView<'a> {
    delivery: &'a Delivery<'a>,
    url: String,
    headers: UniqueFields<'a>,
}

impl<'a> RequestView<'a> {
    pub(super) fn new(delivery: &'a Delivery<'a>) -> Self {
        let url = delivery.endpoints.urls.url(delivery.head);
        Self { delivery, url, headers: UniqueFields(&delivery.head.headers) }
    }

    pub(super) fn with_body<'b>(&'b self, body: &'b [u8]) -> DeliveryRequest<'b> {
        let Delivery { head, client, .. } = self.delivery;
        DeliveryRequest {
            method: head.method.as_str(),
            url: &self.url,
            query: head.uri.query().unwrap_or_default(),
            headers: &self.headers,
            body,
            client: *client,
        }
    }
}

/// The header fields of a request. One that is there more than once has no value.
#[derive(Debug)]
struct UniqueFields<'a>(&'a HeaderMap);

impl HeaderFields for UniqueFields<'_> {
    fn field(&self, name: &str) -> Field<'_> {
        let mut values = self.0.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Field::Missing,
            (Some(value), None) => Field::Once(value.as_bytes()),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}
