//! Compares the answers to callers with the jobs in Redis.
//!
//! A [`Load`] of a few callers sends webhooks, each with an id of its own in its payload, and
//! records every answer in a [`Ledger`]. After the load, [`Ledger::judge`] reads all jobs of the
//! queue and compares them with the answers. A 202 has exactly its jobs, and a refusal with
//! `enqueued: "none"` has none. A refusal with `"unknown"`, or a request without an answer, has all
//! of its jobs or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{cmd, pipe};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::documents::{Documents, user, workflow};
use super::http::{Caller, Reply};
use super::process::PATIENCE;
use super::queue::Queue;
use super::redis::Redis;
use super::wait::until;

/// The webhooks of a load and the number of workflows that each starts. Fan-outs would show a
/// request of which only some jobs are added.
pub const FANOUTS: [(&str, u64); 5] =
    [("wh_1", 1), ("wh_2", 2), ("wh_3", 3), ("wh_4", 4), ("wh_5", 5)];

/// The number of callers, and how much they send.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub callers: usize,
    /// Pause of a caller between two requests.
    pub pause: Duration,
    /// Requests of a caller; a load that is not stopped ends after them.
    pub requests: u64,
}

/// A few hundred requests a second at most.
const GENTLE: Pace = Pace { callers: 8, pause: Duration::from_millis(15), requests: 4000 };

/// The documents that a load needs: the workflows of [`FANOUTS`] and the user with `key_a`.
pub fn documents() -> Documents {
    let workflows = FANOUTS.iter().flat_map(|&(webhook, fanout)| {
        (0..fanout).map(move |serial| workflow(&format!("{webhook}_wf_{serial}"), "org_a", webhook))
    });
    Documents { workflows: workflows.collect(), users: vec![user("user_1", "org_a", "key_a")] }
}

/// What an answer says about the jobs of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 202: all jobs.
    Accepted { matched: u64 },
    /// A refusal that guarantees that there is no job, with its error code.
    Nothing { code: String },
    /// 503 for a batch that may have been executed: all jobs or none.
    Unknown { code: String },
    /// The connection could not be made: no job.
    NotSent,
    /// The connection broke before the answer: all jobs or none.
    Unanswered,
    /// An answer that the contract does not allow.
    Malformed { text: String },
    /// Neither an answer nor the end of the connection within [`PATIENCE`].
    Hung,
}

impl Answer {
    pub fn from_reply(reply: &Reply) -> Self {
        let json: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let code = json["code"].as_str().map(str::to_owned);
        let enqueued = json["details"]["enqueued"].as_str();
        match (reply.status, json["data"]["matchedCount"].as_u64(), code, enqueued) {
            (202, Some(matched), _, _) => Self::Accepted { matched },
            (400..500, _, Some(code), _) | (500 | 503, _, Some(code), Some("none")) => {
                Self::Nothing { code }
            }
            (500 | 503, _, Some(code), Some("unknown")) => Self::Unknown { code },
            _ => Self::Malformed { text: format!("{} {json}", reply.status) },
        }
    }
}

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The id in its payload.
    pub request: String,
    /// Number of workflows that its webhook starts.
    pub fanout: u64,
    pub answer: Answer,
}

/// A job as it is in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub id: String,
    /// Number of places in the queue's lists and sets that name it; anything but one is a fault.
    pub named: usize,
    /// The id in its payload and its workflow; `None` if there is no hash that holds them.
    pub origin: Option<(String, String)>,
}

/// Every job of a queue, in every state.
pub async fn standing(redis: &Redis, queue: &Queue<'_>) -> Vec<Standing> {
    let mut connection = redis.connect().await;
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    let lists = ["wait", "paused", "active"].map(|list| ("LRANGE", list));
    let sets = ["delayed", "prioritized", "completed", "failed"].map(|set| ("ZRANGE", set));
    for (command, key) in lists.into_iter().chain(sets) {
        let mut range = cmd(command);
        let ids: Vec<String> =
            range.arg(queue.key(key)).arg(0).arg(-1).query_async(&mut connection).await.expect(key);
        for id in ids {
            *named.entry(id).or_default() += 1;
        }
    }
    for id in queue.hash_ids().await {
        named.entry(id).or_default();
    }
    let named: Vec<(String, usize)> = named.into_iter().collect();
    let mut jobs = Vec::with_capacity(named.len());
    for some in named.chunks(500) {
        let mut reads = pipe();
        for (id, _) in some {
            reads.hget(queue.key(id), "data");
        }
        let data: Vec<Option<Vec<u8>>> =
            reads.query_async(&mut connection).await.expect("job hashes");
        jobs.extend(some.iter().zip(data).map(|((id, named), data)| Standing {
            id: id.clone(),
            named: *named,
            origin: data.as_deref().and_then(origin),
        }));
    }
    jobs
}

fn origin(data: &[u8]) -> Option<(String, String)> {
    let data: Value = serde_json::from_slice(data).ok()?;
    let text = |pointer: &str| data.pointer(pointer)?.as_str().map(str::to_owned);
    Some((text("/trigger/payload/request")?, text("/workflowId")?))
}

/// The result of a load.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Number of requests by outcome.
    pub accepted: usize,
    pub nothing: usize,
    pub unknown: usize,
    pub not_sent: usize,
    pub unanswered: usize,
    /// Number of jobs that the 202s promised.
    pub promised_jobs: u64,
    /// Number of jobs in Redis.
    pub standing_jobs: u64,
    /// The codes of all refusals.
    pub codes: BTreeSet<String>,
    /// Every violation of the contract, as a sentence.
    pub faults: Vec<String>,
}

impl Verdict {
    /// Compares the jobs with the answers.
    pub fn new(entries: &[Entry], jobs: &[Standing]) -> Self {
        let mut verdict = Self { standing_jobs: jobs.len() as u64, ..Self::default() };
        let mut by_request: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for job in jobs {
            if job.named != 1 {
                verdict.fault(format!("job {} is named {} times by the queue", job.id, job.named));
            }
            match &job.origin {
                Some((request, workflow)) => by_request.entry(request).or_default().push(workflow),
                None => {
                    verdict.fault(format!("job {} does not have the data of a request", job.id));
                }
            }
        }
        for entry in entries {
            let workflows = by_request.remove(entry.request.as_str()).unwrap_or_default();
            verdict.count(entry);
            verdict.hold(entry, &workflows);
        }
        for (request, workflows) in by_request {
            verdict.fault(format!("{request} was never sent but has jobs for {workflows:?}"));
        }
        verdict
    }

    /// Fails the test if there is any fault.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert!(self.faults.is_empty(), "{self}");
    }

    fn count(&mut self, entry: &Entry) {
        match &entry.answer {
            Answer::Accepted { matched } => {
                self.accepted += 1;
                self.promised_jobs += matched;
            }
            Answer::Nothing { code } => {
                self.nothing += 1;
                self.codes.insert(code.clone());
            }
            Answer::Unknown { code } => {
                self.unknown += 1;
                self.codes.insert(code.clone());
            }
            Answer::NotSent => self.not_sent += 1,
            Answer::Unanswered => self.unanswered += 1,
            Answer::Malformed { .. } | Answer::Hung => {}
        }
    }

    fn hold(&mut self, entry: &Entry, workflows: &[&str]) {
        let Entry { request, fanout, answer } = entry;
        let (all, standing) = (*fanout, workflows.len() as u64);
        let distinct: BTreeSet<&&str> = workflows.iter().collect();
        if distinct.len() < workflows.len() {
            self.fault(format!(
                "{request} has a job twice: {workflows:?}; it was answered {answer:?}"
            ));
        }
        let is_as_promised = match answer {
            Answer::Accepted { matched } => *matched == all && standing == all,
            Answer::Nothing { .. } | Answer::NotSent => standing == 0,
            Answer::Unknown { .. } | Answer::Unanswered => standing == 0 || standing == all,
            Answer::Malformed { .. } | Answer::Hung => false,
        };
        if !is_as_promised {
            self.fault(format!(
                "{request} has {standing} of {all} jobs; it was answered {answer:?}"
            ));
        }
    }

    fn fault(&mut self, sentence: String) {
        self.faults.push(sentence);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, nothing, unknown, not_sent, unanswered, .. } = self;
        writeln!(f, "{} faults", self.faults.len())?;
        for fault in self.faults.iter().take(20) {
            writeln!(f, "  {fault}")?;
        }
        writeln!(
            f,
            "{accepted} accepted, {nothing} refused, {unknown} unknown, {not_sent} not sent, {unanswered} unanswered"
        )?;
        write!(f, "{} jobs promised, {} in Redis", self.promised_jobs, self.standing_jobs)
    }
}

/// The answers that callers got; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Ledger {
    /// Sends one webhook with an id of its own and records its answer.
    pub async fn send(&self, caller: &Caller, request: &str, target: (&str, u64)) {
        self.send_as(caller, "key_a", request, target).await;
    }

    /// Likewise, with another credential. Returns the answer.
    pub async fn send_as(
        &self,
        caller: &Caller,
        credential: &str,
        request: &str,
        (webhook, fanout): (&str, u64),
    ) -> Answer {
        let body = json!({ "webhookId": webhook, "request": request }).to_string();
        let call = caller.post(body).bearer(credential);
        let answer = match tokio::time::timeout(PATIENCE, call.try_send()).await {
            Ok(Ok(reply)) => Answer::from_reply(&reply),
            Ok(Err(error)) if error.is_connect() => Answer::NotSent,
            Ok(Err(_)) => Answer::Unanswered,
            Err(_) => Answer::Hung,
        };
        let entry = Entry { request: request.to_owned(), fanout, answer: answer.clone() };
        self.entries().push(entry);
        answer
    }

    /// Number of requests with such an answer.
    pub fn count(&self, like: impl Fn(&Answer) -> bool) -> usize {
        self.entries().iter().filter(|entry| like(&entry.answer)).count()
    }

    /// All requests so far.
    pub fn all(&self) -> Vec<Entry> {
        self.entries().clone()
    }

    /// Reads the queue and compares it with the answers. Call it when no request is in flight.
    pub async fn judge(&self, redis: &Redis) -> Verdict {
        self.judge_jobs(&standing(redis, &redis.queue()).await)
    }

    /// Compares the answers with these jobs, which are those of all queues.
    pub fn judge_jobs(&self, jobs: &[Standing]) -> Verdict {
        Verdict::new(&self.entries(), jobs)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A few callers that send one webhook after the other until they are stopped.
#[derive(Debug)]
pub struct Load {
    ledger: Ledger,
    stop: watch::Sender<bool>,
    callers: JoinSet<()>,
}

impl Load {
    pub fn start(caller: &Caller) -> Self {
        Self::at(GENTLE, caller)
    }

    pub fn at(pace: Pace, caller: &Caller) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut load = Self { ledger: Ledger::default(), stop, callers: JoinSet::new() };
        for serial in 0..pace.callers {
            let (caller, ledger, stopped) = (caller.clone(), load.ledger.clone(), stopped.clone());
            load.callers.spawn(async move {
                let targets = FANOUTS.iter().cycle().skip(serial);
                for (number, target) in (0..pace.requests).zip(targets) {
                    if *stopped.borrow() {
                        break;
                    }
                    ledger.send(&caller, &format!("request-{serial}-{number}"), *target).await;
                    tokio::time::sleep(pace.pause).await;
                }
            });
        }
        load
    }

    /// Whether every caller has sent all that its pace allows.
    pub fn has_ended(&mut self) -> bool {
        while self.callers.try_join_next().is_some() {}
        self.callers.is_empty()
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Waits until this many more requests have been accepted.
    pub async fn more_accepted(&self, more: usize) {
        self.more("accepted", more, |answer| matches!(answer, Answer::Accepted { .. })).await;
    }

    /// Waits until this many more requests have been refused, with or without doubt about their
    /// jobs.
    pub async fn more_refused(&self, more: usize) {
        let refused =
            |answer: &Answer| matches!(answer, Answer::Nothing { .. } | Answer::Unknown { .. });
        self.more("refused", more, refused).await;
    }

    /// Waits until this many more requests have such an answer.
    pub async fn more(&self, what: &str, more: usize, like: impl Fn(&Answer) -> bool) {
        let before = self.ledger.count(&like);
        let what = format!("{more} more requests are {what}");
        until(&what, async || self.ledger.count(&like) >= before + more).await;
    }

    /// Lets every caller finish its request.
    pub async fn stop(self) -> Ledger {
        self.stop.send_replace(true);
        self.run_out().await
    }

    /// Lets every caller send all that its pace allows.
    pub async fn run_out(mut self) -> Ledger {
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller does not panic");
        }
        self.ledger.clone()
    }
}
