//! Tests of the chaos proxy: each fault happens as requested, and no other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use redis::cmd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::Instant;

use testkit::chaos::Way::{ToClient, ToRedis};
use testkit::chaos::{Cut, Held};
use testkit::ledger::{self, Load};
use testkit::raw_redis::{COUNT, Client, clients, is_reset_at_once, runs};
use testkit::wait::until;
use testkit::{App, ChaosProxy, Redis, resp};

const SEED: u64 = 7;

async fn proxied() -> (Redis, ChaosProxy) {
    let redis = Redis::start().await;
    let proxy = ChaosProxy::before(&redis, SEED).await;
    (redis, proxy)
}

#[tokio::test]
async fn without_faults_everything_passes_and_is_counted() {
    let (redis, proxy) = proxied().await;
    let mut client = Client::to(proxy.port()).await;
    let large = "x".repeat(3 << 20);
    client.ask(&["SET", "large", &large]).await;
    client.expect_bytes("+OK\r\n").await;
    client.ask(&["GET", "large"]).await;
    client.expect_bytes(resp_bulk(&large)).await;
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.open, counts.cuts), (1, 1, 0));
    let sent =
        resp::encode(&["SET", "large", &large]).len() + resp::encode(&["GET", "large"]).len();
    assert_eq!(counts.bytes.to_redis, sent as u64);
    assert_eq!(counts.bytes.to_client, (5 + resp_bulk(&large).len()) as u64);
    assert_eq!(proxy.held(), Held::default());
    drop(client);
    until("the connection has ended", async || proxy.counts().open == 0).await;
    drop(proxy);
    assert_eq!(redis.query::<String>(cmd("GET").arg("large")).await, large);
}

fn resp_bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn a_reply_is_cut_after_the_requested_byte() {
    let (_redis, proxy) = proxied().await;
    for (how, is_reset) in [(Cut::Fin, false), (Cut::Reset, true)] {
        for bytes in 1..=6 {
            let mut client = Client::to(proxy.port()).await;
            client.ask(&["PING"]).await;
            client.expect_bytes("+PONG\r\n").await;
            proxy.open().cut_after(ToClient, bytes, how);
            client.ask(&["PING"]).await;
            let length = usize::try_from(bytes).expect("a small number");
            assert_eq!(client.rest().await, (b"+PONG\r\n"[..length].to_vec(), is_reset));
        }
    }
    assert_eq!(proxy.counts().cuts, 12);
}

#[tokio::test]
async fn a_truncated_request_is_not_executed_and_a_complete_one_is() {
    let (redis, proxy) = proxied().await;
    let length = resp::encode(COUNT).len() as u64;
    for how in [Cut::Fin, Cut::Reset] {
        proxy.future().cut_after(ToRedis, length - 1, how);
        let mut client = Client::to(proxy.port()).await;
        client.ask(COUNT).await;
        assert_eq!(client.rest().await, (Vec::new(), how == Cut::Reset));
    }
    until("redis has closed both connections", async || clients(&redis).await == 1).await;
    assert_eq!(runs(&redis).await, 0);

    proxy.future().cut_after(ToRedis, length, Cut::Fin);
    let mut client = Client::to(proxy.port()).await;
    client.ask(COUNT).await;
    client.rest().await;
    until("redis has run the script", async || runs(&redis).await == 1).await;
}

#[tokio::test]
async fn a_cut_applies_to_the_first_connection_that_reaches_it() {
    let (_redis, proxy) = proxied().await;
    let mut one = Client::to(proxy.port()).await;
    let mut other = Client::to(proxy.port()).await;
    proxy.cut_one_after(ToClient, 17, Cut::Reset);
    for client in [&mut one, &mut other] {
        client.ask(&["PING"]).await;
        client.expect_bytes("+PONG\r\n").await;
    }
    one.ask(&["PING"]).await;
    assert_eq!(one.rest().await, (b"+PO".to_vec(), true));
    other.ask(&["PING"]).await;
    other.expect_bytes("+PONG\r\n").await;
    assert_eq!(proxy.counts().cuts, 1);
    proxy.all().cut(Cut::Fin);
    assert_eq!(other.rest().await, (Vec::new(), false));
    assert_eq!((proxy.counts().cuts, proxy.counts().open), (2, 0));
}

#[tokio::test]
async fn a_lost_request_is_not_executed_and_one_with_a_lost_reply_is() {
    let (redis, proxy) = proxied().await;
    proxy.lose_requests(1, Cut::Reset);
    let mut client = Client::to(proxy.port()).await;
    client.ask(&["PING"]).await;
    client.expect_bytes("+PONG\r\n").await;
    client.ask(COUNT).await;
    assert_eq!(client.rest().await, (Vec::new(), true));
    assert_eq!(runs(&redis).await, 0);

    proxy.lose_replies(2, Cut::Fin);
    for run in [1, 2] {
        let mut client = Client::to(proxy.port()).await;
        client.ask(&["PING"]).await;
        client.expect_bytes("+PONG\r\n").await;
        client.ask(COUNT).await;
        assert_eq!(client.rest().await, (Vec::new(), false));
        assert_eq!(runs(&redis).await, run);
    }
    let mut client = Client::to(proxy.port()).await;
    client.ask(COUNT).await;
    client.expect_bytes(":3\r\n").await;
    assert_eq!(proxy.counts().cuts, 3);
}

#[tokio::test]
async fn a_black_hole_is_silent_and_loses_nothing() {
    let (redis, proxy) = proxied().await;
    let mut client = Client::to(proxy.port()).await;
    client.ask(&["PING"]).await;
    client.expect_bytes("+PONG\r\n").await;
    proxy.all().black_hole();
    client.ask(COUNT).await;
    let mut new = Client::to(proxy.port()).await;
    new.ask(COUNT).await;
    client.hears_nothing().await;
    new.hears_nothing().await;
    assert_eq!(runs(&redis).await, 0);
    proxy.open().release();
    client.expect_bytes(":").await;
    new.expect_bytes(":").await;
    assert_eq!(runs(&redis).await, 2);

    // One direction only: the call is executed and not answered.
    proxy.all().heal();
    proxy.all().stall(ToClient);
    let mut client = Client::to(proxy.port()).await;
    client.ask(COUNT).await;
    until("redis has run the script", async || runs(&redis).await == 3).await;
    client.hears_nothing().await;
    proxy.all().release();
    client.expect_bytes(":3\r\n").await;
}

#[tokio::test]
async fn held_requests_are_delivered_after_their_client_has_gone() {
    let (redis, proxy) = proxied().await;
    let length = resp::encode(COUNT).len();
    let mut closes = Client::to(proxy.port()).await;
    let mut is_cut = Client::to(proxy.port()).await;
    let mut stays = Client::to(proxy.port()).await;
    until("all clients are connected", async || proxy.counts().open == 3).await;
    proxy.open().hold_requests();
    for client in [&mut closes, &mut is_cut, &mut stays] {
        client.ask(COUNT).await;
    }
    closes.ask(COUNT).await;
    drop(closes);
    until("one connection is late", async || proxy.held().late == 1).await;
    assert_eq!(proxy.counts().open, 2);
    until("all requests are held", async || proxy.held().bytes == 4 * length).await;

    // A new connection passes before the held request.
    let mut again = Client::to(proxy.port()).await;
    again.ask(COUNT).await;
    again.expect_bytes(":1\r\n").await;
    assert_eq!(proxy.deliver_late().await, [b":2\r\n:3\r\n"]);
    assert_eq!(proxy.deliver_late().await, Vec::<Vec<u8>>::new());
    assert_eq!(proxy.held(), Held { connections: 2, bytes: 2 * length, late: 0 });

    proxy.open().cut(Cut::Reset);
    assert_eq!(is_cut.rest().await, (Vec::new(), true));
    assert_eq!(stays.rest().await, (Vec::new(), true));
    until("the other connections are late", async || proxy.held().late == 2).await;
    let mut answers = proxy.deliver_late().await;
    answers.sort();
    assert_eq!(answers, [b":4\r\n", b":5\r\n"]);
    assert_eq!(runs(&redis).await, 5);
    assert_eq!((proxy.held(), proxy.counts().open), (Held::default(), 0));
}

#[tokio::test]
async fn released_requests_continue() {
    let (redis, proxy) = proxied().await;
    proxy.future().hold_requests();
    let mut client = Client::to(proxy.port()).await;
    client.ask(COUNT).await;
    client.hears_nothing().await;
    assert_eq!(runs(&redis).await, 0);
    proxy.all().release();
    client.expect_bytes(":1\r\n").await;
    assert_eq!(proxy.held(), Held::default());
}

#[tokio::test]
async fn a_late_attempt_waits_for_a_frozen_redis_and_ends_with_a_dead_one() {
    let (redis, proxy) = proxied().await;
    for _ in 0..2 {
        proxy.future().hold_requests();
        let mut client = Client::to(proxy.port()).await;
        client.ask(COUNT).await;
        until("the request is held", async || proxy.held().bytes > 0).await;
        drop(client);
        until("the connection is late", async || proxy.held().late == 1).await;
        if runs(&redis).await == 0 {
            redis.freeze();
            let delivering = async {
                assert_eq!(proxy.deliver_late().await, [b":1\r\n"]);
            };
            let thawing = async {
                until("the request is delivered", async || proxy.held().late == 0).await;
                redis.thaw();
            };
            tokio::join!(delivering, thawing);
            assert_eq!(runs(&redis).await, 1);
        } else {
            redis.kill9().await;
            until("nothing is held", async || proxy.held() == Held::default()).await;
        }
    }
}

#[tokio::test]
async fn bytes_are_split_and_gathered() {
    let (_redis, proxy) = proxied().await;
    let mut client = Client::to(proxy.port()).await;
    proxy.all().split(ToRedis);
    proxy.all().split(ToClient);
    client.ask(&["PING"]).await;
    client.expect_bytes("+PONG\r\n").await;
    let writes = proxy.counts().writes;
    assert_eq!((writes.to_redis, writes.to_client), (resp::encode(&["PING"]).len() as u64, 7));

    for (gathers, expected) in [(false, resp::encode(&["PING"]).len() as u64), (true, 1)] {
        proxy.all().heal();
        proxy.all().hold_requests();
        if gathers {
            proxy.all().gather(ToRedis, Duration::from_millis(1));
        }
        for (before, byte) in resp::encode(&["PING"]).into_iter().enumerate() {
            client.send([byte]).await;
            until("the byte is read", async || proxy.held().bytes == before + 1).await;
        }
        let writes = proxy.counts().writes;
        proxy.all().release();
        client.expect_bytes("+PONG\r\n").await;
        assert_eq!(proxy.counts().writes.to_redis, writes.to_redis + expected);
    }
}

#[tokio::test]
async fn inserted_bytes_come_once_before_a_reply() {
    let (_redis, proxy) = proxied().await;
    let mut client = Client::to(proxy.port()).await;
    until("it exists", async || proxy.counts().open == 1).await;
    proxy.open().insert_before_reply(b"\0?\r\n");
    client.ask(&["PING"]).await;
    client.expect_bytes("\0?\r\n+PONG\r\n").await;
    client.ask(&["PING"]).await;
    client.expect_bytes("+PONG\r\n").await;
}

#[tokio::test]
async fn latency_is_at_least_the_requested_time_and_keeps_the_order() {
    let (_redis, proxy) = proxied().await;
    let mut client = Client::to(proxy.port()).await;
    let (least, most) = (Duration::from_millis(30), Duration::from_millis(60));
    proxy.all().delay(ToRedis, least..=most);
    proxy.all().delay(ToClient, least..=least);
    let begun = Instant::now();
    for text in ["1", "2", "3", "4", "5"] {
        client.ask(&["ECHO", text]).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    client.expect_bytes("$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n").await;
    assert!(begun.elapsed() >= 2 * least, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_are_refused_and_redirected() {
    let (redis, proxy) = proxied().await;
    proxy.refuse_connections();
    assert!(is_reset_at_once(proxy.port()).await);
    assert_eq!((proxy.counts().accepted, proxy.counts().refused), (0, 1));
    proxy.accept_connections();
    let mut client = Client::to(proxy.port()).await;
    client.ask(COUNT).await;
    client.expect_bytes(":1\r\n").await;

    let other = Redis::start().await;
    proxy.redirect(&other);
    assert_eq!(client.rest().await, (Vec::new(), true));
    let mut client = Client::to(proxy.port()).await;
    client.ask(COUNT).await;
    client.expect_bytes(":1\r\n").await;
    client.ask(COUNT).await;
    client.expect_bytes(":2\r\n").await;
    assert_eq!(runs(&redis).await, 1);
    assert_eq!(runs(&other).await, 2);

    other.kill9().await;
    client.rest().await;
    assert!(is_reset_at_once(proxy.port()).await);
}

#[tokio::test]
async fn each_random_cut_costs_at_most_one_call() {
    const CUTS: u64 = 60;
    let (redis, proxy) = proxied().await;
    let replies = AtomicU64::new(0);
    let load = async {
        loop {
            let mut client = BufReader::new(Client::to(proxy.port()).await.0);
            let mut reply = String::new();
            while client.write_all(&resp::encode(COUNT)).await.is_ok() {
                reply.clear();
                let read = client.read_line(&mut reply).await;
                if read.is_err() || !reply.ends_with('\n') {
                    break;
                }
                replies.fetch_add(1, Relaxed);
            }
        }
    };
    tokio::select! {
        () = proxy.cut_at_random(60, 400) => {}
        () = load => {}
    }
    assert_eq!(proxy.counts().cuts, CUTS);
    proxy.open().cut(Cut::Fin);
    until("redis has closed all connections", async || clients(&redis).await == 1).await;
    let runs = runs(&redis).await;
    let replies = replies.load(Relaxed);
    // One more call was in flight when the load was dropped.
    assert!((replies..=replies + CUTS + 1).contains(&runs), "{runs} runs, {replies} replies");
    assert!(runs > replies, "some cut must have hit a reply");
}

#[tokio::test]
async fn hookgate_works_through_a_proxy_that_cuts_at_random() {
    let (redis, proxy) = proxied().await;
    let app = App::build().documents(ledger::documents()).redis(redis).redis_address(&proxy.url());
    let app = app.start().await;
    let load = Load::start(&app.caller);
    load.more_accepted(20).await;
    proxy.cut_at_random(30, 8192).await;
    load.more_accepted(20).await;
    let verdict = load.stop().await.judge(&app.redis).await;
    verdict.assert_sound();
    assert_eq!(verdict.not_sent + verdict.unanswered, 0, "{verdict}");
    app.assert_accounting().await;
}

#[tokio::test]
async fn requests_of_hookgate_on_dead_connections_arrive_late() {
    let (redis, proxy) = proxied().await;
    let app = App::build().documents(ledger::documents()).redis(redis).redis_address(&proxy.url());
    let app = app.start().await;
    let load = Load::start(&app.caller);
    load.more_accepted(20).await;
    proxy.open().hold_requests();
    // One of them is the connection of the health check; a worker without callers has sent nothing.
    until("hookgate has closed every connection on which it has sent bytes", async || {
        let held = proxy.held();
        held.late >= 2 && held.late == held.connections
    })
    .await;
    load.more_accepted(20).await;
    let answers = proxy.deliver_late().await;
    assert!(answers.len() >= 2 && answers.iter().all(|answer| !answer.is_empty()), "{answers:?}");
    load.more_accepted(20).await;
    load.stop().await.judge(&app.redis).await.assert_sound();
    app.assert_accounting().await;
}
