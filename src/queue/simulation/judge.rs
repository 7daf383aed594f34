//! Compares the answers of a run with what is in Redis: the promises of docs/concepts/exactly-once.md.

use crate::queue::simulation::ledger::{Answer, Ledger, Sending};
use crate::queue::simulation::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is in a Redis, by sending.
type Present = BTreeMap<usize, Vec<usize>>;

/// The promises that a run has broken.
pub(super) fn judge(world: &World) -> Vec<String> {
    let ledger = &world.ledger;
    let mut judge = Judge {
        ledger,
        faults: ledger.faults.clone(),
        // Where the documentation ends: an attempt that was held back, and a failover that has lost
        // the record which would have refused it.
        may_come_late: ledger.has_lost_withdrawal || (ledger.has_lost_late && world.clocks_vary),
        may_lose_acknowledged: world.plan.wait_replicas == 0,
        may_lose_withdrawal: world.plan.has_replica(),
    };
    let present = [0, 1].map(|server| world.jobs(server));
    for (server, present) in present.iter().enumerate() {
        let redis = &world.servers[server].redis;
        if redis.listed().collect::<BTreeSet<_>>() != redis.jobs.keys().copied().collect() {
            judge.fault(format!("server {server}: the lists and the jobs differ"));
        }
        judge.jobs(present);
        judge.keys(present);
    }
    for (id, sending) in ledger.sendings.iter().enumerate() {
        judge.answer(id, sending, &present[world.primary]);
    }
    judge.faults
}

struct Judge<'a> {
    ledger: &'a Ledger,
    faults: Vec<String>,
    may_come_late: bool,
    may_lose_acknowledged: bool,
    /// Whether there is a failover, after which the new primary may lack the record of a withdrawal.
    may_lose_withdrawal: bool,
}

impl Judge<'_> {
    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Every job once, and all jobs of a request or none.
    fn jobs(&mut self, present: &Present) {
        for (&id, jobs) in present {
            let expected: Vec<usize> = (0..self.ledger.sendings[id].jobs).collect();
            let mut sorted = jobs.clone();
            sorted.sort_unstable();
            let is_repeated = sorted.len() > expected.len() && self.may_come_late;
            if sorted != expected && !is_repeated {
                self.fault(format!("request {id}: jobs {jobs:?} of {}", expected.len()));
            }
        }
    }

    /// One request of each idempotency key.
    fn keys(&mut self, present: &Present) {
        let mut first = BTreeMap::new();
        for &id in present.keys() {
            let Some(key) = self.ledger.sendings[id].key else { continue };
            if let Some(other) = first.insert(key, id) {
                self.fault(format!("requests {other} and {id} have one idempotency key"));
            }
        }
    }

    fn answer(&mut self, id: usize, sending: &Sending, present: &Present) {
        let Some((answer, at)) = sending.answer else { return };
        // Timers are exact to a millisecond.
        if at > sending.deadline + Duration::from_millis(1) {
            let late = at - sending.deadline;
            self.fault(format!("request {id} was answered {late:?} after its deadline"));
        }
        let is_present = present.contains_key(&id);
        let is_lost = self.ledger.lost.contains(&id);
        match answer {
            Answer::Added { matched } => {
                let may_be_lost = is_lost && self.may_lose_acknowledged;
                if sending.jobs > 0 && !is_present && !may_be_lost {
                    self.fault(format!("request {id} was acknowledged and has no job"));
                }
                if matched != sending.jobs {
                    self.fault(format!("request {id} was answered {matched} jobs"));
                }
                self.acknowledged(id);
            }
            // A server without the record of a withdrawal has added the batch, which is then sent
            // alone and repeats itself.
            Answer::Repeated { matched }
                if self.may_lose_withdrawal
                    && self.is_known(id, present)
                    && matched == sending.jobs =>
            {
                self.acknowledged(id);
            }
            Answer::Repeated { matched } => {
                self.acknowledged(id);
                let is_first = |other: usize, first: &Sending| {
                    let is_same = first.key == sending.key && first.body == sending.body;
                    other != id && is_same && first.jobs == matched && self.is_known(other, present)
                };
                let mut sendings = self.ledger.sendings.iter().enumerate();
                if !sendings.any(|(other, first)| is_first(other, first)) {
                    self.fault(format!("request {id} repeats none with {matched} jobs"));
                }
                self.nothing(id, is_present, "repeats another");
            }
            Answer::KeyReused => {
                let is_first = |other: usize, first: &Sending| {
                    let is_other = first.key == sending.key && first.body != sending.body;
                    other != id && is_other && self.is_known(other, present)
                };
                let mut sendings = self.ledger.sendings.iter().enumerate();
                if !sendings.any(|(other, first)| is_first(other, first)) {
                    self.fault(format!("no other body has used the key of request {id}"));
                }
                self.nothing(id, is_present, "was refused for its key");
            }
            Answer::Nothing => self.nothing(id, is_present, "was answered none"),
            Answer::TooLarge { .. } => self.nothing(id, is_present, "was refused for its size"),
            Answer::Unknown => {}
        }
    }

    fn is_known(&self, id: usize, present: &Present) -> bool {
        present.contains_key(&id) || self.ledger.lost.contains(&id)
    }

    /// A primary has acknowledged the request, in a reply that has arrived.
    fn acknowledged(&mut self, id: usize) {
        if self.ledger.sendings[id].jobs > 0 && !self.ledger.acknowledged.contains(&id) {
            self.fault(format!("request {id} was answered without a reply of a primary"));
        }
    }

    fn nothing(&mut self, id: usize, is_present: bool, why: &str) {
        if is_present && !self.may_come_late {
            self.fault(format!("request {id} {why} and has jobs"));
        }
    }
}
