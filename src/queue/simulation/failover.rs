//! Replication, failovers and restarts of the two servers.

use crate::queue::simulation::plan::{Mode, OldPrimary};
use crate::queue::simulation::trace::Kind;
use crate::queue::simulation::world::{Event, World};
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use std::time::Duration;

impl World {
    /// Ends every connection to a server, and forgets its scripts.
    pub(super) fn stop(&mut self, server: usize) {
        self.servers[server].incarnation += 1;
        self.servers[server].has_script = false;
        for link in 0..self.links.len() {
            if self.links[link].server == server {
                self.cut(link, 0, &Error::new(ErrorKind::IO, "connection reset"));
            }
        }
    }

    pub(super) fn replicate(&mut self) {
        let [first, second] = &mut self.servers;
        let (from, to) = if self.primary == 0 { (first, second) } else { (second, first) };
        to.redis.clone_from(&from.redis);
        self.replicated_version = from.version;
        self.ledger.replicated();
    }

    pub(super) fn fail_over(&mut self, is_older: bool, old: OldPrimary) {
        // A server that does not follow the primary is not promoted.
        if !self.is_followed {
            return;
        }
        if !is_older {
            self.replicate();
        }
        let kind = if is_older { Kind::FailoverOlder } else { Kind::FailoverEqual };
        let (from, to) = (self.primary, 1 - self.primary);
        self.trace.note(kind, format_args!("from {from} to {to}"));
        (self.primary, self.is_followed) = (to, false);
        let promoted = &mut self.servers[to];
        (promoted.mode, promoted.version) = (Mode::Primary, self.replicated_version);
        promoted.refused = None;
        let mode = match old {
            OldPrimary::Dead | OldPrimary::Demoted => Mode::Demoted,
            OldPrimary::Split => Mode::Split,
        };
        self.servers[from].mode = mode;
        let kind = match old {
            OldPrimary::Dead => Kind::OldPrimaryDead,
            OldPrimary::Demoted => Kind::OldPrimaryDemoted,
            OldPrimary::Split => Kind::OldPrimarySplit,
        };
        self.trace.note(kind, format_args!("{from}"));
        if old == OldPrimary::Dead {
            self.stop(from);
        }
        if old != OldPrimary::Split {
            self.count_lost(from);
        }
        let most = u64::try_from(self.plan.enqueue_timeout.as_millis()).unwrap();
        let after = self.milliseconds(most);
        self.schedule(after, Event::Resynchronize(from));
    }

    fn count_lost(&mut self, old: usize) {
        let (old, new) = (&self.servers[old].redis, &self.servers[1 - old].redis);
        let before = (self.ledger.has_lost_late, self.ledger.has_lost_withdrawal);
        let lost = self.ledger.failed_over(old, new);
        if lost > 0 {
            self.trace.note(Kind::JobsLost, format_args!("of {lost} requests"));
        }
        if self.ledger.has_lost_late && !before.0 {
            self.trace.note(Kind::LateLost, format_args!(""));
        }
        if self.ledger.has_lost_withdrawal && !before.1 {
            self.trace.note(Kind::WithdrawalLost, format_args!(""));
        }
    }

    /// The old primary takes the data of the new one and follows it.
    pub(super) fn resynchronize(&mut self, server: usize) {
        if self.servers[server].mode == Mode::Split {
            self.count_lost(server);
        }
        self.servers[server].mode = Mode::Replica;
        self.servers[server].refused = None;
        self.is_followed = true;
        self.replicate();
        self.trace.note(Kind::Resynchronized, format_args!("{server}"));
    }

    /// WAIT on a server, after this version was written over the connection. Returns the reply, and
    /// how long it takes.
    pub(super) fn wait_for_replica(
        &mut self,
        server: usize,
        version: u64,
        timeout: Duration,
    ) -> (Result<Value, Error>, Duration) {
        match self.servers[server].mode {
            Mode::Primary if self.is_followed => {
                if self.replicated_version < version && self.chance(700) {
                    self.replicate();
                }
                if self.replicated_version >= version {
                    self.trace.note(Kind::Waited, format_args!(""));
                    return (Ok(Value::Integer(1)), self.milliseconds(5));
                }
            }
            Mode::Primary | Mode::Split => {}
            Mode::Replica | Mode::Demoted => {
                let details = "ERR WAIT cannot be used with replica instances.";
                return (Err(Error::new(ErrorKind::Unknown, details)), Duration::ZERO);
            }
        }
        self.trace.note(Kind::WaitFailed, format_args!(""));
        (Ok(Value::Integer(0)), timeout)
    }

    /// The server that a new connection goes to. Sentinel may still name the old primary.
    pub(super) fn choose_server(&mut self) -> usize {
        let other = 1 - self.primary;
        let was_primary = matches!(self.servers[other].mode, Mode::Demoted | Mode::Split);
        if was_primary && self.chance(300) { other } else { self.primary }
    }
}
