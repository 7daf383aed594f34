//! The samples of the presets, as requests of these tests.

use super::{NOW, Request};
use aws_lc_rs::digest::{SHA256, digest};
pub(super) use testkit::samples::{SAMPLES, Sample, ed25519, p256, sample_of};

pub(super) trait SampleRequests {
    /// A delivery that is signed with the key of a number at a time.
    fn request(&self, key: u8, second: u64) -> Request;

    fn now(&self, key: u8) -> Request {
        self.request(key, NOW)
    }
}

impl SampleRequests for Sample {
    fn request(&self, key: u8, second: u64) -> Request {
        let delivery = self.delivery(key, second, &Request::post("").url);
        let request = Request::post(delivery.body);
        let headers = delivery.headers.into_iter();
        headers.fold(request, |request, (name, value)| request.header(name, value))
    }
}

pub(super) fn sha256_hex(body: &str) -> String {
    hex::encode(digest(&SHA256, body.as_bytes()))
}
