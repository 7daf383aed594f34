//! The callers of a run: they send requests, do not wait, wait too long, leave, and send again.

use crate::admission::Admission;
use crate::queue::bullmq::idempotency::Idempotency;
use crate::queue::bullmq::job::Jobs;
use crate::queue::simulation::ledger::{Answer, Sending};
use crate::queue::simulation::plan::RequestPlan;
use crate::queue::simulation::trace::Kind;
use crate::queue::simulation::world::SharedWorld;
use crate::queue::{Added, EnqueueError, Queue};
use bytes::Bytes;
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Lifetime of the record of an idempotency key, in milliseconds. It outlives every run.
const KEY_LIFETIME: u64 = 24 * 60 * 60 * 1000;

/// A process that accepts requests until it drains.
pub(super) type Process = Arc<Mutex<Option<Queue>>>;

/// Sends a request, and sends it again for as long as its plan and the answers say so.
pub(super) async fn call(
    world: SharedWorld,
    processes: Vec<Process>,
    admission: Arc<Admission>,
    plan: RequestPlan,
) {
    sleep(Duration::from_millis(plan.at)).await;
    let mut process = plan.process;
    for round in 0..=plan.resends {
        let queue = processes[process].lock().clone();
        let Some(queue) = queue else { return };
        if round > 0 {
            world.lock().trace.note(Kind::CallerResent, format_args!("at {process}"));
        }
        let answer = send(&world, queue, &admission, &plan).await;
        let may_repeat = match answer {
            Some(Answer::Nothing) => true,
            Some(Answer::Unknown | Answer::Added { .. }) | None => plan.key.is_some(),
            Some(_) => false,
        };
        if !may_repeat {
            return;
        }
        let pause = {
            let mut world = world.lock();
            process = world.rng.usize(0..processes.len());
            world.milliseconds(150)
        };
        sleep(pause).await;
    }
}

/// Sends a request once; `None` if its caller leaves before it is answered.
pub(super) async fn send(
    world: &SharedWorld,
    queue: Queue,
    admission: &Arc<Admission>,
    plan: &RequestPlan,
) -> Option<Answer> {
    let permit = admission.admit().expect("there are more permits than requests");
    let begun = Instant::now();
    let deadline = begun + world.lock().plan.enqueue_timeout;
    let sending = world.lock().ledger.begin(Sending {
        jobs: plan.jobs,
        key: plan.key,
        body: plan.body,
        deadline,
        answer: None,
    });
    let mut enqueue = pin!(queue.enqueue(jobs(sending, plan), permit));
    let slow = Duration::from_millis(plan.is_slow_for);
    if !slow.is_zero() && timeout(Duration::ZERO, &mut enqueue).await.is_err() {
        world.lock().trace.note(Kind::CallerSlow, format_args!("request {sending}"));
        sleep(slow).await;
    }
    let result = match plan.leaves_after {
        Some(after) => timeout(Duration::from_millis(after), enqueue).await.ok(),
        None => Some(enqueue.await),
    };
    let mut world = world.lock();
    let Some(result) = result else {
        world.trace.note(Kind::CallerLeft, format_args!("request {sending}"));
        return None;
    };
    let answer = Answer::new(&result);
    world.trace.note(kind(&result), format_args!("request {sending}: {answer:?}"));
    // A caller that does not look sees its answer when it does.
    let at = if slow.is_zero() { Instant::now() } else { begun };
    world.ledger.sendings[sending].answer = Some((answer, at));
    Some(answer)
}

fn kind(result: &Result<Added, EnqueueError>) -> Kind {
    match Answer::new(result) {
        Answer::Added { .. } => Kind::AnswerAdded,
        Answer::Repeated { .. } => Kind::AnswerRepeated,
        Answer::KeyReused => Kind::AnswerReused,
        Answer::Nothing => Kind::AnswerNone,
        Answer::Unknown => Kind::AnswerUnknown,
        Answer::TooLarge { is_limit_known: true } => Kind::AnswerTooLarge,
        Answer::TooLarge { is_limit_known: false } => Kind::AnswerTooLargeUnknown,
    }
}

/// The jobs of a sending. Each names the sending and its index, and so do the options of the long
/// form.
fn jobs(sending: usize, plan: &RequestPlan) -> Jobs {
    let filler = "x".repeat(plan.bytes);
    let is_short = plan.jobs == 1 && plan.key.is_none();
    let head = |index: usize| {
        let rest = if is_short { [filler.as_str(), "\"}"].concat() } else { String::new() };
        Bytes::from(format!("{{\"s\":{sending},\"j\":{index},\"p\":\"{rest}"))
    };
    let (options, tail) = if is_short {
        (String::new(), String::new())
    } else {
        (format!("{{\"s\":{sending}}}"), [filler.as_str(), "\"}"].concat())
    };
    let idempotency = plan.key.map(|key| Idempotency {
        key: format!("key-{key}"),
        fingerprint_and_lifetime: format!("{:02x} {KEY_LIFETIME}", plan.body).into(),
    });
    let heads: Vec<Bytes> = (0..plan.jobs).map(head).collect();
    let bytes = options.len() + tail.len() + heads.iter().map(Bytes::len).sum::<usize>();
    let (options, tail) = (options.into(), tail.into());
    Jobs { options, tail, heads, idempotency, bytes, traced: None }
}
