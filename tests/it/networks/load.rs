//! Callers that send webhooks to two Hookgates, with an `Idempotency-Key`, and after a refusal or
//! silence send them again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use testkit::documents::{Documents, user, workflow};
use testkit::http::Caller;
use testkit::ledger::{Answer, FANOUTS};
use testkit::wait::until;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::history::{Request, Try};

/// Enough that each of two queues has some.
pub(super) const ORGANIZATIONS: usize = 8;

/// The beginning of the id of every request.
pub(super) const MARK: &str = "rq-";

const CALLERS: usize = 8;

/// Pause of a caller between two requests, and before it sends one again.
const PAUSE: Duration = Duration::from_millis(40);

/// How long a caller waits for an answer, which is longer than Hookgate waits for Redis.
const PATIENCE: Duration = Duration::from_secs(4);

/// Every one of this number of requests has no key, and is never sent again.
const WITHOUT_KEY: usize = 5;

/// Every one of this number of requests is sent again although it was accepted.
const REPEATED: usize = 7;

/// How often a request is sent after the end of the load.
const LAST_TRIES: usize = 50;

pub(super) fn organization(number: usize) -> String {
    format!("org_{number}")
}

/// The API key of an organization.
pub(super) fn key_of(organization: &str) -> String {
    format!("api-key-of-{organization}")
}

/// The workflows of [`FANOUTS`] and a user for each organization.
pub(super) fn documents() -> Documents {
    let mut documents = Documents::default();
    for organization in (0..ORGANIZATIONS).map(organization) {
        for (webhook, fanout) in FANOUTS {
            documents.workflows.extend((0..fanout).map(|serial| {
                workflow(&format!("{organization}-{webhook}-{serial}"), &organization, webhook)
            }));
        }
        let key = key_of(&organization);
        documents.users.push(user(&format!("user-of-{organization}"), &organization, &key));
    }
    documents
}

/// The organization of a request.
pub(super) fn organization_of(request: &str) -> String {
    let number = request.split('-').nth(1).and_then(|number| number.parse().ok());
    organization(number.expect("the number of an organization"))
}

/// A load on several Hookgates.
#[derive(Debug)]
pub(super) struct Load {
    history: Arc<Mutex<Vec<Request>>>,
    stop: watch::Sender<bool>,
    callers: JoinSet<()>,
}

impl Load {
    pub(super) fn start(hookgates: &[Caller]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut load = Self { history: Arc::default(), stop, callers: JoinSet::new() };
        for serial in 0..CALLERS {
            let sender = Sender {
                serial,
                hookgates: hookgates.to_vec(),
                history: Arc::clone(&load.history),
                stopped: stopped.clone(),
            };
            load.callers.spawn(sender.send_until_stopped());
        }
        load
    }

    /// All requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        lock(&self.history).clone()
    }

    /// Waits until this many more requests have been accepted by each of these Hookgates.
    pub(super) async fn more_accepted(&self, more: usize, hookgates: &[usize]) {
        self.more("accepted", more, hookgates, |answer| matches!(answer, Answer::Accepted { .. }))
            .await;
    }

    /// Waits until this many more tries have got a 503 of each of these Hookgates.
    pub(super) async fn more_refused(&self, more: usize, hookgates: &[usize]) {
        let is_refused =
            |answer: &Answer| matches!(answer, Answer::Nothing { .. } | Answer::Unknown { .. });
        self.more("refused", more, hookgates, is_refused).await;
    }

    /// Waits until this many more tries have had no answer of each of these Hookgates.
    pub(super) async fn more_unanswered(&self, more: usize, hookgates: &[usize]) {
        let is_silent = |answer: &Answer| matches!(answer, Answer::Unanswered | Answer::NotSent);
        self.more("unanswered", more, hookgates, is_silent).await;
    }

    async fn more(
        &self,
        what: &str,
        more: usize,
        hookgates: &[usize],
        like: impl Fn(&Answer) -> bool,
    ) {
        let count = |hookgate: usize| {
            let history = lock(&self.history);
            let tries = history.iter().flat_map(|request| &request.tries);
            tries.filter(|each| each.hookgate == hookgate && like(&each.answer)).count()
        };
        let before: Vec<usize> = hookgates.iter().map(|&hookgate| count(hookgate)).collect();
        until(&format!("{more} more tries are {what} by {hookgates:?}"), async || {
            hookgates
                .iter()
                .zip(&before)
                .all(|(&hookgate, before)| count(hookgate) >= before + more)
        })
        .await;
    }

    /// Lets every caller send its request until that is accepted.
    pub(super) async fn stop(mut self) -> Vec<Request> {
        self.stop.send_replace(true);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller does not panic");
        }
        self.requests()
    }
}

struct Sender {
    serial: usize,
    hookgates: Vec<Caller>,
    history: Arc<Mutex<Vec<Request>>>,
    stopped: watch::Receiver<bool>,
}

impl Sender {
    async fn send_until_stopped(self) {
        for number in 0.. {
            if *self.stopped.borrow() {
                return;
            }
            // A caller whose organization is not served does not keep the others from sending.
            let organization = self.serial % ORGANIZATIONS;
            let (webhook, fanout) = FANOUTS[number % FANOUTS.len()];
            let id = format!("{MARK}{organization}-{}-{number}", self.serial);
            let at = {
                let mut history = lock(&self.history);
                history.push(Request { id: id.clone(), fanout, tries: Vec::new() });
                history.len() - 1
            };
            self.send(number, at, &id, webhook).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends one request until it is accepted.
    async fn send(&self, number: usize, at: usize, id: &str, webhook: &str) {
        let has_key = !number.is_multiple_of(WITHOUT_KEY);
        let mut to_repeat = has_key && number.is_multiple_of(REPEATED);
        let mut last_tries = LAST_TRIES;
        for turn in self.serial + number.. {
            let hookgate = turn % self.hookgates.len();
            let sent = self.send_once(hookgate, id, webhook, has_key).await;
            let is_accepted = matches!(sent.answer, Answer::Accepted { .. });
            lock(&self.history)[at].tries.push(sent);
            if is_accepted && !std::mem::take(&mut to_repeat) || !has_key {
                return;
            }
            if *self.stopped.borrow() {
                last_tries -= 1;
                assert!(last_tries > 0, "{id} is not accepted: {:?}", lock(&self.history)[at]);
            }
            tokio::time::sleep(PAUSE * 3).await;
        }
    }

    async fn send_once(&self, hookgate: usize, id: &str, webhook: &str, has_key: bool) -> Try {
        let body = json!({ "webhookId": webhook, "request": id }).to_string();
        let mut call = self.hookgates[hookgate].post(body).bearer(&key_of(&organization_of(id)));
        if has_key {
            call = call.header("idempotency-key", id);
        }
        let (answer, is_replayed) = match tokio::time::timeout(PATIENCE, call.try_send()).await {
            Ok(Ok(reply)) => {
                let is_replayed = reply.header("idempotency-replayed") == Some("true");
                (Answer::from_reply(&reply), is_replayed)
            }
            Ok(Err(error)) if error.is_connect() => (Answer::NotSent, false),
            Ok(Err(_)) | Err(_) => (Answer::Unanswered, false),
        };
        Try { hookgate, answer, is_replayed }
    }
}

fn lock(history: &Mutex<Vec<Request>>) -> MutexGuard<'_, Vec<Request>> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}
