//! The protocol by which batches reach Redis, as a system to search: processes that send attempts,
//! connections that break, servers that fail over, and clocks that step.
//!
//! The servers execute the model of the script. The processes do what `src/queue/batch/delivery.rs`
//! and `isolation.rs` do. Time has few moments: a batch may be executed before its `latest` moment,
//! and its callers are answered one moment later at the latest. Whatever may happen may happen at
//! any moment, so a slow process or network is a part of the search.
//!
//! What a search leaves out: how requests are put in batches, the way to the right server, and the
//! size of requests. Refusals are all treated as momentary; a process that gives up at once answers
//! what one does that gives up later.

mod actions;
mod batches;
mod client;
mod describe;
mod failures;
mod properties;
mod replies;
mod server;
mod setting;
mod world;

#[cfg(test)]
mod assumptions;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod sizes;

pub use actions::Action;
pub use properties::Property;
pub use setting::{Batch, Faults, Request, Setting};
pub use world::World;

use crate::safeguards::Safeguard;
use crate::script::{Keys, Redis, Refusal, Text};
use crate::search::System;
use describe::describe;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::{Producer, Server};

/// The clock of a server is ahead of the local one by this much, so that it can be set back.
const AHEAD: u8 = 8;

/// The numbers of the producer of batches that are sent alone are above this one.
const ALONE: u8 = 100;

/// The protocol at some size.
#[derive(Debug)]
pub struct Protocol {
    setting: Setting,
    keys: Keys,
}

impl Protocol {
    pub fn new(setting: Setting) -> Self {
        let [wait, paused, meta, id, events, marker, active] =
            ["wait", "paused", "meta", "id", "events", "marker", "active"].map(Text::from);
        let (producer, job_prefix) = (Text::from(""), Text::from(""));
        let keys = Keys { wait, paused, meta, id, events, marker, active, producer, job_prefix };
        Self { setting, keys }
    }

    fn has(&self, safeguard: Safeguard) -> bool {
        self.setting.safeguards.has(safeguard)
    }

    fn request(&self, request: u8) -> Option<&Request> {
        self.setting.requests.get(usize::from(request))
    }

    /// A producer that has not numbered a batch yet.
    fn producer(&self, name: u8, is_alone: bool) -> Producer {
        let is_apart = is_alone && self.has(Safeguard::NumbersApart);
        Producer { name, last: if is_apart { ALONE } else { 0 }, open: BTreeSet::new() }
    }

    /// Whether a replica matters.
    fn has_replica(&self) -> bool {
        self.setting.faults.failovers > 0 || self.setting.waits_for_replica
    }
}

impl System for Protocol {
    type State = World;
    type Action = Action;
    type Property = Property;

    fn initial(&self) -> World {
        let held_jobs = self.setting.held_jobs.iter();
        let held_keys = held_jobs.map(|id| Text::from(id.to_string())).collect();
        let redis = Redis { held_keys, ..Redis::default() };
        let replica = Redis { refusal: Some(Refusal::ReadOnly), ..redis.clone() };
        let server = |redis, ahead| Server { redis: Arc::new(redis), ahead, written: 0 };
        let producers =
            (0..2 * self.setting.processes).map(|name| self.producer(name, name % 2 > 0));
        World {
            now: 0,
            servers: [
                server(redis, AHEAD),
                server(replica, AHEAD - self.setting.replica_is_slow_by),
            ],
            primary: 0,
            epoch: 0,
            processes: vec![world::Process::default(); usize::from(self.setting.processes)],
            producers: producers.collect(),
            connections: BTreeMap::new(),
            held: Vec::new(),
            deliveries: BTreeMap::new(),
            started: BTreeSet::new(),
            answers: vec![None; self.setting.requests.len()],
            violated: BTreeSet::new(),
            left: self.setting.faults,
        }
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        self.possible_actions(world)
    }

    fn next(&self, world: &World, action: &Action) -> World {
        let mut next = world.clone();
        self.act(&mut next, *action);
        next
    }

    fn describe(&self, before: &World, action: &Action, after: &World) -> String {
        describe(before, *action, after)
    }

    fn violated(&self, world: &World) -> Vec<Property> {
        self.broken_properties(world)
    }
}
