//! Three times as many requests as the capacity: the service carries out as many as it can and
//! refuses the rest at once.
//!
//! The default takes a few seconds. The measured run is
//!
//! ```sh
//! OVERLOAD_SECONDS=60 cargo test --test it queue::overload -- --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "a long run prints its figures")]

use std::time::Duration;

use testkit::chaos::{ChaosProxy, Way};
use testkit::config::patient;
use testkit::size::from_environment;
use testkit::{App, Caller, Redis};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Redis executes one call of this many jobs at a time, in this time: 400 jobs a second, on any
/// machine.
const JOBS_OF_A_CALL: u32 = 8;
const CALL: Duration = Duration::from_millis(20);

/// Requests that may wait, for a sixth of a second.
const IN_FLIGHT: u32 = 64;

const TICK: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_served_up_to_capacity_and_the_rest_refused_at_once() {
    let span = Duration::from_secs(from_environment("OVERLOAD_SECONDS", 3));
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, 1).await;
    let app = App::build().redis(redis).redis_address(&proxy.url()).config(|config| {
        config.set("server.workers", 1).set("telemetry.log", "info");
        // Admitted requests succeed and no connection is closed, however slow the machine is.
        patient(config);
        config.set("queue.batch.max_jobs", JOBS_OF_A_CALL).set("queue.batch.max_in_flight", 1);
        config.set("limits.in_flight_requests", IN_FLIGHT);
        config.set("limits.organization.in_flight_share", 1.0);
    });
    let app = app.start().await;
    proxy.all().delay(Way::ToClient, CALL..=CALL);

    let peak = load_at_capacity(&app.caller, span).await;
    let capacity = f64::from(JOBS_OF_A_CALL) / CALL.as_secs_f64();
    let overload = load_at_three_times_capacity(&app.caller, capacity, span).await;
    println!("capacity {:.0} a second; offered {:.0}:", peak.rate(), 3.0 * capacity);
    println!("{:.0} a second, {:.2} of that", overload.rate(), overload.rate() / peak.rate());
    println!("refused {} in {:?} (p99)", overload.refused.len(), overload.slowest_refusals());

    assert_eq!(peak.refused.len(), 0, "there is room for all requests");
    assert!(
        overload.accepted > 0 && overload.refused.len() > overload.accepted,
        "the load is over the capacity"
    );
    let jobs = app.redis.queue().waiting_ids().await.len();
    assert_eq!(jobs, peak.accepted + overload.accepted);
    app.assert_accounting().await;
}

#[derive(Default)]
struct Tally {
    accepted: usize,
    /// How long each refusal took.
    refused: Vec<Duration>,
    span: Duration,
}

impl Tally {
    fn rate(&self) -> f64 {
        self.accepted as f64 / self.span.as_secs_f64()
    }

    fn slowest_refusals(&self) -> Option<Duration> {
        let mut sorted = self.refused.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 99 / 100).copied()
    }

    fn add(&mut self, refused: Option<Duration>) {
        match refused {
            None => self.accepted += 1,
            Some(after) => self.refused.push(after),
        }
    }
}

/// Fewer callers than the in-flight limit, which wait for their answers.
async fn load_at_capacity(caller: &Caller, span: Duration) -> Tally {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..IN_FLIGHT * 3 / 4 {
        let caller = caller.clone();
        callers.spawn(async move {
            let mut answers = Vec::new();
            while begun.elapsed() < span {
                answers.push(send(&caller).await);
            }
            answers
        });
    }
    let mut tally = Tally::default();
    callers.join_all().await.into_iter().flatten().for_each(|answer| tally.add(answer));
    tally.span = begun.elapsed();
    tally
}

/// Requests at a fixed rate, whatever the answers.
async fn load_at_three_times_capacity(caller: &Caller, capacity: f64, span: Duration) -> Tally {
    let begun = Instant::now();
    let (mut ticks, mut calls) = (interval(TICK), JoinSet::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = 0.0;
    while begun.elapsed() < span {
        ticks.tick().await;
        while sent < begun.elapsed().as_secs_f64() * 3.0 * capacity {
            sent += 1.0;
            let caller = caller.clone();
            calls.spawn(async move { send(&caller).await });
        }
    }
    let mut tally = Tally::default();
    calls.join_all().await.into_iter().for_each(|answer| tally.add(answer));
    tally.span = begun.elapsed();
    tally
}

/// `None` if the request was accepted, else how long its refusal took.
async fn send(caller: &Caller) -> Option<Duration> {
    let begun = Instant::now();
    let reply = caller.webhook("wh_1").send().await;
    if reply.status == 202 {
        return None;
    }
    reply.assert_rejected(503, "overloaded");
    assert_eq!(reply.header("retry-after"), Some("1"));
    Some(begun.elapsed())
}
