//! Random queues, and random calls of the script on them.

use model::script::{Command, Counter, Meta, Redis, Refusal};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A queue before the first call, and the calls.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) layout: &'static str,
    pub(super) writes_events: bool,
    pub(super) redis: Redis,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Call(Call),
    /// The queue is paused or resumed without moving a job.
    SetPaused(bool),
    /// The record of a producer expires.
    Expire(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) producer: usize,
    pub(super) number: u64,
    pub(super) mark: u64,
    pub(super) is_late: bool,
    pub(super) is_withdrawal: bool,
    pub(super) refusal: Option<Refusal>,
    pub(super) requests: Vec<Request>,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    Short,
    Long { jobs: usize, has_options: bool, key: Option<Key> },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) number: usize,
    pub(super) body: usize,
    /// Lifetime of the record.
    pub(super) hours: u64,
}

pub(super) fn history(steps: usize) -> impl Strategy<Value = History> {
    let layout = select(vec!["auto", "auto", "v5", "v6"]);
    (layout, any::<bool>(), redis(), vec(step(), 1..=steps)).prop_map(
        |(layout, writes_events, redis, steps)| History { layout, writes_events, redis, steps },
    )
}

fn redis() -> impl Strategy<Value = Redis> {
    let held = ["wait", "paused", "meta", "id", "events", "marker", "active"];
    let held = held.map(|key| format!("q:{key}")).into_iter();
    let held = held.chain((1..12).map(|id| format!("q:{id}")));
    let held: Vec<String> = held.chain(["p0", "k0"].map(str::to_owned)).collect();
    // Most queues have no such key.
    let held = prop_oneof![2 => Just([].into()), 1 => btree_set(select(held), 0..3)];
    let forbidden = prop_oneof![4 => Just(None), 1 => select(Command::ALL.to_vec()).prop_map(Some)];
    (0..3_i64, 0..3_i64, 0..3_u64, last_id(), meta(), held, forbidden).prop_map(
        |(waiting, paused, active, last_id, meta, held, forbidden)| {
            let mut redis = Redis {
                wait: (0..waiting).map(|id| -10 - id).collect(),
                paused: (0..paused).map(|id| -20 - id).collect(),
                active,
                last_id,
                meta,
                held_keys: held.iter().map(|key| key.as_str().into()).collect(),
                forbidden,
                ..Redis::default()
            };
            empty_held_keys(&mut redis);
            redis
        },
    )
}

fn empty_held_keys(redis: &mut Redis) {
    for key in redis.held_keys.clone() {
        match &*key {
            "q:wait" => redis.wait.clear(),
            "q:paused" => redis.paused.clear(),
            "q:active" => redis.active = 0,
            "q:id" => redis.last_id = Counter::Absent,
            "q:meta" => redis.meta = Meta::default(),
            _ => {}
        }
    }
}

fn last_id() -> impl Strategy<Value = Counter> {
    prop_oneof![
        8 => Just(Counter::Absent),
        4 => Just(Counter::Number(5)),
        1 => Just(Counter::Number((1 << 53) - 4)),
        1 => Just(Counter::NotANumber),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let versions = select(vec!["bullmq:5.61.0", "bullmq:6.0.1", "other"]);
    (option::of(Just("500")), any::<bool>(), option::of(1..3_u64), option::of(versions)).prop_map(
        |(max_events, is_paused, concurrency, version)| Meta {
            max_events: max_events.map(Into::into),
            is_paused,
            concurrency,
            version: version.map(Into::into),
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => call().prop_map(Step::Call),
        1 => any::<bool>().prop_map(Step::SetPaused),
        1 => (0..3_usize).prop_map(Step::Expire),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let refusals = [Refusal::OutOfMemory, Refusal::ReadOnly, Refusal::TooFewReplicas];
    let refusal = prop_oneof![6 => Just(None), 1 => select(refusals.to_vec()).prop_map(Some)];
    let (is_late, is_withdrawal) = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (0..3_usize, 1..8_u64, 0..6_u64, is_late, is_withdrawal, refusal, vec(request(), 0..5))
        .prop_map(|(producer, number, mark, is_late, is_withdrawal, refusal, requests)| {
            let requests = if is_withdrawal { Vec::new() } else { requests };
            // A batch is open while it is sent, so its number is above the mark.
            let mark = mark.min(number - 1);
            Call { producer, number, mark, is_late, is_withdrawal, refusal, requests }
        })
}

fn request() -> impl Strategy<Value = Request> {
    let key = (0..3_usize, 0..2_usize, 2..5_u64);
    let key = option::of(key.prop_map(|(number, body, hours)| Key { number, body, hours }));
    prop_oneof![
        1 => Just(Request::Short),
        3 => (0..4_usize, any::<bool>(), key)
            .prop_map(|(jobs, has_options, key)| Request::Long { jobs, has_options, key }),
    ]
}
