//! What must never happen, by the number of the promise.

use super::Protocol;
use super::world::{Answer, World};
use std::fmt::{self, Display, Formatter};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Property {
    /// 7.1: the primary has acknowledged every job of a 202.
    Acknowledged,
    /// 7.1: the jobs of a 202 stay in Redis, whatever server is the primary.
    Kept,
    /// 7.2: no job is there twice for one request.
    Once,
    /// 7.3: the jobs of a request are there together.
    Whole,
    /// 7.4: nothing of a request is there after `none`.
    None,
    /// 7.4: nothing is added after any 503.
    NotLater,
    /// Idempotency: a key adds the jobs of one request.
    KeyOnce,
    /// Idempotency: a repeat and a 422 are true.
    KeyTrue,
    /// An attempt of an open batch is never refused as stale.
    Open,
}

impl Property {
    pub const ALL: [Self; 9] = [
        Self::Acknowledged,
        Self::Kept,
        Self::Once,
        Self::Whole,
        Self::None,
        Self::NotLater,
        Self::KeyOnce,
        Self::KeyTrue,
        Self::Open,
    ];
}

impl Display for Property {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Acknowledged => "7.1 a 202 has all its jobs, acknowledged by the primary",
            Self::Kept => "7.1 the jobs of a 202 outlive a failover",
            Self::Once => "7.2 no job twice for one request",
            Self::Whole => "7.3 no part of a request",
            Self::None => "7.4 nothing of a request after 503 none",
            Self::NotLater => "7.4 nothing is added after a 503",
            Self::KeyOnce => "idempotency: one execution per key",
            Self::KeyTrue => "idempotency: a repeated answer is that of an execution",
            Self::Open => "an open batch is never stale",
        })
    }
}

impl Protocol {
    pub(super) fn broken_properties(&self, world: &World) -> Vec<Property> {
        let mut broken: Vec<Property> = world.violated.iter().copied().collect();
        for (request, _) in (0_u8..).zip(&world.answers) {
            self.check_request(world, request, &mut broken);
        }
        if self.has_key_twice(world) {
            broken.push(Property::KeyOnce);
        }
        broken.dedup();
        broken
    }

    fn check_request(&self, world: &World, request: u8, broken: &mut Vec<Property>) {
        let mut jobs = world.jobs(request);
        let count = jobs.len();
        jobs.sort_unstable();
        jobs.dedup();
        let expected = self.request(request).map_or(0, |request| usize::from(request.jobs));
        if count > jobs.len() {
            broken.push(Property::Once);
        }
        if !jobs.is_empty() && jobs.len() < expected {
            broken.push(Property::Whole);
        }
        match world.answers.get(usize::from(request)).copied().flatten() {
            Some(Answer::Nothing) if count > 0 => broken.push(Property::None),
            Some(Answer::Accepted { repeats, epoch }) => {
                let added = repeats.unwrap_or(request);
                if !self.is_complete(world, added) {
                    if epoch == world.epoch {
                        broken.push(Property::Acknowledged);
                    }
                    broken.push(Property::Kept);
                }
            }
            _ => {}
        }
    }

    /// Whether the primary has all jobs of a request.
    pub(super) fn is_complete(&self, world: &World, request: u8) -> bool {
        let mut jobs = world.jobs(request);
        jobs.sort_unstable();
        jobs.dedup();
        self.request(request).is_some_and(|request| usize::from(request.jobs) == jobs.len())
    }

    fn has_key_twice(&self, world: &World) -> bool {
        let keys = self.setting.requests.iter().zip(0_u8..).filter_map(|(request, index)| {
            let (key, _) = request.key?;
            (!world.jobs(index).is_empty()).then_some(key)
        });
        let mut keys: Vec<u8> = keys.collect();
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        keys.len() < count
    }
}
