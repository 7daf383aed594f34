//! The surroundings of a run: two servers, of which one is the primary, and what happens to them.

use crate::queue::simulation::ledger::{Ack, Attempt, Ledger, jobs_by_sending};
use crate::queue::simulation::link::Link;
use crate::queue::simulation::plan::{self, Faults, Mode, Plan, Refusal, Step};
use crate::queue::simulation::server::{Command, Execution, Server};
use crate::queue::simulation::trace::{Kind, Trace};
use fastrand::Rng;
use fred::error::Error;
use fred::types::Value;
use model::Safeguards;
use model::script::BatchResult;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) type SharedWorld = Arc<Mutex<World>>;

#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) trace: Trace,
    pub(super) ledger: Ledger,
    pub(super) servers: [Server; 2],
    pub(super) primary: usize,
    pub(super) links: Vec<Link>,
    safeguards: Safeguards,
    /// Whether clocks step or differ.
    pub(super) clocks_vary: bool,
    /// Whether the other server follows the primary.
    pub(super) is_followed: bool,
    /// The version of the primary that the other server has.
    pub(super) replicated_version: u64,
    agenda: BTreeMap<(Instant, u64), Event>,
    agenda_changed: Arc<Notify>,
    entries: u64,
}

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Step(Step),
    /// A copy of a call arrives whose connection is lost.
    LateCopy {
        server: usize,
        incarnation: u32,
        command: Command,
    },
    Resynchronize(usize),
    Heal,
}

impl World {
    pub(super) fn new(mut rng: Rng, safeguards: Safeguards, is_traced: bool) -> Self {
        let plan = Plan::new(&mut rng);
        let [first, second] = plan.clocks;
        let mut world = Self {
            trace: Trace::new(is_traced),
            ledger: Ledger::default(),
            servers: [Server::new(first, Mode::Primary), Server::new(second, Mode::Replica)],
            primary: 0,
            links: Vec::new(),
            safeguards,
            clocks_vary: plan.clocks_vary(),
            is_followed: plan.has_replica(),
            replicated_version: 0,
            agenda: BTreeMap::new(),
            agenda_changed: Arc::default(),
            entries: 0,
            plan,
            rng,
        };
        for (at, step) in world.plan.steps.clone() {
            world.schedule(Duration::from_millis(at), Event::Step(step));
        }
        world.schedule(Duration::from_millis(world.plan.heals_at), Event::Heal);
        world
    }

    pub(super) fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.rng.u32(0..1000) < of_thousand
    }

    pub(super) fn milliseconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(0..=most))
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.entries += 1;
        self.agenda.insert((Instant::now() + after, self.entries), event);
        self.agenda_changed.notify_one();
    }

    pub(super) fn schedule_copy(&mut self, after: Duration, link: usize, command: Command) {
        let Link { server, incarnation, .. } = self.links[link];
        self.schedule(after, Event::LateCopy { server, incarnation, command });
    }

    /// Lets everything happen that is due, and returns when the next is.
    fn proceed(&mut self) -> Option<Instant> {
        loop {
            let entry = self.agenda.first_entry()?;
            let due = entry.key().0;
            if due > Instant::now() {
                return Some(due);
            }
            let event = entry.remove();
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(step) => self.step(step),
            Event::LateCopy { server, incarnation, command } => {
                self.late_copy(server, incarnation, command);
            }
            Event::Resynchronize(server) => self.resynchronize(server),
            Event::Heal => self.heal(),
        }
    }

    fn late_copy(&mut self, mut server: usize, mut incarnation: u32, command: Command) {
        if self.plan.faults.is_proxied {
            server = self.primary;
            incarnation = self.servers[server].incarnation;
        }
        if let Some(until) = self.thaws(server) {
            let copy = Event::LateCopy { server, incarnation, command };
            self.schedule(until - Instant::now(), copy);
        } else if self.servers[server].incarnation == incarnation {
            self.trace.note(Kind::LateCopy, format_args!("{} at {server}", command.name));
            let execution = self.execute(server, &command, None);
            if matches!(&execution.ack, Some(ack) if !ack.is_known && ack.result == BatchResult::Added)
            {
                self.trace.note(Kind::LateCopyExecuted, format_args!("at {server}"));
            }
        }
    }

    /// When a server that stands still goes on.
    pub(super) fn thaws(&self, server: usize) -> Option<Instant> {
        self.servers[server].frozen_until.filter(|until| *until > Instant::now())
    }

    fn step(&mut self, step: Step) {
        let until = |milliseconds| Instant::now() + Duration::from_millis(milliseconds);
        match step {
            Step::Clock { server, milliseconds } => {
                self.servers[server].clock += milliseconds;
                let kind = if milliseconds < 0 { Kind::ClockBack } else { Kind::ClockForward };
                self.trace.note(kind, format_args!("{milliseconds} ms at {server}"));
            }
            Step::Failover { is_older, old } => self.fail_over(is_older, old),
            Step::Refuse { refusal, milliseconds } => {
                self.trace
                    .note(refused(refusal), format_args!("{refusal:?} for {milliseconds} ms"));
                self.servers[self.primary].refused = Some((refusal, until(milliseconds)));
            }
            Step::Freeze { milliseconds } => {
                self.trace.note(Kind::Frozen, format_args!("for {milliseconds} ms"));
                self.servers[self.primary].frozen_until = Some(until(milliseconds));
            }
            Step::Restart => {
                self.trace.note(Kind::Restarted, format_args!("{}", self.primary));
                self.stop(self.primary);
            }
            Step::HoldKey => self.hold_key(),
        }
    }

    /// Another value takes the key of one of the next jobs.
    fn hold_key(&mut self) {
        let ahead = self.rng.usize(1..4);
        let redis = &mut self.servers[self.primary].redis;
        let id = redis.listed().max().unwrap_or(0) + i64::try_from(ahead).unwrap();
        redis.held_keys.insert(format!("bull:workflow-runner:{id}").into());
        self.trace.note(Kind::KeyHeld, format_args!("job {id}"));
    }

    fn heal(&mut self) {
        self.plan.faults = Faults { replicated: 1000, ..Faults::default() };
        self.plan.limit = None;
        for server in &mut self.servers {
            (server.refused, server.frozen_until) = (None, None);
            server.redis.held_keys.clear();
        }
    }

    /// Executes a command on a server. The link is that which the reply goes to.
    pub(super) fn execute(
        &mut self,
        server: usize,
        command: &Command,
        link: Option<usize>,
    ) -> Execution {
        if self.servers[server].refusal().is_none() && self.chance(self.plan.faults.momentary) {
            let refusal = plan::refusal(&mut self.rng);
            self.trace.note(refused(refusal), format_args!("once: {refusal:?}"));
            self.servers[server].refused =
                Some((refusal, Instant::now() + Duration::from_nanos(1)));
        }
        let execution = self.servers[server].execute(command, self.plan.limit, self.safeguards);
        if let Some(attempt) = &execution.attempt {
            self.note_attempt(server, attempt, &execution, link);
        }
        let is_primary = server == self.primary;
        if let Some(ack) = &execution.ack
            && matches!(ack.mode, Mode::Primary | Mode::Split)
        {
            self.ledger.executed(ack);
            // Deadlines are those of the clock of a server.
            if !self.clocks_vary {
                self.ledger.check_time(ack);
            }
        }
        if execution.has_written
            && is_primary
            && self.is_followed
            && self.chance(self.plan.faults.replicated)
        {
            self.replicate();
        }
        execution
    }

    fn note_attempt(
        &mut self,
        server: usize,
        attempt: &Attempt,
        execution: &Execution,
        link: Option<usize>,
    ) {
        let Attempt { number, mark, .. } = attempt;
        let kind = match &execution.ack {
            None => Kind::ReplyError,
            Some(ack) => reply_kind(ack),
        };
        let text = ReplyText(&execution.reply);
        let sendings = &attempt.sendings;
        self.trace.note(
            kind,
            format_args!("number {number} above {mark}, requests {sendings:?}, at {server} over {link:?}: {text}"),
        );
    }

    pub(super) fn jobs(&self, server: usize) -> BTreeMap<usize, Vec<usize>> {
        jobs_by_sending(&self.servers[server].redis)
    }
}

/// Lets the agenda happen, until the task is aborted.
pub(super) async fn keep_agenda(world: SharedWorld) {
    let changed = Arc::clone(&world.lock().agenda_changed);
    loop {
        let next = world.lock().proceed();
        match next {
            Some(due) => {
                let _ = tokio::time::timeout_at(due, changed.notified()).await;
            }
            None => changed.notified().await,
        }
    }
}

/// The text of a reply.
struct ReplyText<'a>(&'a Result<Value, Error>);

impl fmt::Display for ReplyText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(Value::Bytes(bytes)) => formatter.write_str(&String::from_utf8_lossy(bytes)),
            Ok(other) => write!(formatter, "{other:?}"),
            Err(error) => formatter.write_str(error.details()),
        }
    }
}

fn reply_kind(ack: &Ack) -> Kind {
    match ack.result {
        _ if ack.is_known => Kind::ReplyKnown,
        BatchResult::Added => Kind::ReplyAdded,
        BatchResult::Outcomes(_) => Kind::ReplyOutcomes,
        BatchResult::Late => Kind::ReplyLate,
        BatchResult::Stale => Kind::ReplyStale,
        BatchResult::Withdrawn => Kind::ReplyWithdrawn,
    }
}

fn refused(refusal: Refusal) -> Kind {
    match refusal {
        Refusal::Loading => Kind::RefusedLoading,
        Refusal::Busy => Kind::RefusedBusy,
        Refusal::ReadOnly => Kind::RefusedReadOnly,
        Refusal::TryAgain => Kind::RefusedTryAgain,
        Refusal::ClusterDown => Kind::RefusedClusterDown,
        Refusal::Memory => Kind::RefusedMemory,
        Refusal::Save => Kind::RefusedSave,
        Refusal::Permission(_) => Kind::RefusedPermission,
    }
}
