//! The connection to Redis stuck, silent, slow, refused or broken, under load: memory stays bounded, everybody is answered,
//! and service returns by itself. Each is a defect of the client library that must not show (`docs/adr/0015`).

#![expect(
    clippy::print_stdout,
    reason = "how soon service returned is worth reading, if not asserting"
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

/// More than is ever on the wire with [`for_many`], so that requests queue up. They are few and pause long enough that a busy
/// machine, on which they share a thread with the proxy, still has time for the requests of all.
const MANY: Pace = Pace { callers: 80, pause: Duration::from_millis(50), requests: 2000 };

/// At most 4 calls of some 5 requests are on the wire, and may wait as long as in a service as shipped.
fn for_many(config: &mut Config) {
    config.set("queue.batch.max_jobs", 16).set("queue.batch.max_in_flight", 4);
    config.set("queue.enqueue_timeout", "2s");
}

#[tokio::test]
async fn a_frozen_redis_is_found_out_under_traffic_and_does_not_run_what_was_given_up() {
    let (app, _proxy) = app(for_many).await;
    let load = Load::at(MANY, &app.caller);
    load.more_accepted(300).await;
    app.redis.freeze();
    load.more_refused(160).await;
    // Those that were on the wire when it froze, and what was sent until the silence was noticed, may have arrived.
    let unknown = load.ledger().count(is_unknown);
    load.more_refused(160).await;
    assert_eq!(load.ledger().count(is_unknown), unknown, "nothing is sent to it any more");
    let back = thawed(&app, &load).await;
    let verdict = judged(load, &app).await;
    println!("back {back:?} after the thaw; {verdict}");
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Unknown { .. })
}

#[tokio::test]
async fn large_bodies_for_a_frozen_redis_do_not_pile_up() {
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
    // All of it would be a hundred.
    assert!(most < 48.0 * MIB, "{:.1} MiB more for 8 MiB in flight", most / MIB);
    app.redis.thaw();
    until("large bodies are accepted", async || app.post(body(9999)).send().await.status == 202)
        .await;
}

#[tokio::test]
async fn a_full_queue_when_the_connection_breaks_is_emptied_when_it_is_back() {
    let (app, proxy) = app(|config| {
        for_many(config);
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
    assert!(verdict.codes.contains("overloaded"), "the queue was full: {verdict}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_black_hole_is_left_for_a_new_connection() {
    // One for all workers, and one for each; besides there is that of health.
    for (connections, for_jobs) in [(1, 1), (0, 2)] {
        let (app, proxy) = app(|config| {
            config.set("server.workers", 2).set("queue.connections", connections);
            // Silence is noticed after half of it. A busy machine has the other half for the new connection.
            config.set("queue.enqueue_timeout", "4s");
        })
        .await;
        let load = Load::start(&app.caller);
        load.more_accepted(40).await;
        // What is open answers no more, without a sign of having ended; new connections do.
        let accepted = proxy.counts().accepted;
        proxy.open().black_hole();
        until("new ones are made", async || proxy.counts().accepted > accepted + for_jobs).await;
        load.more_accepted(200).await;
        let verdict = judged(load, &app).await;
        assert_eq!(verdict.nothing + verdict.unknown, 0, "nobody has noticed: {verdict}");
    }
}

#[tokio::test]
async fn a_connection_that_died_while_nobody_used_it_is_replaced_before_somebody_does() {
    let (app, proxy) = app(|_| {}).await;
    let accepted = proxy.counts().accepted;
    proxy.open().black_hole();
    until("that for jobs and that of health are replaced", async || {
        proxy.counts().accepted >= accepted + 2
    })
    .await;
    app.hookgate.ready().await;
    let metrics = app.hookgate.metrics().await;
    assert!(metrics.sum("hookgate_redis_errors_total") == 0.0, "no request was needed for it");
}

#[tokio::test]
async fn a_black_hole_for_all_connections_is_told_and_left_when_it_ends() {
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
async fn connections_that_break_again_and_again_cost_no_memory() {
    let (app, proxy) = app(|_| {}).await;
    let load = Load::start(&app.caller);
    let break_some = async |times: u32| {
        for _ in 0..times {
            let accepted = proxy.counts().accepted;
            proxy.open().cut(Cut::Reset);
            // That of health may take its time.
            until("that for jobs is made again", async || proxy.counts().accepted > accepted).await;
            load.more_accepted(4).await;
        }
    };
    break_some(30).await;
    let before = resident(&app).await;
    break_some(150).await;
    let more = resident(&app).await - before;
    println!("{:.2} MiB more after 150 connections have broken, and those of health", more / MIB);
    assert!(more < 3.0 * MIB, "{:.2} MiB more", more / MIB);
    judged(load, &app).await;
}

#[tokio::test]
async fn a_redis_that_is_away_for_long_is_tried_for_ever() {
    let (mut app, _proxy) = app(|_| {}).await;
    let load = Load::start(&app.caller);
    load.more_accepted(40).await;
    app.redis.kill9().await;
    // Each of them waits for as long as a request may.
    load.more_refused(60).await;
    // Memory of jobs is gone with this Redis, and so is the ledger.
    drop(load);
    app.redis.start_again();
    let begun = Instant::now();
    until("webhooks are accepted", async || app.webhook("wh_1").send().await.status == 202).await;
    println!("back {:?} after Redis was started", begun.elapsed());
    app.hookgate.ready().await;
}

#[tokio::test]
async fn slow_and_crumbled_connections_are_only_slow() {
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
async fn a_redis_that_has_moved_is_found_at_its_new_place() {
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

/// Thaws Redis and waits for the first webhook that is accepted; tells how long that took.
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
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "somebody was not answered: {verdict}");
    app.assert_accounting().await;
    verdict
}

/// Bytes of memory that Hookgate has.
async fn resident(app: &App) -> f64 {
    app.hookgate.metrics().await.value("process_resident_memory_bytes", &[])
}
