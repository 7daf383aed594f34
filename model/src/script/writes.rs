//! What an execution of the script writes after the record of the producer.

use super::Text;
use super::batch::{Batch, IdempotencyKey, Request};
use super::errors::{Command, RedisError};
use super::execution::{Execution, IDS_END, Target};
use super::redis::{Counter, Job, MAX_EVENTS, ProducerRecord};
use super::reply::{BatchResult, Outcome};
use crate::safeguards::Safeguard;

impl Execution<'_> {
    /// Reserves the ids of all jobs that are to be added.
    pub(super) fn reserve_ids(&mut self) -> Result<(), RedisError> {
        let requests = self.batch.requests.iter().zip(&self.outcomes);
        let new = requests.filter(|(_, outcome)| outcome.is_none());
        let jobs = new.map(|(request, _)| request.heads.len()).sum::<usize>();
        if jobs == 0 {
            return Ok(());
        }
        let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
        self.write_typed(&self.batch.keys.id, Command::IncrBy)?;
        let last_id = match self.redis.last_id {
            Counter::NotANumber => return Err(RedisError::NotAnInteger),
            Counter::Number(id) => id.saturating_add(jobs),
            Counter::Absent => jobs,
        };
        self.redis.last_id = Counter::Number(last_id);
        if last_id >= IDS_END {
            return Err(RedisError::IdsUsedUp);
        }
        self.next_id = last_id - jobs + 1;
        Ok(())
    }

    /// Writes the jobs. If Redis refuses all of them, nothing of the call remains but ids.
    pub(super) fn write(
        &mut self,
        target: Target,
        is_maxed: bool,
    ) -> Result<BatchResult, RedisError> {
        let refused = self
            .reserve_ids()
            .and_then(|()| self.write_requests())
            .and_then(|()| self.push(target));
        if let Err(refusal) = refused {
            self.remove_jobs_after(0);
            self.put_record_back()?;
            return Err(refusal);
        }
        self.write_key_records();
        let result = self.result();
        let is_corrected = result != BatchResult::Added && self.has(Safeguard::RecordCorrected);
        if is_corrected || !self.has(Safeguard::RecordBeforeJobs) {
            self.write_record(result.clone())?;
        }
        self.notify(is_maxed);
        Ok(result)
    }

    /// `*` unless a request has another outcome than "added".
    fn result(&self) -> BatchResult {
        if self.outcomes.iter().all(Option::is_none) {
            return BatchResult::Added;
        }
        let outcomes = self.outcomes.iter().map(|outcome| outcome.unwrap_or(Outcome::Added));
        BatchResult::Outcomes(outcomes.collect())
    }

    fn write_requests(&mut self) -> Result<(), RedisError> {
        let batch = self.batch;
        for (position, request) in batch.requests.iter().enumerate() {
            let key = request.key.as_ref().map(|idempotency| &idempotency.key);
            let outcome = self.outcomes.get(position).copied().flatten();
            if outcome.is_some() {
                let has_failed = key.is_some_and(|key| self.failed_keys.contains(key));
                if has_failed && self.has(Safeguard::RepeatOfFailedFails) {
                    self.set_outcome(position, Some(Outcome::KeyConflict));
                }
            } else if !self.write_request(request)? {
                self.set_outcome(position, Some(Outcome::KeyConflict));
                self.failed_keys.extend(key.cloned());
            }
        }
        Ok(())
    }

    /// Writes all jobs of a request or none, and returns whether it has written them.
    fn write_request(&mut self, request: &Request) -> Result<bool, RedisError> {
        let (before, first_id) = (self.added.len(), self.next_id);
        let options =
            if request.options.is_empty() { &self.batch.options } else { &request.options };
        for head in &request.heads {
            let data = if request.tail.is_empty() {
                Text::clone(head)
            } else {
                [&**head, &*request.tail].concat().into()
            };
            if !self.write_job(options, data)? {
                if self.has(Safeguard::WholeRequests) {
                    self.remove_jobs_after(before);
                }
                // The ids of the other jobs of the request are not used.
                self.next_id = first_id + i64::try_from(request.heads.len()).unwrap_or(i64::MAX);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_job(&mut self, options: &Text, data: Text) -> Result<bool, RedisError> {
        let id = self.next_id;
        self.next_id += 1;
        // Formatting the name of the key costs more than everything else here.
        let is_held = !self.redis.held_keys.is_empty()
            && self.redis.held_keys.contains(&*self.batch.keys.job(id));
        self.begin_write(Command::HSet)?;
        if is_held {
            return Ok(false);
        }
        let (name, timestamp) = (Text::clone(&self.batch.job_name), self.batch.timestamp);
        self.redis.jobs.insert(id, Job { name, data, options: Text::clone(options), timestamp });
        self.added.push(id);
        Ok(true)
    }

    /// Removes the jobs that were added after the first `count`.
    fn remove_jobs_after(&mut self, count: usize) {
        for id in self.added.split_off(count) {
            if self.begin_write(Command::Del).is_ok() {
                self.redis.jobs.remove(&id);
            }
        }
    }

    /// Puts the jobs in the list.
    fn push(&mut self, target: Target) -> Result<(), RedisError> {
        if self.added.is_empty() {
            return Ok(());
        }
        self.write_typed(self.batch.keys.list(target), Command::LPush)?;
        match target {
            Target::Wait => self.redis.wait.extend(&self.added),
            Target::Paused => self.redis.paused.extend(&self.added),
        }
        Ok(())
    }

    /// Uses up the idempotency keys of requests whose jobs were added.
    fn write_key_records(&mut self) {
        if !self.has(Safeguard::KeyInSameStep) {
            return;
        }
        let batch = self.batch;
        let all = !self.has(Safeguard::KeyOfAddedOnly);
        for (request, outcome) in batch.requests.iter().zip(self.outcomes.clone()) {
            let Some(IdempotencyKey { key, .. }) = &request.key else { continue };
            // A request without jobs may have the key of one that has failed.
            let is_without_jobs =
                request.heads.is_empty() && self.has(Safeguard::KeyKeptWithoutJobs);
            if is_without_jobs || (outcome.is_some() && !all) {
                continue;
            }
            if let Some(record) = self.new_records.get(key).cloned()
                && self.begin_write(Command::Set).is_ok()
            {
                self.redis.idempotency.insert(Text::clone(key), record);
            }
        }
    }

    /// Wakes workers and writes events.
    fn notify(&mut self, is_maxed: bool) {
        if self.redis.meta.max_events.is_none() && self.begin_write(Command::HSet).is_ok() {
            self.redis.meta.max_events = Some(MAX_EVENTS.into());
        }
        let keys = &self.batch.keys;
        let wakes = !self.added.is_empty() && !self.redis.meta.is_paused && !is_maxed;
        if wakes && self.write_typed(&keys.marker, Command::ZAdd).is_ok() {
            self.redis.has_marker = true;
        }
        let is_written = self.batch.writes_events && !self.added.is_empty();
        if is_written && self.write_typed(&keys.events, Command::XAdd).is_ok() {
            self.redis.events += 2 * self.added.len() as u64;
        }
    }

    /// Writes the result of this number and drops those of numbers up to the mark.
    pub(super) fn write_record(&mut self, result: BatchResult) -> Result<(), RedisError> {
        if !self.has(Safeguard::Record) {
            return Ok(());
        }
        self.begin_write(Command::Set)?;
        let Batch { number, mark, ref keys, record_ttl, .. } = *self.batch;
        let recorded = self.redis.producers.remove(&keys.producer);
        let mark = recorded.as_ref().map_or(mark, |record| record.mark.max(mark));
        let mut results = recorded.map(|record| record.results).unwrap_or_default();
        results.retain(|(recorded, _)| *recorded > mark && *recorded != number);
        results.push((number, result));
        let expires_at = self.now.saturating_add(record_ttl);
        let record = ProducerRecord { mark, results, expires_at };
        self.redis.producers.insert(Text::clone(&keys.producer), record);
        Ok(())
    }

    /// Puts the record back that the producer had before the call.
    pub(super) fn put_record_back(&mut self) -> Result<(), RedisError> {
        let is_written = self.has(Safeguard::Record) && self.has(Safeguard::RecordBeforeJobs);
        if !is_written || !self.has(Safeguard::RecordPutBack) {
            return Ok(());
        }
        self.begin_write(Command::Set)?;
        let Batch { mark, ref keys, record_ttl, .. } = *self.batch;
        let none = ProducerRecord { mark, results: Vec::new(), expires_at: 0 };
        let expires_at = self.now.saturating_add(record_ttl);
        let record = ProducerRecord { expires_at, ..self.previous.clone().unwrap_or(none) };
        self.redis.producers.insert(Text::clone(&keys.producer), record);
        Ok(())
    }
}
