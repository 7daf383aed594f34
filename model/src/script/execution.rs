//! One execution of the script, step by step in the order of `add_jobs.lua`.

use super::Text;
use super::batch::{Batch, IdempotencyKey, PausedLayout};
use super::errors::{Command, RedisError, Refusal};
use super::redis::{Counter, KeyRecord, ProducerRecord, Redis};
use super::reply::{BatchResult, Outcome};
use crate::safeguards::{Safeguard, Safeguards};
use std::collections::{BTreeMap, BTreeSet};

/// Lua numbers are doubles, which represent every integer up to this bound.
pub(super) const IDS_END: i64 = 1 << 53;

const READ_ONLY: RedisError = RedisError::Refused(Refusal::ReadOnly);

pub(super) struct Execution<'a> {
    pub(super) redis: &'a mut Redis,
    pub(super) now: u64,
    pub(super) batch: &'a Batch,
    pub(super) safeguards: Safeguards,
    /// Whether something was written: a full server refuses only the first write of a script.
    pub(super) has_written: bool,
    /// For each request its outcome, unless it is [`Outcome::Added`].
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// The records to write for idempotency keys that were not used before.
    pub(super) new_records: BTreeMap<Text, KeyRecord>,
    pub(super) failed_keys: BTreeSet<Text>,
    pub(super) next_id: i64,
    pub(super) added: Vec<i64>,
    /// The record of the producer before the call.
    pub(super) previous: Option<ProducerRecord>,
}

/// The list that jobs go to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Wait,
    Paused,
}

impl<'a> Execution<'a> {
    pub(super) fn new(
        redis: &'a mut Redis,
        now: u64,
        batch: &'a Batch,
        safeguards: Safeguards,
    ) -> Self {
        Self {
            redis,
            now,
            batch,
            safeguards,
            has_written: false,
            outcomes: vec![None; batch.requests.len()],
            new_records: BTreeMap::new(),
            failed_keys: BTreeSet::new(),
            next_id: 1,
            added: Vec::new(),
            previous: None,
        }
    }

    pub(super) fn run(mut self) -> Result<BatchResult, RedisError> {
        let target = self.find_target()?;
        let is_maxed = self.is_maxed()?;
        if self.batch.is_dry_run() {
            return self.dry_run(target);
        }
        self.look_up_keys()?;
        let mut checks = [Self::look_up_number, Self::check_deadline];
        if !self.has(Safeguard::NumberBeforeDeadline) {
            checks.reverse();
        }
        for check in checks {
            if let Some(result) = check(&mut self)? {
                return Ok(result);
            }
        }
        if self.batch.is_withdrawal {
            self.end(BatchResult::Withdrawn, Safeguard::RecordOfWithdrawal)?;
            return Ok(BatchResult::Withdrawn);
        }
        self.write(target, is_maxed)
    }

    /// Writes the record as if every job were added. Returns the result of this number if it was
    /// executed before.
    fn look_up_number(&mut self) -> Result<Option<BatchResult>, RedisError> {
        let mut written = Ok(());
        if self.has(Safeguard::RecordBeforeJobs) {
            written = self.begin_write(Command::Set);
        }
        if written.is_ok() {
            written = self.redis.read_key(&self.batch.keys.producer);
        }
        if written.is_err() {
            self.read(Command::Get, &self.batch.keys.producer)?;
        }
        self.previous = self.redis.producers.get(&self.batch.keys.producer).cloned();
        let Some(known) = self.known_result() else {
            written?;
            if self.has(Safeguard::RecordBeforeJobs) {
                self.write_record(BatchResult::Added)?;
            }
            return Ok(None);
        };
        if written.is_err() {
            self.prove_primary()?;
        }
        self.touch_record();
        Ok(Some(known))
    }

    fn known_result(&self) -> Option<BatchResult> {
        let record = self.previous.as_ref()?;
        if self.has(Safeguard::Mark) && self.batch.number <= record.mark {
            return Some(BatchResult::Stale);
        }
        record.result(self.batch.number).cloned()
    }

    /// A replica refuses the write, so it reports no result.
    fn prove_primary(&mut self) -> Result<(), RedisError> {
        let is_replica = self.begin_write(Command::PExpire) == Err(READ_ONLY);
        if is_replica && self.has(Safeguard::ProofOfPrimary) { Err(READ_ONLY) } else { Ok(()) }
    }

    fn touch_record(&mut self) {
        let expires_at = self.now.saturating_add(self.batch.record_ttl);
        let is_touched = self.has_written;
        let record = self.redis.producers.get_mut(&self.batch.keys.producer);
        if let Some(record) = record.filter(|_| is_touched) {
            record.expires_at = expires_at;
        }
    }

    fn check_deadline(&mut self) -> Result<Option<BatchResult>, RedisError> {
        if self.now < self.batch.deadline || !self.has(Safeguard::Deadline) {
            return Ok(None);
        }
        self.end(BatchResult::Late, Safeguard::RecordOfLate)?;
        Ok(Some(BatchResult::Late))
    }

    /// Records a result without jobs.
    fn end(&mut self, result: BatchResult, safeguard: Safeguard) -> Result<(), RedisError> {
        if self.has(safeguard) { self.write_record(result) } else { self.put_record_back() }
    }

    fn find_target(&mut self) -> Result<Target, RedisError> {
        let keys = &self.batch.keys;
        self.read(Command::HMGet, &keys.meta)?;
        let target = match (self.redis.meta.is_paused, self.batch.paused_layout) {
            (false, _) | (true, PausedLayout::V6) => Target::Wait,
            (true, PausedLayout::V5) => Target::Paused,
            (true, PausedLayout::Auto) => {
                self.read(Command::LLen, &keys.wait)?;
                self.read(Command::LLen, &keys.paused)?;
                self.paused_target()
            }
        };
        Ok(target)
    }

    /// The lists show which release of BullMQ has paused the queue.
    fn paused_target(&self) -> Target {
        let has_waiting = !self.redis.wait.is_empty();
        let has_paused = !self.redis.paused.is_empty();
        let is_v6 = match self.redis.meta.major_version() {
            Some(major) if has_waiting == has_paused => major >= 6,
            _ => has_waiting,
        };
        if is_v6 { Target::Wait } else { Target::Paused }
    }

    fn is_maxed(&mut self) -> Result<bool, RedisError> {
        let Some(concurrency) = self.redis.meta.concurrency else { return Ok(false) };
        self.read(Command::LLen, &self.batch.keys.active)?;
        Ok(self.redis.active >= concurrency)
    }

    fn dry_run(&mut self, target: Target) -> Result<BatchResult, RedisError> {
        let keys = &self.batch.keys;
        self.read(Command::Get, &keys.producer)?;
        self.read(Command::LLen, keys.list(target))?;
        self.read(Command::Get, &keys.id)?;
        match self.redis.last_id {
            Counter::NotANumber => return Err(RedisError::IdIsNoInteger),
            Counter::Number(id) if id >= IDS_END - 1 => return Err(RedisError::IdsUsedUp),
            Counter::Number(_) | Counter::Absent => {}
        }
        // SET with XX changes nothing, because a dry run has a producer of its own without a record.
        self.begin_write(Command::Set)?;
        Ok(BatchResult::Added)
    }

    /// Finds the requests that repeat an idempotency key.
    fn look_up_keys(&mut self) -> Result<(), RedisError> {
        let batch = self.batch;
        for (position, request) in batch.requests.iter().enumerate() {
            let Some(key) = &request.key else { continue };
            let outcome = self.look_up_key(key, request.heads.len() as u64)?;
            self.set_outcome(position, outcome);
        }
        Ok(())
    }

    fn look_up_key(
        &mut self,
        idempotency: &IdempotencyKey,
        jobs: u64,
    ) -> Result<Option<Outcome>, RedisError> {
        let IdempotencyKey { key, fingerprint, ttl } = idempotency;
        let used = if let Some(record) = self.new_records.get(key) {
            Some(record)
        } else {
            self.read(Command::Get, key)?;
            self.redis.idempotency.get(key)
        };
        let used = used.filter(|_| self.has(Safeguard::KeyLookedUp));
        if let Some(record) = used {
            let is_same = record.fingerprint == *fingerprint || !self.has(Safeguard::Fingerprint);
            let repeated = Outcome::Repeated(record.jobs);
            return Ok(Some(if is_same { repeated } else { Outcome::KeyReused }));
        }
        if jobs > 0 || !self.has(Safeguard::KeyKeptWithoutJobs) {
            let expires_at = self.now.saturating_add(*ttl);
            let record = KeyRecord { fingerprint: Text::clone(fingerprint), jobs, expires_at };
            self.new_records.insert(Text::clone(key), record);
        }
        Ok(None)
    }

    pub(super) fn set_outcome(&mut self, position: usize, outcome: Option<Outcome>) {
        if let Some(each) = self.outcomes.get_mut(position) {
            *each = outcome;
        }
    }

    pub(super) fn has(&self, safeguard: Safeguard) -> bool {
        self.safeguards.has(safeguard)
    }

    /// A command that reads this key.
    pub(super) fn read(&self, command: Command, key: &str) -> Result<(), RedisError> {
        self.permit(command)?;
        self.redis.read_key(key)
    }

    /// A command that writes this key and needs the right type of it.
    pub(super) fn write_typed(&mut self, key: &str, command: Command) -> Result<(), RedisError> {
        self.begin_write(command)?;
        self.redis.read_key(key)
    }

    pub(super) fn begin_write(&mut self, command: Command) -> Result<(), RedisError> {
        self.permit(command)?;
        match self.redis.refusal {
            Some(Refusal::OutOfMemory) if self.has_written || !command.needs_memory() => {}
            Some(refusal) => return Err(RedisError::Refused(refusal)),
            None => {}
        }
        self.has_written = true;
        Ok(())
    }

    fn permit(&self, command: Command) -> Result<(), RedisError> {
        if self.redis.forbidden == Some(command) {
            Err(RedisError::NotPermitted(command))
        } else {
            Ok(())
        }
    }
}
