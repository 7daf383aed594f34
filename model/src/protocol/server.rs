//! What servers do: they execute calls, replicate, fail over, and have clocks that step.

use super::Protocol;
use super::batches::producer_key;
use super::properties::Property;
use super::world::{Answer, Call, Moment, Reply, Server, World, jobs};
use crate::safeguards::Safeguard;
use crate::script::{BatchResult, RedisError, Refusal};
use std::sync::Arc;

impl Protocol {
    /// Executes a call.
    pub(super) fn execute(&self, world: &mut World, server: usize, call: &Call) -> Reply {
        let clock = clock(world, server);
        let before = added(world, server, call);
        let (is_writing, result) = self.add_jobs(world.server(server), clock, call);
        if is_writing && self.has_replica() {
            world.server(server).written += 1;
        }
        if server == world.primary {
            let after = added(world, server, call);
            note_late_jobs(world, call, &before, &after);
        }
        if result == Ok(BatchResult::Stale) && is_open(world, call) {
            world.violated.insert(Property::Open);
        }
        let result = result.map_err(|error| error == RedisError::Refused(Refusal::ReadOnly));
        Reply {
            number: call.number,
            clock,
            result,
            is_write: is_writing && self.has_replica(),
            epoch: world.epoch,
        }
    }

    /// Runs the script, and returns whether it has written and what it has replied.
    fn add_jobs(
        &self,
        server: &mut Server,
        clock: Moment,
        call: &Call,
    ) -> (bool, Result<BatchResult, RedisError>) {
        let record = server.redis.producers.get(&producer_key(call.producer));
        let recorded = record.and_then(|record| record.result(call.number.into())).is_some();
        let batch = self.script_batch(call);
        let redis = Arc::make_mut(&mut server.redis);
        let reply = redis.add_jobs(clock.into(), &batch, self.setting.safeguards);
        let result = reply.map(|reply| reply.result);
        let is_writing = match result {
            Ok(BatchResult::Stale) | Err(_) => false,
            Ok(_) => !recorded || self.has(Safeguard::ProofOfPrimary),
        };
        (is_writing, result)
    }

    /// The replica now has what the primary has.
    pub(super) fn replicate(world: &mut World) {
        let primary = world.primary;
        let (redis, written) = {
            let primary = world.server(primary);
            (Arc::clone(&primary.redis), primary.written)
        };
        let mut redis = redis.as_ref().clone();
        (redis.refusal, redis.forbidden) = (Some(Refusal::ReadOnly), None);
        let replica = world.server(1 - primary);
        (replica.redis, replica.written) = (Arc::new(redis), written);
    }

    pub(super) fn fail_over(&self, world: &mut World) {
        if !self.setting.has_two_primaries {
            let old = world.primary;
            Arc::make_mut(&mut world.server(old).redis).refusal = Some(Refusal::ReadOnly);
        }
        world.primary = 1 - world.primary;
        let primary = world.primary;
        Arc::make_mut(&mut world.server(primary).redis).refusal = None;
        world.epoch += 1;
        world.left.failovers -= 1;
    }

    /// Every record is gone: evicted, flushed or expired.
    pub(super) fn forget(world: &mut World) {
        let primary = world.primary;
        let redis = Arc::make_mut(&mut world.server(primary).redis);
        redis.producers.clear();
        redis.idempotency.clear();
        world.left.forgotten -= 1;
    }
}

/// The time on the clock of a server.
pub(super) fn clock(world: &World, server: usize) -> Moment {
    let [first, second] = &world.servers;
    world.now + if server == 0 { first.ahead } else { second.ahead }
}

/// For each request of a call the number of its jobs that this server has.
fn added(world: &World, server: usize, call: &Call) -> Vec<usize> {
    let [first, second] = &world.servers;
    let redis = if server == 0 { &first.redis } else { &second.redis };
    call.requests.iter().map(|request| jobs(redis, *request).len()).collect()
}

fn note_late_jobs(world: &mut World, call: &Call, before: &[usize], after: &[usize]) {
    for ((request, before), after) in call.requests.iter().zip(before).zip(after) {
        let answer = world.answers.get(usize::from(*request)).copied().flatten();
        let is_refused = matches!(answer, Some(Answer::Nothing | Answer::Unknown));
        if after > before && is_refused {
            world.violated.insert(Property::NotLater);
        }
    }
}

fn is_open(world: &World, call: &Call) -> bool {
    let mut producers = world.producers.iter();
    producers.any(|producer| producer.name == call.producer && producer.open.contains(&call.number))
}
