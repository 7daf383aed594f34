//! Choosing the queue of an organization: for its first request, and for later ones, for which its
//! account remembers it.

use crate::settings;
use criterion::Criterion;
use hookgate::admission::{Admission, AdmissionSettings, Permit};
use hookgate::ids::OrganizationId;
use hookgate::metrics::Metrics;
use hookgate::queue::{IdempotencySettings, QueueSettings, ShardMap};
use std::fmt::Write;
use std::hint::black_box;

const ORGANIZATIONS: u64 = 10_000;

/// The number of queues of a lookup that is remembered.
const QUEUES: usize = 4;

pub fn measure(criterion: &mut Criterion) {
    let ids = |id: &dyn Fn(u64) -> String| -> Vec<OrganizationId> {
        (0..ORGANIZATIONS).map(|n| OrganizationId::new(&id(n)).unwrap()).collect()
    };
    let kinds = [
        ("org_4711", ids(&|n| format!("org_{n}"))),
        ("ObjectId", ids(&|n| format!("65a1b2c3d4e5f607{n:08x}"))),
        ("UUID", ids(&|n| format!("f81d4fae-7dec-11d0-a765-00a0{n:08x}"))),
    ];
    let mut group = criterion.benchmark_group("shard");
    for queues in [1, 2, 4, 16] {
        let (map, pinned) = (map(queues, ""), map(queues, "org_4711 = \"runner-0\""));
        for (kind, organizations) in &kinds {
            for (pins, map) in [("", &map), (", with a pin", &pinned)] {
                let mut next = organizations.iter().cycle();
                group.bench_function(format!("{kind} of {queues}{pins}"), |bencher| {
                    bencher.iter(|| map.index_of(black_box(next.next().unwrap())));
                });
            }
        }
    }
    let map = map(QUEUES, "");
    for (kind, organizations) in &kinds {
        let permits = permits(organizations);
        let mut next = organizations.iter().zip(&permits).cycle();
        group.bench_function(format!("{kind} of {QUEUES}, remembered"), |bencher| {
            bencher.iter(|| {
                let (organization, permit) = black_box(next.next().unwrap());
                permit.queue_of_organization(|| map.index_of(organization))
            });
        });
    }
}

/// A request in flight of each organization.
fn permits(organizations: &[OrganizationId]) -> Vec<Permit> {
    let limits = AdmissionSettings::read(&mut settings("").section("limits"));
    let metrics = Metrics::new("version", "commit").unwrap();
    let admission = Admission::with_queues(QUEUES, &limits, &metrics);
    let permit = |organization| {
        let mut permit = admission.admit().unwrap();
        permit.reserve_for_organization(organization, 0).unwrap();
        permit
    };
    organizations.iter().map(permit).collect()
}

fn map(queues: usize, pins: &str) -> ShardMap {
    let mut toml = format!("[queue.sharding]\npin = {{ {pins} }}\n");
    for queue in 0..queues {
        write!(toml, "[[queue.shards]]\nname = \"runner-{queue}\"\n").unwrap();
    }
    let mut settings = settings(&toml);
    let idempotency = IdempotencySettings::read(&mut settings.section("idempotency"));
    let queue = QueueSettings::read(&mut settings.section("queue"), idempotency);
    assert_eq!(settings.into_faults(), []);
    queue.shard_map()
}
