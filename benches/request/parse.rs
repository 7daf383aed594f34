//! Parsing a body: checking it and removing its `webhookId`.

use crate::SIZES;
use crate::body::body;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use hookgate::ingress::Webhook;

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for size in SIZES {
        let body = Bytes::from(body("wh_1", size));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| Webhook::parse(&body).unwrap());
        });
    }
}
