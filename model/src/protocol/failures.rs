//! Connections that end.

use super::Protocol;
use super::client::{close_number, keys_of};
use super::world::{HeldCalls, Stage, Way, World};
use crate::safeguards::Safeguard;

impl Protocol {
    /// A connection breaks: every batch that waits on it is in doubt.
    pub(super) fn lose(&self, world: &mut World, connection: u8) {
        let waiting = waiting_on(world, connection);
        Self::close(world, connection);
        for id in waiting {
            self.lost(world, id, true);
        }
    }

    /// The outcome of an attempt is not known. `is_broken`: because its connection broke.
    pub(super) fn lost(&self, world: &mut World, id: u8, is_broken: bool) {
        let Some(delivery) = world.deliveries.get_mut(&id) else { return };
        delivery.is_in_doubt = true;
        delivery.stage = Stage::Ready;
        match &mut delivery.way {
            Way::Shared => delivery.broken += u8::from(is_broken),
            Way::Alone { witness } => {
                let witness = witness.filter(|_| is_broken);
                delivery.way = Way::Withdrawn { witness };
            }
            Way::Withdrawn { witness } => *witness = None,
        }
        if delivery.broken >= self.setting.suspect_after && !self.has(Safeguard::WithdrawnFirst) {
            Self::suspect(world, id);
        }
    }

    /// Removes a connection. What was sent over it may still arrive.
    pub(super) fn close(world: &mut World, id: u8) {
        let Some(connection) = world.connections.remove(&id) else { return };
        if !connection.calls.is_empty() {
            world.held.push(HeldCalls { server: connection.server, calls: connection.calls });
            world.held.sort_unstable();
        }
        for process in &mut world.processes {
            process.connection = process.connection.filter(|own| *own != id);
        }
        for delivery in world.deliveries.values_mut() {
            if let Way::Alone { witness } | Way::Withdrawn { witness } = &mut delivery.way {
                *witness = witness.filter(|own| *own != id);
            }
        }
    }

    /// Closes the connection that only this batch uses.
    pub(super) fn close_own(world: &mut World, stage: &Stage) {
        if let Stage::Sent(connection) | Stage::Replicating { connection, .. } = stage
            && world.connections.get(connection).is_some_and(|connection| connection.is_alone)
        {
            Self::close(world, *connection);
        }
    }

    /// Closes the connections that are being replaced and that no call waits on.
    pub(super) fn close_drained(world: &mut World) {
        for id in keys_of(&world.connections, |connection| connection.is_closing) {
            if waiting_on(world, id).is_empty() {
                Self::close(world, id);
            }
        }
    }

    /// The batch is sent alone from now on.
    pub(super) fn suspect(world: &mut World, id: u8) {
        close_number(world, id);
        let Some(delivery) = world.deliveries.get_mut(&id) else { return };
        let shared = world.processes.get(usize::from(delivery.process));
        let witness = shared.and_then(|process| process.connection);
        (delivery.is_in_doubt, delivery.deadline) = (false, None);
        (delivery.way, delivery.stage) = (Way::Alone { witness }, Stage::Ready);
        Self::close_drained(world);
    }
}

/// The batches that wait for a reply on this connection, or for the replica.
fn waiting_on(world: &World, id: u8) -> Vec<u8> {
    keys_of(&world.deliveries, |delivery| match delivery.stage {
        Stage::Sent(connection) | Stage::Replicating { connection, .. } => connection == id,
        Stage::Ready => false,
    })
}
