//! Callers of many organizations under load, and where the jobs of each land.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use testkit::documents::{Documents, workflow};
use testkit::http::Caller;
use testkit::ledger::{Answer, Entry, FANOUTS, Ledger, Standing, standing};
use testkit::queue::Queue;
use testkit::tokens::{claims, token};
use testkit::wait::until;
use testkit::{Redis, ledger};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Enough that every queue has some.
const ORGANIZATIONS: usize = 24;

const CALLERS: usize = 8;

/// Pause of a caller between two requests.
const PAUSE: Duration = Duration::from_millis(15);

pub(super) fn organizations() -> Vec<String> {
    (0..ORGANIZATIONS).map(|number| format!("org_{number:02}")).collect()
}

/// The documents that a load needs: the workflows of [`FANOUTS`] for each organization.
pub(super) fn documents() -> Documents {
    let workflows = organizations().into_iter().flat_map(|organization| {
        FANOUTS.iter().flat_map(move |&(webhook, fanout)| {
            let organization = organization.clone();
            (0..fanout).map(move |serial| {
                workflow(&format!("{organization}_{webhook}_{serial}"), &organization, webhook)
            })
        })
    });
    Documents { workflows: workflows.collect(), users: Vec::new() }
}

pub(super) fn token_of(organization: &str) -> String {
    token(&claims(organization, "user_1"))
}

/// A few callers that send webhooks of all organizations in turn until they are stopped, each to
/// all Hookgates in turn.
#[derive(Debug)]
pub(super) struct Load {
    ledger: Ledger,
    stop: watch::Sender<bool>,
    callers: JoinSet<()>,
}

impl Load {
    /// Starts the load on these Hookgates.
    pub(super) fn start(hookgates: &[Caller]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut load = Self { ledger: Ledger::default(), stop, callers: JoinSet::new() };
        for serial in 0..CALLERS {
            let (hookgates, ledger) = (hookgates.to_vec(), load.ledger.clone());
            load.callers.spawn(send_until(stopped.clone(), serial, hookgates, ledger));
        }
        load
    }

    /// Waits until this many more requests have been accepted.
    pub(super) async fn more_accepted(&self, more: usize) {
        let is_accepted = |answer: &Answer| matches!(answer, Answer::Accepted { .. });
        let before = self.ledger.count(is_accepted);
        until(&format!("{more} more requests are accepted"), async || {
            self.ledger.count(is_accepted) >= before + more
        })
        .await;
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Lets every caller finish its request.
    pub(super) async fn stop(mut self) -> Ledger {
        self.stop.send_replace(true);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller does not panic");
        }
        self.ledger
    }
}

async fn send_until(
    stopped: watch::Receiver<bool>,
    serial: usize,
    hookgates: Vec<Caller>,
    ledger: Ledger,
) {
    let tokens = organizations().into_iter().map(|organization| {
        let token = token_of(&organization);
        (organization, token)
    });
    let tokens: Vec<(String, String)> = tokens.collect();
    for number in 0.. {
        if *stopped.borrow() {
            return;
        }
        let (organization, token) = &tokens[(serial + number * CALLERS) % tokens.len()];
        let target = FANOUTS[number % FANOUTS.len()];
        let hookgate = &hookgates[(serial + number) % hookgates.len()];
        let request = format!("{organization}/{serial}-{number}");
        ledger.send_as(hookgate, token, &request, target).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The organization of a request of a [`Load`].
fn organization_of(request: &str) -> &str {
    request.split('/').next().expect("a part")
}

/// The number of accepted requests of these organizations.
pub(super) fn accepted_of(ledger: &Ledger, organizations: &BTreeSet<String>) -> usize {
    let is_one = |entry: &&Entry| {
        let is_accepted = matches!(entry.answer, Answer::Accepted { .. });
        is_accepted && organizations.contains(organization_of(&entry.request))
    };
    ledger.all().iter().filter(is_one).count()
}

/// The requests that were not accepted, of the organizations that are not among these.
pub(super) fn refused_except(ledger: &Ledger, organizations: &BTreeSet<String>) -> Vec<Entry> {
    let is_other = |entry: &Entry| !organizations.contains(organization_of(&entry.request));
    let entries = ledger.all().into_iter().filter(is_other);
    entries.filter(|entry| !matches!(entry.answer, Answer::Accepted { .. })).collect()
}

/// The jobs of each queue.
#[derive(Debug)]
pub(super) struct Landed(Vec<Vec<Standing>>);

impl Landed {
    /// Reads the queues with these prefixes and names.
    pub(super) async fn read(queues: &[(&Redis, &str, String)]) -> Self {
        let mut jobs = Vec::new();
        for (redis, prefix, name) in queues {
            let queue: Queue<'_> = redis.queue_named(prefix, name);
            jobs.push(standing(redis, &queue).await);
        }
        Self(jobs)
    }

    pub(super) fn jobs(&self) -> Vec<Standing> {
        self.0.concat()
    }

    /// The number of jobs of a queue.
    pub(super) fn count(&self, queue: usize) -> usize {
        self.0[queue].len()
    }

    /// The queues that have jobs of each organization.
    pub(super) fn queues(&self) -> BTreeMap<String, BTreeSet<usize>> {
        let mut queues: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (queue, jobs) in self.0.iter().enumerate() {
            for (request, _) in jobs.iter().filter_map(|job| job.origin.as_ref()) {
                queues.entry(organization_of(request).to_owned()).or_default().insert(queue);
            }
        }
        queues
    }

    /// The one queue that has jobs of each organization.
    #[track_caller]
    pub(super) fn only_queues(&self) -> BTreeMap<String, usize> {
        let only = |(organization, queues): (String, BTreeSet<usize>)| {
            assert_eq!(queues.len(), 1, "{organization} has jobs in {queues:?}");
            (organization, queues.into_iter().next().expect("one"))
        };
        self.queues().into_iter().map(only).collect()
    }
}

/// Compares the answers with the jobs of all queues.
pub(super) fn judge(ledger: &Ledger, landed: &Landed) -> ledger::Verdict {
    ledger.judge_jobs(&landed.jobs())
}
