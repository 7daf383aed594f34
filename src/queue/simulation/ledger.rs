//! What the judge must know of a run: what was sent, what servers have replied, what was answered,
//! and what a failover has lost.

use crate::queue::outcome::{Added, EnqueueError, Enqueued};
use crate::queue::simulation::plan::Mode;
use model::script::{Batch, BatchResult, Redis, Request, Text};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// A request as a caller has sent it. Sent again it is another one.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    pub(super) jobs: usize,
    pub(super) key: Option<usize>,
    pub(super) body: usize,
    pub(super) deadline: Instant,
    pub(super) answer: Option<(Answer, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Added { matched: usize },
    Repeated { matched: usize },
    KeyReused,
    Nothing,
    Unknown,
    TooLarge { is_limit_known: bool },
}

impl Answer {
    pub(super) fn new(result: &Result<Added, EnqueueError>) -> Self {
        match *result {
            Ok(Added { matched, is_repeated: false }) => Self::Added { matched },
            Ok(Added { matched, is_repeated: true }) => Self::Repeated { matched },
            Err(EnqueueError::IdempotencyKeyReused) => Self::KeyReused,
            Err(EnqueueError::Unavailable(Enqueued::Nothing)) => Self::Nothing,
            Err(EnqueueError::Unavailable(Enqueued::Unknown)) => Self::Unknown,
            Err(EnqueueError::JobTooLarge { max_bytes, .. }) => {
                Self::TooLarge { is_limit_known: max_bytes.is_some() }
            }
            Err(ref error @ (EnqueueError::Admission(_) | EnqueueError::FanoutTooLarge { .. })) => {
                panic!("no request of the plan is refused like this: {error}")
            }
        }
    }
}

/// A call of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) producer: Text,
    pub(super) number: u64,
    pub(super) mark: u64,
    pub(super) deadline: u64,
    pub(super) is_withdrawal: bool,
    pub(super) sendings: Vec<usize>,
}

impl Attempt {
    pub(super) fn new(batch: &Batch) -> Self {
        Self {
            producer: Text::clone(&batch.keys.producer),
            number: batch.number,
            mark: batch.mark,
            deadline: batch.deadline,
            is_withdrawal: batch.is_withdrawal,
            sendings: batch.requests.iter().map(sending_of).collect(),
        }
    }
}

/// What a reply says of a batch.
#[derive(Debug, Clone)]
pub(super) struct Ack {
    pub(super) attempt: Attempt,
    pub(super) result: BatchResult,
    /// Whether the result was recorded before.
    pub(super) is_known: bool,
    pub(super) mode: Mode,
}

impl Ack {
    pub(super) fn new(batch: &Batch, result: &BatchResult, is_known: bool, mode: Mode) -> Self {
        Self { attempt: Attempt::new(batch), result: result.clone(), is_known, mode }
    }
}

/// The sending that a request of a batch is. It is in the data of its jobs, and in their options if
/// it has the long form.
fn sending_of(request: &Request) -> usize {
    let text = if request.options.is_empty() { &request.heads[0] } else { &request.options };
    numbers(text).next().unwrap()
}

/// The numbers in a text like `{"s":12,"j":0,…`.
fn numbers(text: &str) -> impl Iterator<Item = usize> {
    let numbers = text.split(|char: char| !char.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|digits| digits.parse().unwrap())
}

/// The jobs of each sending in a Redis.
pub(super) fn jobs_by_sending(redis: &Redis) -> BTreeMap<usize, Vec<usize>> {
    let mut jobs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for id in redis.listed() {
        // A job that is listed and not there is one too few, which the judge finds.
        let Some(job) = redis.jobs.get(&id) else { continue };
        let mut numbers = numbers(&job.data);
        let (sending, index) = (numbers.next().unwrap(), numbers.next().unwrap());
        jobs.entry(sending).or_default().push(index);
    }
    jobs
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) sendings: Vec<Sending>,
    /// The attempts by their producer and number.
    attempts: BTreeMap<(Text, u64), Attempt>,
    /// The producer of each number on a connection.
    producers: BTreeMap<(usize, u64), Text>,
    /// The sendings that were acknowledged by a primary, in a reply that has arrived.
    pub(super) acknowledged: BTreeSet<usize>,
    /// The sendings whose jobs a failover has lost.
    pub(super) lost: BTreeSet<usize>,
    /// Attempts withdrawn or late whose record the replica does not have yet.
    unreplicated: Vec<(Text, u64, BatchResult)>,
    pub(super) has_lost_withdrawal: bool,
    pub(super) has_lost_late: bool,
    pub(super) faults: Vec<String>,
}

impl Ledger {
    pub(super) fn begin(&mut self, sending: Sending) -> usize {
        self.sendings.push(sending);
        self.sendings.len() - 1
    }

    /// Records an attempt that is sent over a connection, and returns the earlier attempt under its
    /// number.
    pub(super) fn attempt(&mut self, attempt: &Attempt, link: usize) -> Option<Attempt> {
        let producer = self.producers.entry((link, attempt.number));
        if *producer.or_insert_with(|| Text::clone(&attempt.producer)) != attempt.producer {
            self.faults.push(format!("number {} of two producers over {link}", attempt.number));
        }
        let name = (Text::clone(&attempt.producer), attempt.number);
        let earlier = self.attempts.get(&name).cloned();
        match &earlier {
            Some(earlier) => {
                let is_same = attempt.is_withdrawal || attempt.sendings == earlier.sendings;
                if !is_same || attempt.deadline != earlier.deadline {
                    self.faults.push(format!("number {} was used twice", attempt.number));
                }
            }
            None => {
                self.attempts.insert(name, attempt.clone());
            }
        }
        earlier
    }

    pub(super) fn was_sent_under_another_number(&self, attempt: &Attempt) -> bool {
        let is_other = |other: &Attempt| {
            other.producer == attempt.producer
                && other.number != attempt.number
                && other.sendings == attempt.sendings
        };
        self.attempts.values().any(is_other)
    }

    /// Records a reply that has arrived. Returns whether it acknowledges the batch.
    pub(super) fn acknowledge(&mut self, ack: &Ack) -> bool {
        let is_settled = matches!(ack.result, BatchResult::Added | BatchResult::Outcomes(_));
        let is_settled = is_settled && matches!(ack.mode, Mode::Primary | Mode::Split);
        if is_settled {
            let name = (Text::clone(&ack.attempt.producer), ack.attempt.number);
            let first = self.attempts.get(&name).map(|attempt| attempt.sendings.clone());
            self.acknowledged.extend(first.unwrap_or_default());
        }
        is_settled
    }

    /// Records what was executed on a primary.
    pub(super) fn executed(&mut self, ack: &Ack) {
        if matches!(ack.result, BatchResult::Late | BatchResult::Withdrawn) && !ack.is_known {
            let Attempt { producer, number, .. } = &ack.attempt;
            self.unreplicated.push((Text::clone(producer), *number, ack.result.clone()));
        }
    }

    /// Nothing is executed after its callers were answered.
    pub(super) fn check_time(&mut self, ack: &Ack) {
        if ack.is_known || !matches!(ack.result, BatchResult::Added | BatchResult::Outcomes(_)) {
            return;
        }
        for &sending in &ack.attempt.sendings {
            let late = self.sendings[sending].deadline < Instant::now();
            if late && self.sendings[sending].jobs > 0 {
                self.faults.push(format!("request {sending} was executed after its deadline"));
            }
        }
    }

    /// The replica has everything.
    pub(super) fn replicated(&mut self) {
        self.unreplicated.clear();
    }

    /// The old data of a primary is replaced by that of the new one. Returns how many sendings were
    /// lost.
    pub(super) fn failed_over(&mut self, old: &Redis, new: &Redis) -> usize {
        let (old, new) = (jobs_by_sending(old), jobs_by_sending(new));
        let lost: Vec<usize> =
            old.into_keys().filter(|sending| !new.contains_key(sending)).collect();
        let count = lost.len();
        self.lost.extend(lost);
        for (_, _, result) in self.unreplicated.drain(..) {
            self.has_lost_late |= result == BatchResult::Late;
            self.has_lost_withdrawal |= result == BatchResult::Withdrawn;
        }
        count
    }

    /// What the last sending shows to be left over in its producer and the record of it: it was
    /// sent when nothing else was under way.
    pub(super) fn leftovers(&self, redis: &Redis) -> Option<String> {
        let last = self.sendings.len() - 1;
        let attempt = self.attempts.values().rfind(|attempt| attempt.sendings == [last])?;
        if attempt.mark + 1 != attempt.number {
            let Attempt { number, mark, .. } = attempt;
            return Some(format!("number {number} is sent with the mark {mark}"));
        }
        let record = redis.producers.get(&attempt.producer);
        let results = record.map_or(0, |record| record.results.len());
        (results != 1).then(|| format!("the record of the producer has {results} results"))
    }
}
