//! Compares what callers were answered, over all tries of a request, with the jobs in Redis.
//!
//! A request is sent again with its `Idempotency-Key`, to the other Hookgate, until it is accepted.
//! The checker sorts each request by its answers and its jobs. Lost, twice and in part are faults,
//! with one exception: replication in Redis is asynchronous, so a job is lost *by design* if a
//! primary has acknowledged it, and was demoted before its successor had it. For that the checker
//! needs to know what each server has written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use testkit::ledger::{Answer, Standing};

/// One of the times a request was sent, and its answer.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) hookgate: usize,
    pub(super) answer: Answer,
    /// The answer says that it repeats an earlier one.
    pub(super) is_replayed: bool,
}

impl Try {
    fn is_accepted(&self) -> bool {
        matches!(self.answer, Answer::Accepted { .. })
    }

    /// Whether the answer leaves open what has become of the jobs.
    fn is_in_doubt(&self) -> bool {
        matches!(self.answer, Answer::Unknown { .. } | Answer::Unanswered)
    }
}

/// A request and all its tries, in order. Only one with a key has several.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) id: String,
    /// Number of workflows that its webhook starts.
    pub(super) fanout: u64,
    pub(super) tries: Vec<Try>,
}

/// The requests whose jobs servers have written, as the servers themselves reported.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// By servers that hold the jobs in the end.
    pub(super) by_survivors: BTreeSet<String>,
    /// By servers that were demoted afterwards.
    pub(super) by_demoted: BTreeSet<String>,
}

/// The result: the number of requests by what has become of them.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Answered 202 in the end, with all jobs.
    pub(super) landed: usize,
    /// Of these, those that were sent more than once before they were accepted.
    pub(super) after_refusal: usize,
    /// Of these, those whose first accepted answer was replayed: the refused try had landed.
    pub(super) replayed: usize,
    /// Never accepted, and all jobs are there.
    pub(super) landed_in_doubt: usize,
    /// Never accepted, and no job is there.
    pub(super) absent: usize,
    /// Accepted, and lost with a primary that was demoted.
    pub(super) lost_by_design: BTreeSet<String>,
    /// Every violation of a promise, as a sentence.
    pub(super) faults: Vec<String>,
}

impl Verdict {
    pub(super) fn new(requests: &[Request], jobs: &[Standing], seen: &Seen) -> Self {
        let mut verdict = Self::default();
        let mut by_request: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for job in jobs {
            if job.named != 1 {
                verdict.fault(format!("job {} is named {} times by the queue", job.id, job.named));
            }
            match &job.origin {
                Some((request, workflow)) => by_request.entry(request).or_default().push(workflow),
                None => verdict.fault(format!("job {} has no data of a request", job.id)),
            }
        }
        for request in requests {
            let workflows = by_request.remove(request.id.as_str()).unwrap_or_default();
            verdict.judge_answers(request, seen);
            verdict.judge_jobs(request, &workflows, seen);
        }
        for (request, workflows) in by_request {
            verdict.fault(format!("{request} was never sent but has jobs for {workflows:?}"));
        }
        verdict
    }

    /// Fails the test if there is any fault.
    #[track_caller]
    pub(super) fn assert_sound(&self) {
        assert!(self.faults.is_empty(), "{self}");
    }

    /// Fails the test if Redis itself has lost anything, which it may only if a primary is demoted.
    #[track_caller]
    pub(super) fn assert_nothing_lost(&self) {
        assert!(self.lost_by_design.is_empty(), "{self}: {:?}", self.lost_by_design);
    }

    /// Whether the answers agree with each other.
    fn judge_answers(&mut self, request: &Request, seen: &Seen) {
        let Request { id, fanout, tries } = request;
        // Whether an earlier try may have written the jobs, and whether one has by its own answer.
        let (mut may_be_there, mut is_there) = (false, false);
        for Try { answer, is_replayed, .. } in tries {
            match answer {
                Answer::Accepted { matched } if matched != fanout => {
                    self.fault(format!("{id} has {fanout} matches, and {matched} were answered"));
                }
                Answer::Accepted { .. } if *is_replayed && !may_be_there => {
                    self.fault(format!("{id} is a repeat, though nothing was there: {tries:?}"));
                }
                // The record of the key is lost with the jobs.
                Answer::Accepted { .. }
                    if !is_replayed && is_there && !seen.by_demoted.contains(id) =>
                {
                    self.fault(format!("{id} was added again: {tries:?}"));
                }
                Answer::Malformed { .. } | Answer::Hung => {
                    self.fault(format!("{id} has no proper answer: {tries:?}"));
                }
                _ => {}
            }
            is_there |= matches!(answer, Answer::Accepted { .. });
            may_be_there |=
                is_there || matches!(answer, Answer::Unknown { .. } | Answer::Unanswered);
        }
    }

    fn judge_jobs(&mut self, request: &Request, workflows: &[&str], seen: &Seen) {
        let Request { id, fanout, tries } = request;
        let distinct: BTreeSet<&&str> = workflows.iter().collect();
        if distinct.len() < workflows.len() {
            return self.fault(format!("{id} has a job twice: {workflows:?}; {tries:?}"));
        }
        let is_complete = workflows.len() as u64 == *fanout;
        if !is_complete && !workflows.is_empty() {
            let found = workflows.len();
            return self.fault(format!("{id} has {found} of {fanout} jobs; {tries:?}"));
        }
        match tries.iter().position(Try::is_accepted) {
            Some(first) if is_complete => {
                self.landed += 1;
                self.after_refusal += usize::from(first > 0);
                self.replayed += usize::from(tries[first].is_replayed);
            }
            Some(_) if seen.by_survivors.contains(id) => {
                self.fault(format!("{id} is lost, though a survivor had its jobs: {tries:?}"));
            }
            Some(_) if seen.by_demoted.contains(id) => {
                self.lost_by_design.insert(id.clone());
            }
            Some(_) => self.fault(format!("{id} is lost: {tries:?}")),
            None if is_complete && !tries.iter().any(Try::is_in_doubt) => {
                self.fault(format!("{id} has jobs, though none were enqueued: {tries:?}"));
            }
            None if is_complete => self.landed_in_doubt += 1,
            None => self.absent += 1,
        }
    }

    fn fault(&mut self, sentence: String) {
        self.faults.push(sentence);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { landed, after_refusal, replayed, landed_in_doubt, absent, .. } = self;
        let lost = self.lost_by_design.len();
        write!(
            f,
            "{} accepted, {landed} landed ({after_refusal} sent again, of which {replayed} \
             had landed), {lost} lost by design; not accepted: {landed_in_doubt} landed, {absent} \
             absent; {} faults",
            landed + lost,
            self.faults.len()
        )?;
        for fault in self.faults.iter().take(20) {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Try {
        with(Answer::Accepted { matched: 2 })
    }

    fn replayed() -> Try {
        Try { is_replayed: true, ..accepted() }
    }

    fn none() -> Try {
        with(Answer::Nothing { code: "queue_unavailable".to_owned() })
    }

    fn unknown() -> Try {
        with(Answer::Unknown { code: "queue_unavailable".to_owned() })
    }

    fn with(answer: Answer) -> Try {
        Try { hookgate: 0, answer, is_replayed: false }
    }

    fn job(id: u32, request: &str, workflow: &str) -> Standing {
        let origin = Some((request.to_owned(), workflow.to_owned()));
        Standing { id: id.to_string(), named: 1, origin }
    }

    fn both() -> Vec<Standing> {
        vec![job(1, "r", "a"), job(2, "r", "b")]
    }

    fn demoted() -> Seen {
        Seen { by_demoted: BTreeSet::from(["r".to_owned()]), ..Seen::default() }
    }

    fn judge(tries: Vec<Try>, jobs: &[Standing], seen: &Seen) -> Verdict {
        Verdict::new(&[Request { id: "r".to_owned(), fanout: 2, tries }], jobs, seen)
    }

    #[test]
    fn sound_histories_are_sorted() {
        // Landed, after a refusal, replayed, landed in doubt, absent, lost by design.
        for (tries, jobs, seen, expected) in [
            (vec![accepted()], both(), Seen::default(), [1, 0, 0, 0, 0, 0]),
            (vec![accepted(), replayed()], both(), Seen::default(), [1, 0, 0, 0, 0, 0]),
            (vec![none(), accepted()], both(), Seen::default(), [1, 1, 0, 0, 0, 0]),
            (vec![unknown(), accepted()], both(), Seen::default(), [1, 1, 0, 0, 0, 0]),
            (vec![unknown(), replayed()], both(), Seen::default(), [1, 1, 1, 0, 0, 0]),
            (vec![with(Answer::Unanswered), replayed()], both(), demoted(), [1, 1, 1, 0, 0, 0]),
            (vec![unknown()], both(), Seen::default(), [0, 0, 0, 1, 0, 0]),
            (vec![none(), unknown()], vec![], Seen::default(), [0, 0, 0, 0, 1, 0]),
            (vec![none()], vec![], demoted(), [0, 0, 0, 0, 1, 0]),
            (vec![accepted()], vec![], demoted(), [0, 0, 0, 0, 0, 1]),
            // Lost with its key, and added to the successor.
            (vec![accepted(), accepted()], both(), demoted(), [1, 0, 0, 0, 0, 0]),
        ] {
            let verdict = judge(tries, &jobs, &seen);
            verdict.assert_sound();
            let Verdict { landed, after_refusal, replayed, landed_in_doubt, absent, .. } = verdict;
            let lost = verdict.lost_by_design.len();
            let found = [landed, after_refusal, replayed, landed_in_doubt, absent, lost];
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn each_violation_is_a_fault() {
        let survived = || Seen { by_survivors: demoted().by_demoted, ..demoted() };
        let twice = || [both(), vec![job(3, "r", "b")]].concat();
        let part = || vec![job(1, "r", "a")];
        let named_twice = vec![Standing { named: 2, ..job(1, "r", "a") }, job(2, "r", "b")];
        let without_data = vec![Standing { origin: None, ..job(3, "r", "c") }];
        for (what, tries, jobs, seen) in [
            ("lost", vec![accepted()], vec![], Seen::default()),
            ("lost after a repeat", vec![unknown(), replayed()], vec![], Seen::default()),
            ("lost though a survivor had it", vec![accepted()], vec![], survived()),
            ("twice", vec![accepted()], twice(), Seen::default()),
            ("twice in doubt", vec![unknown()], twice(), demoted()),
            (
                "twice instead of two",
                vec![accepted()],
                vec![job(1, "r", "a"), job(2, "r", "a")],
                demoted(),
            ),
            ("in part", vec![accepted()], part(), demoted()),
            ("in part in doubt", vec![unknown()], part(), demoted()),
            ("there after none", vec![none()], both(), demoted()),
            ("added again", vec![accepted(), accepted()], both(), Seen::default()),
            ("replayed out of nothing", vec![none(), replayed()], both(), demoted()),
            ("too few matches", vec![with(Answer::Accepted { matched: 1 })], both(), demoted()),
            ("hung", vec![with(Answer::Hung)], vec![], demoted()),
            (
                "malformed",
                vec![with(Answer::Malformed { text: "502".to_owned() })],
                vec![],
                demoted(),
            ),
            ("never sent", vec![accepted()], [both(), vec![job(3, "s", "a")]].concat(), demoted()),
            ("named twice", vec![accepted()], named_twice, demoted()),
            ("without data", vec![accepted()], [both(), without_data].concat(), demoted()),
        ] {
            let verdict = judge(tries, &jobs, &seen);
            assert_eq!(verdict.faults.len(), 1, "{what}: {verdict}");
        }
    }
}
