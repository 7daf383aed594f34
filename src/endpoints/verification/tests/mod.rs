//! Tests of whole verifications, with requests that are signed without the code under test.

mod body_members;
mod custom;
mod descriptions;
mod explanations;
mod handshakes;
mod hostile;
mod malformed_requests;
mod memory;
mod presets;
mod samples;
mod settings;
mod vectors;

use crate::endpoints::verification::{
    DeliveryRequest, Field, HeaderFields, Malformed, Refusal, RefusalKind, Verification, Verified,
};
use serde_json::Value;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of the samples.
const NOW: u64 = 1_700_000_000;

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

fn now() -> SystemTime {
    at(NOW)
}

/// A verification as it is in a document.
fn described(description: &Value) -> Result<Verification, Malformed> {
    Verification::from_document(&bson::to_raw_document_buf(description).unwrap())
}

fn verification(description: &Value) -> Verification {
    described(description).unwrap()
}

#[derive(Clone)]
struct Fields(Vec<(String, Vec<u8>)>);

impl HeaderFields for Fields {
    fn field(&self, name: &str) -> Field<'_> {
        let mut found = self.0.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (None, _) => Field::Missing,
            (Some((_, value)), None) => Field::Once(value),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }
}

/// A request that a test can change.
#[derive(Clone)]
struct Request {
    method: &'static str,
    url: String,
    headers: Fields,
    body: Vec<u8>,
    client: Option<IpAddr>,
}

impl Request {
    fn post(body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST",
            url: "https://hooks.example.com/api/webhook/in/org_1/hook".to_owned(),
            headers: Fields(Vec::new()),
            body: body.into(),
            client: None,
        }
    }

    fn get(query: &str) -> Self {
        Self { method: "GET", ..Self::post("") }.query(query)
    }

    fn query(mut self, query: &str) -> Self {
        self.url = format!("{}?{query}", self.url);
        self
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.0.push((name.to_owned(), value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.0.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self
    }

    fn twice(mut self, name: &str) -> Self {
        let found = self.headers.0.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        let again = found.expect("a header field of the request").clone();
        self.headers.0.push(again);
        self
    }

    fn client(mut self, client: &str) -> Self {
        self.client = Some(client.parse().unwrap());
        self
    }

    fn delivery(&self) -> DeliveryRequest<'_> {
        DeliveryRequest {
            method: self.method,
            url: &self.url,
            query: self.url.split_once('?').map_or("", |(_, query)| query),
            headers: &self.headers,
            body: &self.body,
            client: self.client,
        }
    }

    fn verify(&self, verification: &Verification) -> Result<Verified, Refusal> {
        verification.verify(&self.delivery(), now())
    }

    fn refusal(&self, verification: &Verification) -> RefusalKind {
        self.verify(verification).unwrap_err().kind
    }
}
