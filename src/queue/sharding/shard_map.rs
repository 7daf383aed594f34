//! Which of several queues gets the jobs of an organization: rendezvous hashing with weights and
//! pins.
//!
//! A queue that is added takes its share of the organizations from all others, and no organization
//! moves between those.

use crate::ids::OrganizationId;
use crate::queue::sharding::hash::{fnv1a64, of_organization, splitmix64};
use std::hint::select_unpredictable;

/// A queue, as the map sees it.
#[derive(Debug, Clone)]
pub(in crate::queue) struct Shard {
    pub(in crate::queue) name: String,
    pub(in crate::queue) weight: u32,
}

/// An organization with a queue of its own choice.
#[derive(Debug, Clone)]
pub(in crate::queue) struct Pin {
    pub(in crate::queue) organization: OrganizationId,
    /// The name of the queue.
    pub(in crate::queue) shard: String,
}

/// Finds the queue of an organization by its position in the configuration.
#[derive(Debug)]
pub struct ShardMap {
    /// As many for each queue as its weight, by the names of the queues. Empty for one queue.
    points: Box<[Point]>,
    /// By hash.
    pins: Box<[PinnedOrganization]>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    hash: u64,
    shard: usize,
}

#[derive(Debug)]
struct PinnedOrganization {
    hash: u64,
    organization: OrganizationId,
    shard: usize,
}

impl ShardMap {
    /// A pin to a name that no queue has does not count; the settings report it.
    pub(in crate::queue) fn new(shards: &[Shard], pins: &[Pin]) -> Self {
        if shards.len() < 2 {
            return Self { points: Box::default(), pins: Box::default() };
        }
        let mut by_name: Vec<(usize, &Shard)> = shards.iter().enumerate().collect();
        by_name.sort_by(|(_, first), (_, second)| first.name.cmp(&second.name));
        let points = by_name.into_iter().flat_map(|(shard, Shard { name, weight })| {
            let point = move |number| {
                let hash = fnv1a64(format!("{name}#{number}").as_bytes());
                Point { hash, shard }
            };
            (0..*weight).map(point)
        });
        let pinned = |Pin { organization, shard }: &Pin| {
            let shard = shards.iter().position(|Shard { name, .. }| name == shard)?;
            let hash = of_organization(organization);
            Some(PinnedOrganization { hash, organization: organization.clone(), shard })
        };
        let mut pins: Vec<PinnedOrganization> = pins.iter().filter_map(pinned).collect();
        pins.sort_by_key(|pin| pin.hash);
        Self { points: points.collect(), pins: pins.into() }
    }

    /// The position of the queue of an organization. Does not hash if there is one queue.
    #[inline]
    pub fn index_of(&self, organization: &OrganizationId) -> usize {
        if self.points.is_empty() { 0 } else { self.find(organization) }
    }

    fn find(&self, organization: &OrganizationId) -> usize {
        let hash = of_organization(organization);
        if let Some(shard) = self.pinned(hash, organization) {
            return shard;
        }
        let (mut best, mut shard) = (0, self.points.first().map_or(0, |point| point.shard));
        for point in &self.points {
            let score = splitmix64(hash ^ point.hash);
            // The first one keeps a tie, which is the one with the smaller name. Without a branch,
            // which nothing could predict, a lookup takes two thirds of the time.
            let is_better = score > best;
            best = select_unpredictable(is_better, score, best);
            shard = select_unpredictable(is_better, point.shard, shard);
        }
        shard
    }

    fn pinned(&self, hash: u64, organization: &OrganizationId) -> Option<usize> {
        let from = self.pins.partition_point(|pin| pin.hash < hash);
        let mut same_hash = self.pins.get(from..)?.iter().take_while(|pin| pin.hash == hash);
        same_hash.find(|pin| pin.organization == *organization).map(|pin| pin.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn shards<'a>(shards: impl IntoIterator<Item = (&'a str, u32)>) -> Vec<Shard> {
        let shard = |(name, weight): (&str, u32)| Shard { name: name.to_owned(), weight };
        shards.into_iter().map(shard).collect()
    }

    fn id(organization: &str) -> OrganizationId {
        OrganizationId::new(organization).unwrap()
    }

    /// How many of the organizations each queue gets.
    fn counts(map: &ShardMap, queues: usize, organizations: usize) -> Vec<usize> {
        let mut counts = vec![0; queues];
        for number in 0..organizations {
            counts[map.index_of(&id(&format!("org_{number}")))] += 1;
        }
        counts
    }

    fn assert_within(count: usize, expected: f64, share: f64) {
        let off = (count as f64 - expected).abs() / expected;
        assert!(off <= share, "{count} instead of {expected}");
    }

    #[test]
    fn equal_queues_get_equal_shares() {
        let names: Vec<String> = (0..4).map(|number| format!("workflow-runner-{number}")).collect();
        for queues in 2..=4 {
            let map = ShardMap::new(&shards(names[..queues].iter().map(|n| (n.as_str(), 1))), &[]);
            for count in counts(&map, queues, 10_000) {
                assert_within(count, 10_000.0 / queues as f64, 0.05);
            }
        }
    }

    #[test]
    fn a_queue_gets_the_share_of_its_weight() {
        let map = ShardMap::new(&shards([("a", 1), ("b", 2), ("c", 5)]), &[]);
        for (count, weight) in counts(&map, 3, 40_000).into_iter().zip([1, 2, 5]) {
            assert_within(count, 40_000.0 * f64::from(weight) / 8.0, 0.05);
        }
    }

    #[test]
    fn a_pin_counts_for_every_spelling_of_its_organization() {
        let upper = "65A1B2C3D4E5F60718293A4B";
        let all = shards([("a", 1), ("b", 1), ("c", 1)]);
        for target in ["a", "b", "c"] {
            let pins = ["org_1", upper, "elsewhere"].map(|name| Pin {
                organization: id(name),
                shard: if name == "elsewhere" { "none" } else { target }.to_owned(),
            });
            let map = ShardMap::new(&all, &pins);
            let without = ShardMap::new(&all, &[]);
            for pinned in ["org_1", upper, &upper.to_ascii_lowercase()] {
                assert_eq!(all[map.index_of(&id(pinned))].name, target, "{pinned}");
            }
            for other in ["org_2", "ORG_1", "elsewhere"] {
                assert_eq!(map.index_of(&id(other)), without.index_of(&id(other)), "{other}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_queue_that_is_added_takes_organizations_and_moves_no_other(
            queues in btree_map("[a-z0-9#-]{1,8}", 1..5_u32, 2..7),
            added in any::<prop::sample::Index>(),
            organizations in vec("[ -~]{1,30}", 1..60),
        ) {
            let all = shards(queues.iter().map(|(name, weight)| (name.as_str(), *weight)));
            let added = added.index(all.len());
            let mut before = all.clone();
            before.remove(added);
            let (map, small) = (ShardMap::new(&all, &[]), ShardMap::new(&before, &[]));
            // The order of the configuration does not matter.
            let reversed: Vec<Shard> = all.iter().rev().cloned().collect();
            let reversed_map = ShardMap::new(&reversed, &[]);
            for organization in &organizations {
                let organization = id(organization);
                let name = &all[map.index_of(&organization)].name;
                prop_assert_eq!(name, &reversed[reversed_map.index_of(&organization)].name);
                if *name != all[added].name {
                    prop_assert_eq!(name, &before[small.index_of(&organization)].name);
                }
            }
        }
    }
}
