//! What processes do: they connect, number batches, and send attempts.

use super::world::{Answer, Call, Connection, Delivery, Reading, Stage, Way, World};
use super::{Protocol, server};
use crate::safeguards::Safeguard;
use std::collections::BTreeMap;

/// The keys of the values that fulfil a condition.
pub(super) fn keys_of<T>(map: &BTreeMap<u8, T>, is_meant: impl Fn(&T) -> bool) -> Vec<u8> {
    map.iter().filter(|(_, value)| is_meant(value)).map(|(key, _)| *key).collect()
}

/// The lowest number that is not a key.
pub(super) fn free<T>(map: &BTreeMap<u8, T>) -> u8 {
    (0..u8::MAX).find(|number| !map.contains_key(number)).unwrap_or(u8::MAX)
}

impl Protocol {
    pub(super) fn start(&self, world: &mut World, batch: u8) {
        let Some(started) = self.setting.batches.get(usize::from(batch)) else { return };
        world.started.insert(batch);
        let delivery = Delivery {
            process: started.process,
            requests: started.requests.clone(),
            latest: world.now + self.setting.window,
            number: None,
            deadline: None,
            is_in_doubt: false,
            broken: 0,
            refused: 0,
            way: Way::Shared,
            stage: Stage::Ready,
        };
        world.deliveries.insert(free(&world.deliveries), delivery);
    }

    /// Opens the shared connection of a process, and reads the clock of the server.
    pub(super) fn connect(world: &mut World, process: u8, server: usize) {
        let connection = open(world, process, server, false);
        if let Some(process) = world.processes.get_mut(usize::from(process)) {
            process.connection = Some(connection);
        }
    }

    /// Opens a connection for one batch, and sends the batch over it.
    pub(super) fn send_alone(&self, world: &mut World, id: u8, server: usize) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        let connection = open(world, delivery.process, server, true);
        self.send(world, id, connection);
    }

    /// Sends an attempt over this connection, or gives the batch up if it is too late for a first
    /// one.
    pub(super) fn send(&self, world: &mut World, id: u8, connection: u8) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        if !delivery.is_in_doubt && world.now >= delivery.latest {
            return Self::finish_all(world, id, Answer::Nothing);
        }
        self.renew(world, id);
        let Some(delivery) = world.deliveries.get(&id).cloned() else { return };
        let producer = producer_of(&delivery);
        let number = delivery.number.unwrap_or_else(|| open_number(world, producer));
        let Some(reading) = world.connections.get(&connection).map(|each| each.clock) else {
            return;
        };
        let deadline = delivery
            .deadline
            .unwrap_or_else(|| reading.server + delivery.latest.saturating_sub(reading.local));
        let call = Call {
            producer: world.producers.get(producer).map_or(0, |producer| producer.name),
            number,
            mark: self.mark(world, producer, number),
            deadline,
            requests: delivery.requests.clone(),
            is_withdrawal: self.is_withdrawal(&delivery),
        };
        if let Some(connection) = world.connections.get_mut(&connection) {
            connection.calls.push(call);
            connection.waiting.push(Some(id));
        }
        if let Some(delivery) = world.deliveries.get_mut(&id) {
            (delivery.number, delivery.deadline) = (Some(number), Some(deadline));
            delivery.stage = Stage::Sent(connection);
        }
    }

    /// An attempt gets a new number and a new deadline if no earlier one is in doubt.
    fn renew(&self, world: &mut World, id: u8) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        let is_new = !delivery.is_in_doubt;
        let is_numbered_again = is_new || !self.has(Safeguard::SameNumber);
        let is_dated_again = is_new || !self.has(Safeguard::OneDeadline);
        if is_numbered_again {
            close_number(world, id);
        }
        if let Some(delivery) = world.deliveries.get_mut(&id).filter(|_| is_dated_again) {
            delivery.deadline = None;
        }
    }

    fn is_withdrawal(&self, delivery: &Delivery) -> bool {
        match delivery.way {
            Way::Shared => delivery.broken >= self.setting.suspect_after,
            Way::Alone { .. } => false,
            Way::Withdrawn { .. } => true,
        }
    }

    fn mark(&self, world: &World, producer: usize, number: u8) -> u8 {
        let open = world.producers.get(producer).and_then(|producer| producer.open.first());
        match open {
            Some(oldest) if self.has(Safeguard::MarkBelowOpen) => oldest - 1,
            _ => number - 1,
        }
    }

    /// Answers every caller of a batch.
    pub(super) fn finish_all(world: &mut World, id: u8, answer: Answer) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        for request in delivery.requests.clone() {
            set_answer(world, request, answer);
        }
        Self::end(world, id);
    }

    /// Ends a delivery. Its replies are read and ignored.
    pub(super) fn end(world: &mut World, id: u8) {
        close_number(world, id);
        let Some(delivery) = world.deliveries.remove(&id) else { return };
        for connection in world.connections.values_mut() {
            for waiting in connection.waiting.iter_mut().filter(|waiting| **waiting == Some(id)) {
                *waiting = None;
            }
        }
        if matches!(delivery.way, Way::Alone { .. }) {
            Self::close_own(world, &delivery.stage);
        }
        Self::close_drained(world);
    }

    /// The answer if Redis could not be asked.
    pub(super) fn give_up(&self, world: &mut World, id: u8) {
        let Some(delivery) = world.deliveries.get(&id) else { return };
        let is_unknown = delivery.is_in_doubt || matches!(delivery.stage, Stage::Sent(_));
        let is_unknown = is_unknown && self.has(Safeguard::UnknownAfterLoss);
        Self::finish_all(world, id, if is_unknown { Answer::Unknown } else { Answer::Nothing });
    }

    pub(super) fn restart(&self, world: &mut World, process: u8) {
        for id in keys_of(&world.deliveries, |each| each.process == process) {
            Self::finish_all(world, id, Answer::Unanswered);
        }
        for connection in keys_of(&world.connections, |each| each.process == process) {
            Self::close(world, connection);
        }
        let names = world.producers.iter().map(|producer| producer.name).max().unwrap_or(0) + 1;
        let own = 2 * usize::from(process);
        let producers = world.producers.iter_mut().skip(own);
        for ((producer, is_alone), name) in producers.zip([false, true]).zip(names..) {
            let name = if self.has(Safeguard::FreshProducer) { name } else { producer.name };
            *producer = self.producer(name, is_alone);
        }
        world.left.restarts -= 1;
    }
}

pub(super) fn set_answer(world: &mut World, request: u8, answer: Answer) {
    if let Some(each) = world.answers.get_mut(usize::from(request)) {
        *each = Some(answer);
    }
}

/// The number of a batch is done with.
pub(super) fn close_number(world: &mut World, id: u8) {
    let Some(delivery) = world.deliveries.get_mut(&id) else { return };
    let (producer, number) = (producer_of(delivery), delivery.number.take());
    if let (Some(producer), Some(number)) = (world.producers.get_mut(producer), number) {
        producer.open.remove(&number);
    }
}

fn open_number(world: &mut World, producer: usize) -> u8 {
    let Some(producer) = world.producers.get_mut(producer) else { return 0 };
    producer.last += 1;
    producer.open.insert(producer.last);
    producer.last
}

/// The producer of a process that sends this batch.
pub(super) fn producer_of(delivery: &Delivery) -> usize {
    let is_alone = !matches!(delivery.way, Way::Shared);
    2 * usize::from(delivery.process) + usize::from(is_alone)
}

fn open(world: &mut World, process: u8, server: usize, is_alone: bool) -> u8 {
    let id = free(&world.connections);
    let connection = Connection {
        process,
        is_alone,
        server,
        is_closing: false,
        clock: Reading { server: server::clock(world, server), local: world.now },
        calls: Vec::new(),
        replies: Vec::new(),
        waiting: Vec::new(),
        written: 0,
    };
    world.connections.insert(id, connection);
    id
}
