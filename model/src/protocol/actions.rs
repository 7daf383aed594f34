//! Everything that can happen next.

use super::client::producer_of;
use super::world::{Answer, Delivery, Stage, Way, World};
use super::{ALONE, Protocol};
use crate::safeguards::Safeguard;
use crate::script::{BatchResult, Command, Refusal};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A moment passes.
    Tick,
    /// A process starts to deliver a batch.
    Start(u8),
    Connect {
        process: u8,
        server: usize,
    },
    Send {
        delivery: u8,
        connection: u8,
    },
    /// A batch is sent over a connection of its own.
    SendAlone {
        delivery: u8,
        server: usize,
    },
    GiveUp(u8),
    /// The server executes the next call of a connection.
    Arrive(u8),
    /// A server executes the next call of a lost connection.
    ArriveLate(usize),
    /// The process reads the next reply of a connection.
    Receive(u8),
    /// WAIT reports that the replica has the jobs of a batch, or not in time.
    Replicated(u8),
    NotReplicated(u8),
    Replicate,
    Lose(u8),
    SetForward,
    SetBack,
    FailOver,
    Forget,
    /// The primary refuses this command; `None`: it is full.
    Refuse(Option<Command>),
    Accept,
    /// A connection loses its next reply.
    Shift(u8),
    Restart(u8),
}

/// A batch that was refused this often is not sent again.
const MOST_REFUSALS: u8 = 2;

impl Protocol {
    pub(super) fn possible_actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::with_capacity(16);
        self.add_starts(world, &mut actions);
        for (id, delivery) in &world.deliveries {
            self.add_steps(world, *id, delivery, &mut actions);
        }
        Self::add_network(world, &mut actions);
        self.add_servers(world, &mut actions);
        if world.now < self.setting.horizon {
            actions.push(Action::Tick);
        }
        actions
    }

    fn add_starts(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, batch) in (0_u8..).zip(&self.setting.batches) {
            let is_repeat =
                batch.requests.iter().filter_map(|request| self.request(*request)?.repeats);
            let may_repeat = |request: u8| {
                let answer = world.answers.get(usize::from(request)).copied().flatten();
                answer.is_some_and(|answer| !matches!(answer, Answer::Accepted { .. }))
            };
            let is_possible = is_repeat.into_iter().all(may_repeat);
            if is_possible && !world.started.contains(&number) {
                actions.push(Action::Start(number));
            }
        }
        for (process, state) in (0_u8..).zip(&world.processes) {
            let mut connections = world.connections.values();
            let is_open = connections.any(|each| each.process == process && !each.is_alone);
            let needs_one = world.deliveries.values().any(|each| each.process == process);
            if state.connection.is_none() && !is_open && needs_one {
                for server in reachable(world) {
                    actions.push(Action::Connect { process, server });
                }
            }
        }
    }

    fn add_steps(&self, world: &World, id: u8, delivery: &Delivery, actions: &mut Vec<Action>) {
        match delivery.stage {
            Stage::Ready => self.add_sends(world, id, delivery, actions),
            Stage::Sent(_) if world.now > delivery.latest => actions.push(Action::GiveUp(id)),
            Stage::Sent(_) => {}
            Stage::Replicating { connection, written, .. } => {
                let server = world.connections.get(&connection).map(|each| each.server);
                let is_primary = server == Some(world.primary);
                let [first, second] = &world.servers;
                let replica = if world.primary == 0 { second } else { first };
                if is_primary && replica.written >= written {
                    actions.push(Action::Replicated(id));
                }
                if !is_primary || world.now >= delivery.latest {
                    actions.push(Action::NotReplicated(id));
                }
            }
        }
    }

    fn add_sends(&self, world: &World, id: u8, delivery: &Delivery, actions: &mut Vec<Action>) {
        let is_late = world.now >= delivery.latest;
        if let Way::Alone { .. } = delivery.way {
            if is_late {
                actions.push(Action::GiveUp(id));
            } else if self.has_numbers_left(world, delivery) {
                let servers = reachable(world);
                actions.extend(servers.map(|server| Action::SendAlone { delivery: id, server }));
            }
            return;
        }
        let shared = world.processes.get(usize::from(delivery.process));
        let usable = shared.and_then(|process| process.connection).filter(|connection| {
            world.connections.get(connection).is_some_and(|connection| !connection.is_closing)
        });
        // A process never stops to ask. The search lets it, because each refusal may use up ids.
        let is_tired = delivery.refused >= MOST_REFUSALS;
        let is_over = matches!(delivery.way, Way::Withdrawn { .. }) && world.now > delivery.latest;
        if is_late && (is_tired || is_over || usable.is_none()) {
            actions.push(Action::GiveUp(id));
        }
        if let Some(connection) = usable.filter(|_| !is_tired)
            && (is_late || self.has_numbers_left(world, delivery))
        {
            actions.push(Action::Send { delivery: id, connection });
        }
    }

    /// Whether the bound of the search allows a new number, if the batch needs one.
    fn has_numbers_left(&self, world: &World, delivery: &Delivery) -> bool {
        let needs_none = delivery.is_in_doubt && self.has(Safeguard::SameNumber);
        let producer = world.producers.get(producer_of(delivery));
        needs_none
            || producer.is_some_and(|producer| producer.last % ALONE < self.setting.most_numbers)
    }

    fn add_network(world: &World, actions: &mut Vec<Action>) {
        for (id, connection) in &world.connections {
            if !connection.calls.is_empty() {
                actions.push(Action::Arrive(*id));
            }
            if !connection.replies.is_empty() {
                actions.push(Action::Receive(*id));
                if world.left.shifts > 0 {
                    actions.push(Action::Shift(*id));
                }
            }
            if world.left.losses > 0 {
                actions.push(Action::Lose(*id));
            }
        }
        actions.extend((0..world.held.len()).map(Action::ArriveLate));
    }

    fn add_servers(&self, world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        let mut add = |is_possible: bool, action| {
            if is_possible {
                actions.push(action);
            }
        };
        add(left.forward > 0, Action::SetForward);
        add(left.back > 0, Action::SetBack);
        add(left.failovers > 0, Action::FailOver);
        add(left.forgotten > 0, Action::Forget);
        let redis = world.redis();
        let is_refusing = redis.forbidden.is_some() || redis.refusal.is_some();
        add(is_refusing, Action::Accept);
        add(self.has_replica() && !is_replicated(world), Action::Replicate);
        if left.refusals > 0 && !is_refusing {
            add(true, Action::Refuse(None));
            for command in &self.setting.refusable {
                add(true, Action::Refuse(Some(*command)));
            }
        }
        if left.restarts > 0 {
            for process in 0..self.setting.processes {
                add(true, Action::Restart(process));
            }
        }
    }

    pub(super) fn act(&self, world: &mut World, action: Action) {
        match action {
            Action::Tick => world.now += 1,
            Action::Start(batch) => self.start(world, batch),
            Action::Connect { process, server } => Self::connect(world, process, server),
            Action::Send { delivery, connection } => self.send(world, delivery, connection),
            Action::SendAlone { delivery, server } => self.send_alone(world, delivery, server),
            Action::GiveUp(delivery) => self.give_up(world, delivery),
            Action::Arrive(connection) => self.arrive(world, connection),
            Action::ArriveLate(position) => self.arrive_late(world, position),
            Action::Receive(connection) => self.receive(world, connection),
            Action::Replicated(delivery) => self.replicated(world, delivery),
            Action::NotReplicated(delivery) => self.not_replicated(world, delivery),
            Action::Replicate => Self::replicate(world),
            Action::Lose(connection) => {
                world.left.losses -= 1;
                self.lose(world, connection);
            }
            Action::SetForward | Action::SetBack => set_clock(world, action),
            Action::FailOver => self.fail_over(world),
            Action::Forget => Self::forget(world),
            Action::Refuse(_) | Action::Accept => set_refusal(world, action),
            Action::Shift(connection) => shift(world, connection),
            Action::Restart(process) => self.restart(world, process),
        }
    }

    fn arrive(&self, world: &mut World, id: u8) {
        let Some(connection) = world.connections.get_mut(&id) else { return };
        let (call, server) = (connection.calls.remove(0), connection.server);
        let reply = self.execute(world, server, &call);
        let written = world.server(server).written;
        if let Some(connection) = world.connections.get_mut(&id) {
            if reply.is_write {
                connection.written = written;
            }
            connection.replies.push(reply);
        }
    }

    fn arrive_late(&self, world: &mut World, position: usize) {
        let mut held = world.held.remove(position);
        let call = held.calls.remove(0);
        let server = held.server;
        if !held.calls.is_empty() {
            world.held.push(held);
            world.held.sort_unstable();
        }
        self.execute(world, server, &call);
    }

    fn replicated(&self, world: &mut World, id: u8) {
        if let Some((result, epoch)) = replicating(world, id) {
            self.settle(world, id, &result, epoch);
        }
    }

    fn not_replicated(&self, world: &mut World, id: u8) {
        if self.has(Safeguard::UnknownWithoutReplicas) {
            Self::finish_all(world, id, Answer::Unknown);
        } else {
            self.replicated(world, id);
        }
    }
}

fn replicating(world: &World, id: u8) -> Option<(BatchResult, u8)> {
    match &world.deliveries.get(&id)?.stage {
        Stage::Replicating { result, epoch, .. } => Some((result.clone(), *epoch)),
        Stage::Ready | Stage::Sent(_) => None,
    }
}

/// The servers that a process may take for the primary.
fn reachable(world: &World) -> impl Iterator<Item = usize> {
    let old = (world.epoch > 0).then_some(1 - world.primary);
    [world.primary].into_iter().chain(old)
}

fn is_replicated(world: &World) -> bool {
    let [first, second] = &world.servers;
    let same = |left: &crate::script::Redis, right: &crate::script::Redis| {
        left.producers == right.producers
            && left.wait == right.wait
            && left.idempotency == right.idempotency
            && left.last_id == right.last_id
    };
    same(&first.redis, &second.redis) && first.written == second.written
}

fn set_clock(world: &mut World, action: Action) {
    let primary = world.primary;
    let server = world.server(primary);
    if action == Action::SetForward {
        server.ahead += 1;
        world.left.forward -= 1;
    } else {
        server.ahead -= 1;
        world.left.back -= 1;
    }
}

fn set_refusal(world: &mut World, action: Action) {
    let primary = world.primary;
    let redis = Arc::make_mut(&mut world.server(primary).redis);
    match action {
        Action::Refuse(None) => redis.refusal = Some(Refusal::OutOfMemory),
        Action::Refuse(command) => redis.forbidden = command,
        _ => (redis.refusal, redis.forbidden) = (None, None),
    }
    if let Action::Refuse(_) = action {
        world.left.refusals -= 1;
    }
}

fn shift(world: &mut World, id: u8) {
    if let Some(connection) = world.connections.get_mut(&id) {
        connection.replies.remove(0);
    }
    world.left.shifts -= 1;
}
