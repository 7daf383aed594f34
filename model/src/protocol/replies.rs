//! What processes make of replies.

use super::Protocol;
use super::batches::{fingerprint, idempotency_key};
use super::client::{close_number, free, set_answer};
use super::properties::Property;
use super::world::{Answer, Delivery, Reading, Reply, Stage, Way, World};
use crate::safeguards::Safeguard;
use crate::script::{BatchResult, KeyRecord, Outcome};
use std::sync::Arc;

impl Protocol {
    /// The process reads the next reply of a connection, for the call that waits longest.
    pub(super) fn receive(&self, world: &mut World, connection: u8) {
        let now = world.now;
        let Some(open) = world.connections.get_mut(&connection) else { return };
        let (reply, waiting) = (open.replies.remove(0), open.waiting.remove(0));
        let is_alone = open.is_alone;
        if let Some(id) = waiting {
            let number = world.deliveries.get(&id).and_then(|delivery| delivery.number);
            let is_foreign = reply.result.is_ok() && number != Some(reply.number);
            if is_foreign && self.has(Safeguard::NumberInReply) {
                self.distrust(world, id, connection);
            } else {
                if reply.result.is_ok() {
                    open.clock = Reading { server: reply.clock, local: now };
                }
                self.interpret(world, id, connection, reply);
            }
        }
        let is_done = |each: &Delivery| !matches!(each.stage, Stage::Replicating { connection: other, .. } if other == connection);
        if is_alone && world.deliveries.values().all(is_done) {
            Self::close(world, connection);
        }
        Self::close_drained(world);
    }

    /// After a wrong reply, no other reply of the connection can be trusted.
    fn distrust(&self, world: &mut World, id: u8, connection: u8) {
        self.lost(world, id, false);
        self.lose(world, connection);
    }

    fn interpret(&self, world: &mut World, id: u8, connection: u8, reply: Reply) {
        match reply.result {
            Err(is_read_only) => self.refused(world, id, connection, is_read_only),
            Ok(BatchResult::Stale) => self.distrust(world, id, connection),
            Ok(BatchResult::Late) => Self::late(world, id, connection),
            Ok(BatchResult::Withdrawn) => Self::withdrawn(world, id, connection),
            Ok(result) => {
                let requests = world.deliveries.get(&id).map_or(0, |each| each.requests.len());
                if matches!(&result, BatchResult::Outcomes(all) if all.len() != requests) {
                    self.distrust(world, id, connection);
                } else if self.setting.waits_for_replica {
                    let written = world.connections.get(&connection).map_or(0, |each| each.written);
                    let epoch = reply.epoch;
                    set_stage(world, id, Stage::Replicating { connection, written, result, epoch });
                } else {
                    self.settle(world, id, &result, reply.epoch);
                }
            }
        }
    }

    fn refused(&self, world: &mut World, id: u8, connection: u8, is_read_only: bool) {
        if let Some(connection) = world.connections.get_mut(&connection).filter(|_| is_read_only) {
            connection.is_closing = true;
        }
        let is_forgotten = !self.has(Safeguard::RefusalInDoubt);
        let Some(delivery) = world.deliveries.get_mut(&id) else { return };
        delivery.refused += 1;
        match &mut delivery.way {
            Way::Shared => delivery.is_in_doubt &= !is_forgotten,
            Way::Alone { .. } => {}
            Way::Withdrawn { witness } => *witness = None,
        }
        delivery.stage = Stage::Ready;
    }

    fn late(world: &mut World, id: u8, connection: u8) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        match delivery.way {
            Way::Shared if delivery.is_in_doubt => Self::finish_all(world, id, Answer::Nothing),
            Way::Shared | Way::Alone { .. } => set_stage(world, id, Stage::Ready),
            Way::Withdrawn { .. } => Self::withdrawn(world, id, connection),
        }
    }

    fn withdrawn(world: &mut World, id: u8, connection: u8) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        match delivery.way {
            Way::Alone { .. } => set_stage(world, id, Stage::Ready),
            Way::Withdrawn { witness } if witness == Some(connection) => Self::blame(world, id),
            Way::Shared | Way::Withdrawn { .. } => Self::suspect(world, id),
        }
    }

    /// The batch breaks connections. Its halves are sent alone until one request is left.
    fn blame(world: &mut World, id: u8) {
        close_number(world, id);
        let Some(delivery) = world.deliveries.get(&id).cloned() else { return };
        if delivery.requests.len() < 2 {
            return Self::finish_all(world, id, Answer::Nothing);
        }
        world.deliveries.remove(&id);
        let (first, second) = delivery.requests.split_at(delivery.requests.len() / 2);
        for part in [first, second] {
            let half = Delivery { requests: part.to_vec(), ..delivery.clone() };
            let number = free(&world.deliveries);
            world.deliveries.insert(number, half);
            Self::suspect(world, number);
        }
    }

    /// Answers each caller by the outcome of its request.
    pub(super) fn settle(&self, world: &mut World, id: u8, result: &BatchResult, epoch: u8) {
        let Some(delivery) = world.deliveries.get(&id).cloned() else { return };
        for (position, request) in delivery.requests.iter().enumerate() {
            let outcome = match result {
                BatchResult::Outcomes(outcomes) => outcomes.get(position).copied(),
                _ => Some(Outcome::Added),
            };
            let answer = match outcome {
                Some(Outcome::Added) => Answer::Accepted { repeats: None, epoch },
                Some(Outcome::Repeated(jobs)) => self.repeated(world, *request, jobs, epoch),
                Some(Outcome::KeyReused) => self.key_reused(world, *request, epoch),
                Some(Outcome::KeyConflict) | None => Answer::Nothing,
            };
            set_answer(world, *request, answer);
            self.record_key_apart(world, *request, outcome);
        }
        Self::end(world, id);
    }

    /// The answer to a repeat, which must be that of an execution.
    fn repeated(&self, world: &mut World, request: u8, jobs: u64, epoch: u8) -> Answer {
        let key = self.request(request).and_then(|request| request.key);
        let mut requests = (0_u8..).zip(&self.setting.requests);
        let first = requests.find(|(number, first)| {
            first.key == key
                && jobs > 0
                && u64::from(first.jobs) == jobs
                && self.is_complete(world, *number)
        });
        let first = first.map(|(number, _)| number);
        if first.is_none() {
            let is_lost = epoch < world.epoch;
            world.violated.insert(if is_lost { Property::Kept } else { Property::KeyTrue });
        }
        Answer::Accepted { repeats: Some(first.unwrap_or(request)), epoch }
    }

    /// A 422, for which there must be the jobs of another body.
    fn key_reused(&self, world: &mut World, request: u8, epoch: u8) -> Answer {
        let own = self.request(request).and_then(|request| request.key);
        let is_other = |other: &super::Request| {
            own.zip(other.key)
                .is_some_and(|((own, body), (key, other))| own == key && body != other)
        };
        let mut others = (0_u8..).zip(&self.setting.requests).filter(|(_, other)| is_other(other));
        let is_true = others.any(|(number, _)| !world.jobs(number).is_empty());
        if !is_true && epoch == world.epoch {
            world.violated.insert(Property::KeyTrue);
        }
        Answer::KeyReused
    }

    /// Without its safeguard, the process records a key once it knows that the jobs were added.
    fn record_key_apart(&self, world: &mut World, request: u8, outcome: Option<Outcome>) {
        let Some((request, (key, body))) =
            self.request(request).and_then(|request| Some((request, request.key?)))
        else {
            return;
        };
        if outcome == Some(Outcome::Added) && !self.has(Safeguard::KeyInSameStep) {
            let (fingerprint, jobs) = (fingerprint(body), request.jobs.into());
            let primary = world.primary;
            let redis = Arc::make_mut(&mut world.server(primary).redis);
            let record = KeyRecord { fingerprint, jobs, expires_at: u64::MAX };
            redis.idempotency.insert(idempotency_key(key), record);
        }
    }
}

fn set_stage(world: &mut World, id: u8, stage: Stage) {
    if let Some(delivery) = world.deliveries.get_mut(&id) {
        delivery.stage = stage;
    }
}
