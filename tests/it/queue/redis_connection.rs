//! The connection to Redis stuck, silent, slow, refused or broken, under load: memory stays
//! bounded, every request is answered, and service returns without intervention. Each case is a
//! defect of the client library that must not show (`docs/adr/0015`).

#![expect(
    clippy::print_stdout,
    reason = "the time until service returned is printed, not asserted"
)]

use std::time::Duration;

use serde_json::json;
use testkit::chaos::{ChaosProxy, Cut, Way};
use testkit::ledger::{self, Answer, Load, Pace, Verdict};
use testkit::wait::until;
use testkit::{App, Config, Redis};
use tokio::task::JoinSet;
use tokio::time::Instant;

const MIB: f64 = 1024.0 * 1024.0;

/// More callers than [`with_little_on_the_wire`] allows on the wire, so that requests queue up.
/// They are few and pause long enough that a busy machine, on which they share a thread with the
/// proxy, has time for the requests of all.
const MANY: Pace = Pace { callers: 80, pause: Duration::from_millis(50), requests: 2000 };

/// At most 4 calls of some 5 requests are on the wire; their timeout is the default.
fn with_little_on_the_wire(config: &mut Config) {
    config.set("queue.batch.max_jobs", 16).set("queue.batch.max_in_flight", 4);
    config.set("queue.enqueue_timeout", "2s");
}

#[tokio::test]
async fn a_frozen_redis_is_detected_and_executes_nothing_abandoned() {
    let (app, _proxy) = app(with_little_on_the_wire).await;
    let load = Load::at(MANY, &app.caller);
    load.more_accepted(300).await;
    app.redis.freeze();
    load.more_refused(160).await;
    // Requests that were on the wire when Redis froze, or were sent before the silence was noticed,
    // may have arrived.
    let unknown = load.ledger().count(is_unknown);
    load.more_refused(160).await;
    assert_eq!(load.ledger().count(is_unknown), unknown, "nothing more is sent to Redis");
    let back = thawed(&app, &load).await;
    let verdict = judged(load, &app).await;
    println!("back {back:?} after the thaw; {verdict}");
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Unknown { .. })
}

#[tokio::test]
async fn large_bodies_for_a_frozen_redis_use_bounded_memory() {
    let (app, _proxy) = app(|config| {
        config.set("limits.in_flight_bytes", "8MiB");
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let body =
        |n: u32| json!({ "webhookId": "wh_1", "n": n, "text": "x".repeat(100_000) }).to_string();
    assert_eq!(app.post(body(0)).send().await.matched(), 1);
    let before = resident(&app).await;
    app.redis.freeze();
    let mut most: f64 = 0.0;
    for round in 0..12 {
        let mut calls = JoinSet::new();
        for number in 0..200 {
            calls.spawn(app.post(body(round * 1000 + number)).send());
        }
        for reply in calls.join_all().await {
            assert_eq!(reply.status, 503, "{}", reply.text());
        }
        most = most.max(resident(&app).await - before);
    }
    println!("{:.1} MiB more while frozen", most / MIB);
    // Keeping everything in memory would take a hundred MiB.
    assert!(most < 48.0 * MIB, "{:.1} MiB more for 8 MiB in flight", most / MIB);
    app.redis.thaw();
    until("large bodies are accepted", async || app.post(body(9999)).send().await.status == 202)
        .await;
}

#[tokio::test]
async fn a_full_queue_drains_after_a_reconnect() {
    let (app, proxy) = app(|config| {
        with_little_on_the_wire(config);
        config.set("limits.in_flight_requests", 50);
        config.set("limits.organization.in_flight_share", 1.0);
    })
    .await;
    let load = Load::at(MANY, &app.caller);
    load.more_accepted(300).await;
    for _ in 0..3 {
        proxy.refuse_connections();
        proxy.open().cut(Cut::Reset);
        load.more_refused(300).await;
        proxy.accept_connections();
        load.more_accepted(300).await;
    }
    let verdict = load.stop().await.judge(&app.redis).await;
    verdict.assert_sound();
    assert!(verdict.codes.contains("overloaded"), "the queue is full: {verdict}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_black_hole_is_replaced_by_a_new_connection() {
    // One connection for all workers, and one for each worker; besides, there is the one of the
    // health check.
    for (connections, for_jobs) in [(1, 1), (0, 2)] {
        let (app, proxy) = app(|config| {
            config.set("server.workers", 2).set("queue.connections", connections);
            // Silence is noticed after half of this time. A busy machine has the other half for the
            // new connection.
            config.set("queue.enqueue_timeout", "4s");
        })
        .await;
        let load = Load::start(&app.caller);
        load.more_accepted(40).await;
        // Open connections answer nothing and do not close; new ones work.
        let accepted = proxy.counts().accepted;
        proxy.open().black_hole();
        until("new connections are made", async || proxy.counts().accepted > accepted + for_jobs)
            .await;
        load.more_accepted(200).await;
        let verdict = judged(load, &app).await;
        assert_eq!(verdict.nothing + verdict.unknown, 0, "no request has failed: {verdict}");
    }
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_before_its_next_use() {
    let (app, proxy) = app(|_| {}).await;
    let accepted = proxy.counts().accepted;
    proxy.open().black_hole();
    until("both connections are replaced", async || proxy.counts().accepted >= accepted + 2).await;
    app.hookgate.ready().await;
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.sum("hookgate_redis_errors_total") == 0.0, "no request was needed");
}

#[tokio::test]
async fn a_black_hole_for_all_connections_is_reported_until_it_ends() {
    let (app, proxy) = app(|_| {}).await;
    let load = Load::start(&app.caller);
    for _ in 0..2 {
        load.more_accepted(40).await;
        proxy.all().black_hole();
        app.hookgate.unready().await;
        load.more_refused(40).await;
        let begun = Instant::now();
        proxy.all().heal();
        load.more_accepted(1).await;
        println!("back {:?} after the black hole", begun.elapsed());
        app.hookgate.ready().await;
    }
    judged(load, &app).await;
}

#[tokio::test]
async fn repeatedly_broken_connections_leak_no_memory() {
    let (app, proxy) = app(|_| {}).await;
    let load = Load::start(&app.caller);
    let break_some = async |times: u32| {
        for _ in 0..times {
            let accepted = proxy.counts().accepted;
            proxy.open().cut(Cut::Reset);
            // The connection of the health check may be made later.
            until("the connection for jobs is made again", async || {
                proxy.counts().accepted > accepted
            })
            .await;
            load.more_accepted(4).await;
        }
    };
    break_some(30).await;
    let before = resident(&app).await;
    break_some(150).await;
    let more = resident(&app).await - before;
    println!(
        "{:.2} MiB more after 150 broken connections for jobs and those of the health check",
        more / MIB
    );
    // The allocator keeps 2 MiB, or 4 beside other tests.
    assert!(more < 6.0 * MIB, "{:.2} MiB more", more / MIB);
    judged(load, &app).await;
}

#[tokio::test]
async fn reconnecting_never_gives_up() {
    let (mut app, _proxy) = app(|_| {}).await;
    let load = Load::start(&app.caller);
    load.more_accepted(40).await;
    app.redis.kill9().await;
    // Each request waits for the whole timeout.
    load.more_refused(60).await;
    // This Redis has lost its jobs, so the ledger no longer applies.
    drop(load);
    app.redis.start_again();
    let begun = Instant::now();
    until("webhooks are accepted", async || app.webhook("wh_1").send().await.status == 202).await;
    println!("back {:?} after Redis was started", begun.elapsed());
    app.hookgate.ready().await;
}

#[tokio::test]
async fn slow_and_fragmented_connections_only_add_latency() {
    let (app, proxy) = app(|config| {
        config.set("queue.enqueue_timeout", "10s");
    })
    .await;
    let (a_while, latencies) =
        (Duration::from_millis(50), Duration::from_millis(100)..=Duration::from_millis(300));
    let load = Load::start(&app.caller);
    for fault in ["split", "gathered", "late there", "late back"] {
        match fault {
            "split" => {
                proxy.all().split(Way::ToRedis);
                proxy.all().split(Way::ToClient);
            }
            "gathered" => proxy.all().gather(Way::ToClient, a_while),
            "late there" => proxy.all().delay(Way::ToRedis, latencies.clone()),
            _ => proxy.all().delay(Way::ToClient, latencies.clone()),
        }
        load.more_accepted(60).await;
        proxy.all().heal();
        load.more_accepted(20).await;
    }
    let verdict = judged(load, &app).await;
    assert_eq!(verdict.nothing + verdict.unknown, 0, "{verdict}");
}

#[tokio::test]
async fn a_redis_is_found_at_its_new_address() {
    let (app, proxy) = app(|_| {}).await;
    let other = Redis::start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    proxy.redirect(&other);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    other.queue().only_job().await;
    app.redis.queue().only_job().await;
}

async fn app(change: impl FnOnce(&mut Config)) -> (App, ChaosProxy) {
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, 5).await;
    let app = App::build().documents(ledger::documents()).redis(redis).redis_address(&proxy.url());
    let app = app.config(|config| {
        config.set("queue.enqueue_timeout", "700ms");
        change(config);
    });
    (app.start().await, proxy)
}

/// Thaws Redis and waits for the first accepted webhook; returns how long that took.
async fn thawed(app: &App, load: &Load) -> Duration {
    let begun = Instant::now();
    app.redis.thaw();
    load.more_accepted(1).await;
    let back = begun.elapsed();
    load.more_accepted(300).await;
    back
}

async fn judged(load: Load, app: &App) -> Verdict {
    let verdict = load.stop().await.judge(&app.redis).await;
    verdict.assert_sound();
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "a request was not answered: {verdict}");
    app.assert_accounting().await;
    verdict
}

/// Bytes of memory that Hookgate uses.
async fn resident(app: &App) -> f64 {
    app.hookgate.metrics().await.value("process_resident_memory_bytes", &[])
}
