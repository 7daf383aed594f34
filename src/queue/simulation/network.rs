//! The network of the simulation: connections carry commands to a server in order, are cut or
//! silenced, and deliver wrong replies.

use crate::queue::simulation::ledger::Attempt;
use crate::queue::simulation::link::{Call, Link, PendingReply, Sent, Turn};
use crate::queue::simulation::server::{Command, Ending, Execution};
use crate::queue::simulation::trace::Kind;
use crate::queue::simulation::world::World;
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

impl World {
    /// Puts a call on its way, or returns what happens to it instead.
    pub(super) fn send(&mut self, link: usize, command: Command) -> Sent {
        if self.links[link].end.is_some() {
            // fred may keep a command forever that arrived after its task ended.
            return if self.rng.bool() {
                self.trace.note(Kind::NotWritten, format_args!("over {link}"));
                Sent::NotWritten
            } else {
                self.trace.note(Kind::KeptForever, format_args!("over {link}"));
                Sent::Kept
            };
        }
        if let Some(batch) = &command.batch {
            self.begin_attempt(&Attempt::new(batch), link);
        }
        let travel = self.travel_time();
        let (answer, reply) = oneshot::channel();
        let link = &mut self.links[link];
        let before = link.calls.back().map_or_else(Instant::now, |call| call.arrives);
        let arrives = before.max(Instant::now() + travel);
        link.calls.push_back(Call { command, arrives, answer });
        link.wake.notify_one();
        Sent::Awaited(reply)
    }

    fn begin_attempt(&mut self, attempt: &Attempt, link: usize) {
        let earlier = self.ledger.attempt(attempt, link);
        let kind = match earlier {
            _ if attempt.is_withdrawal => Kind::Withdrawal,
            Some(_) => Kind::Resent,
            None if self.ledger.was_sent_under_another_number(attempt) => Kind::NumberAfterRefusal,
            None => Kind::FirstAttempt,
        };
        let Attempt { number, mark, sendings, deadline, .. } = attempt;
        self.trace.note(
            kind,
            format_args!(
                "number {number} above {mark} until {deadline}, requests {sendings:?}, over {link}"
            ),
        );
    }

    fn travel_time(&mut self) -> Duration {
        if self.chance(self.plan.faults.spike) {
            self.trace.note(Kind::Spike, format_args!(""));
            let most = u64::try_from(self.plan.enqueue_timeout.as_millis()).unwrap();
            return self.milliseconds(most * 5 / 4);
        }
        self.milliseconds(2)
    }

    /// Lets everything happen on a connection that is due.
    pub(super) fn turn(&mut self, id: usize) -> Turn {
        loop {
            let now = Instant::now();
            let link = &mut self.links[id];
            if let Some(error) = &link.end {
                return Turn::Ended(error.clone());
            }
            if link.is_silent {
                return Turn::Idle;
            }
            let reply_at = link.replies.front().map(|reply| reply.arrives);
            if reply_at.is_some_and(|at| at <= now) {
                self.deliver(id);
                continue;
            }
            if link.is_ending && link.replies.is_empty() {
                self.cut(id, 0, &Error::new(ErrorKind::IO, "connection closed"));
                continue;
            }
            let reads_at = link.reads_at.max(now);
            let (server, call_at) = (link.server, link.calls.front().map(|call| call.arrives));
            let reads_at = self.thaws(server).map_or(reads_at, |at| at.max(reads_at));
            let call_at = call_at.filter(|_| !self.links[id].is_ending).map(|at| at.max(reads_at));
            if call_at.is_some_and(|at| at <= now) {
                self.arrive(id);
                continue;
            }
            return match reply_at.into_iter().chain(call_at).min() {
                Some(at) => Turn::Until(at),
                None => Turn::Idle,
            };
        }
    }

    /// The next call arrives, or something happens to it.
    fn arrive(&mut self, id: usize) {
        let faults = self.plan.faults;
        let lost = Error::new(ErrorKind::IO, "connection reset");
        if self.chance(faults.cut_before) {
            self.trace.note(Kind::CutBefore, format_args!("{id}"));
            return self.cut(id, 0, &lost);
        }
        if self.chance(faults.cut_travelling) {
            let count = self.rng.usize(1..=self.links[id].calls.len());
            self.trace.note(Kind::CutTravelling, format_args!("{id}: {count} calls travel on"));
            return self.cut(id, count, &lost);
        }
        if self.chance(faults.silenced) {
            self.trace.note(Kind::Silenced, format_args!("{id}"));
            self.links[id].is_silent = true;
            return;
        }
        let Some(call) = self.links[id].calls.pop_front() else { return };
        let Call { command, answer, .. } = call;
        let (execution, takes) = self.execute_for(id, &command);
        if execution.ending == Some(Ending::Silent) {
            self.trace.note(Kind::CallTooLarge, format_args!("over {id}"));
            let _ = answer.send(Err(lost.clone()));
            return self.cut(id, 0, &lost);
        }
        if self.chance(faults.cut_after) {
            self.trace.note(Kind::CutAfter, format_args!("{id}"));
            let _ = answer.send(Err(lost.clone()));
            return self.cut(id, 0, &lost);
        }
        self.reply(id, execution, takes, answer);
    }

    /// Executes a command that has arrived over a connection. Returns how long that takes.
    fn execute_for(&mut self, id: usize, command: &Command) -> (Execution, Duration) {
        let server = self.links[id].server;
        if command.name == "WAIT" {
            let milliseconds = std::str::from_utf8(&command.arguments[1]).unwrap().parse().unwrap();
            let timeout = Duration::from_millis(milliseconds);
            let version = self.links[id].last_write;
            let (reply, takes) = self.wait_for_replica(server, version, timeout);
            self.links[id].reads_at = Instant::now() + takes;
            return (Execution::of(reply), takes);
        }
        let execution = self.execute(server, command, Some(id));
        let version = self.servers[server].version;
        let link = &mut self.links[id];
        if execution.has_written {
            link.last_write = version;
        }
        link.is_alone |= command.name == "CONFIG" || is_question(command);
        self.note_step(id, command, &execution);
        (execution, Duration::ZERO)
    }

    fn note_step(&mut self, id: usize, command: &Command, execution: &Execution) {
        match (command.name, &execution.reply) {
            ("CONFIG", Ok(_)) => self.trace.note(Kind::LimitsRead, format_args!("over {id}")),
            ("GETBIT", _) => self.trace.note(Kind::LimitProbed, format_args!("over {id}")),
            (_, Err(error)) if error.details().contains("bulk length") => {
                self.trace.note(Kind::ArgumentTooLarge, format_args!("over {id}"));
            }
            (_, Err(error)) if error.details().starts_with("NOSCRIPT") => {
                self.trace.note(Kind::ScriptMissing, format_args!("over {id}"));
            }
            _ => {}
        }
        let batch = command.batch.as_ref().filter(|batch| !batch.is_withdrawal);
        if let Some(batch) = batch.filter(|_| self.links[id].is_alone) {
            let attempt = Attempt::new(batch);
            let kind = if self.has_halved(&attempt.sendings.iter().copied().collect()) {
                Kind::Halved
            } else {
                Kind::SentAlone
            };
            self.trace.note(kind, format_args!("requests {:?}", attempt.sendings));
            self.links[id].alone.extend(&attempt.sendings);
        }
    }

    /// Whether a larger batch with these requests was sent alone before.
    fn has_halved(&self, sendings: &BTreeSet<usize>) -> bool {
        let larger = |link: &Link| link.alone.len() > sendings.len();
        self.links.iter().any(|link| larger(link) && link.alone.is_superset(sendings))
    }

    /// Puts a reply on its way, or a wrong one.
    fn reply(
        &mut self,
        id: usize,
        execution: Execution,
        takes: Duration,
        answer: oneshot::Sender<Result<Value, Error>>,
    ) {
        let is_wrong = self.chance(self.plan.faults.wrong_reply);
        let way = if is_wrong { self.rng.u32(0..3) } else { 3 };
        let travel = takes + self.travel_time();
        let Execution { reply: right, mut ack, ending, .. } = execution;
        let link = &mut self.links[id];
        let text = match &right {
            Ok(Value::Bytes(text)) => Some(text.clone()),
            _ => None,
        };
        let last = link.last_text.clone();
        if text.is_some() {
            link.last_text = text;
        }
        let last = last.map(|text| Ok(Value::Bytes(text)));
        let mut result = right;
        let mut wrong = None;
        if let Some(shifted) = &mut link.shifted {
            result = std::mem::replace(shifted, result);
            ack = None;
        } else if let (0 | 1, Some(last)) = (way, last) {
            let kind = if way == 0 { Kind::ReplyOfAnother } else { Kind::ReplySwapped };
            let right = std::mem::replace(&mut result, last);
            // One reply is too many, so that every later one is that of the call before.
            link.shifted = (way == 1).then_some(right);
            wrong = Some(kind);
        } else if way == 2 {
            result = Ok(Value::Bytes("1".into()));
            wrong = Some(Kind::ReplyMangled);
        }
        let before = link.replies.back().map_or_else(Instant::now, |reply| reply.arrives);
        let arrives = before.max(Instant::now() + travel);
        link.is_ending |= ending == Some(Ending::AfterReply);
        if let Some(kind) = wrong {
            ack = None;
            self.trace.note(kind, format_args!("over {id}: {result:?}"));
        }
        self.links[id].replies.push_back(PendingReply { arrives, result, ack, answer });
    }

    /// The next reply arrives.
    fn deliver(&mut self, id: usize) {
        let Some(reply) = self.links[id].replies.pop_front() else { return };
        let is_awaited = !reply.answer.is_closed();
        if let Some(ack) = reply.ack.filter(|_| is_awaited)
            && self.ledger.acknowledge(&ack)
            && ack.attempt.is_withdrawal
        {
            let number = ack.attempt.number;
            self.trace.note(Kind::WithdrawalFoundOutcomes, format_args!("number {number}"));
        }
        let is_down = |error: &Error| error.details().starts_with("CLUSTERDOWN");
        let down = reply.result.as_ref().err().filter(|error| is_down(error)).cloned();
        let _ = reply.answer.send(reply.result);
        if let Some(error) = down {
            self.cut(id, 0, &error);
        }
    }

    /// Ends a connection. The first `travelling` of its calls arrive later nevertheless.
    pub(super) fn cut(&mut self, id: usize, travelling: usize, error: &Error) {
        let link = &mut self.links[id];
        if link.end.is_some() {
            return;
        }
        link.end = Some(error.clone());
        link.wake.notify_one();
        let (calls, replies) = (std::mem::take(&mut link.calls), std::mem::take(&mut link.replies));
        for reply in replies {
            let _ = reply.answer.send(Err(error.clone()));
        }
        let mut after = Duration::ZERO;
        for (position, call) in calls.into_iter().enumerate() {
            let _ = call.answer.send(Err(error.clone()));
            if position < travelling {
                after += self.milliseconds(self.plan.faults.travels);
                self.schedule_copy(after, id, call.command);
            }
        }
    }

    /// Hookgate has closed a connection. Some of the calls on it may have left already.
    pub(super) fn close(&mut self, id: usize) {
        let waiting = self.links[id].calls.len();
        let travelling = if self.plan.faults.cut_travelling > 0 || self.links[id].is_silent {
            self.rng.usize(0..=waiting)
        } else {
            0
        };
        self.cut(id, travelling, &Error::new(ErrorKind::IO, "connection closed"));
    }
}

/// Whether this is the script that asks whether CONFIG may be used.
fn is_question(command: &Command) -> bool {
    command.name == "EVAL" && command.arguments[1] == "0"
}
