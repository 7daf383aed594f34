//! Being stopped: a 202 is true whatever stops the process, and who asked before is answered.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use testkit::config::patient;
use testkit::hookgate::{Surroundings, command};
use testkit::ledger::{self, Answer, Ledger, Load};
use testkit::process::Process;
use testkit::raw::Connection;
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::wait::until;
use testkit::{App, Config, Hookgate, Mongo, Redis};

#[tokio::test]
async fn sigterm_under_load_loses_nothing() {
    let authority = Authority::new();
    // With one connection to Redis for all workers, and with one for each.
    for (signal, is_http2, connections) in
        [("TERM", false, 1), ("TERM", false, 0), ("INT", false, 1), ("TERM", true, 1)]
    {
        let build = App::build().documents(ledger::documents()).config(|config| {
            config.set("queue.connections", connections);
        });
        let app = if is_http2 { build.tls(&authority) } else { build }.start().await;
        let load = Load::start(&app.caller);
        load.more_accepted(100).await;
        app.hookgate.process().signal(signal);
        assert_eq!(app.hookgate.process().wait().await, 0);
        load.more("not sent", 10, |answer| *answer == Answer::NotSent).await;
        let verdict = load.stop().await.judge(&app.redis).await;
        verdict.assert_sound();
        assert_eq!(verdict.promised_jobs, verdict.standing_jobs, "{verdict}");
        assert_eq!(verdict.nothing + verdict.unknown, 0, "{verdict}");
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let app = App::with(patient).await;
    let mut used = Connection::open(app.hookgate.address()).await;
    used.send(webhook("{\"webhookId\":\"wh_1\"}")).await;
    assert_eq!(used.reply().await.expect("an answer").matched(), 1);
    let mut unused = Connection::open(app.hookgate.address()).await;
    until("both connections are counted", async || {
        app.hookgate.metrics().await.sum("hookgate_connections") >= 2.0
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 0);
    assert_eq!((used.closed().await.len(), unused.closed().await.len()), (0, 0));
}

#[tokio::test]
async fn who_waits_for_redis_is_answered_before_the_end() {
    let app = App::with(patient).await;
    let ledger = Ledger::default();
    app.redis.freeze();
    let waiting = send_some(&app, &ledger).await;
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    app.redis.thaw();
    waiting.join_all().await;
    assert_eq!(app.hookgate.process().wait().await, 0);
    let verdict = ledger.judge(&app.redis).await;
    verdict.assert_sound();
    assert_eq!(verdict.accepted, 8, "{verdict}");
}

#[tokio::test]
async fn who_is_still_sending_is_answered_before_the_end() {
    let app = App::with(patient).await;
    let request = webhook("{\"webhookId\":\"wh_1\",\"late\":true}");
    let (begin, rest) = request.split_at(request.len() - 10);
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(begin).await;
    until("the request is in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 1.0
    })
    .await;
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    connection.send(rest).await;
    assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
    assert_eq!(connection.closed().await.len(), 0);
    assert_eq!(app.hookgate.process().wait().await, 0);
    assert_eq!(app.redis.queue().only_job().await.payload_text(), "{\"late\":true}");
}

#[tokio::test]
async fn callers_that_the_kernel_has_queued_up_are_served() {
    let app = App::with(|config| {
        patient(config);
        config.set("server.max_connections", 1).set("server.workers", 1);
    })
    .await;
    let request = webhook("{\"webhookId\":\"wh_1\"}");
    let (begin, rest) = request.split_at(request.len() - 1);
    let mut first = Connection::open(app.hookgate.address()).await;
    first.send(begin).await;
    until("the request is in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 1.0
    })
    .await;
    let mut queued = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send(&request).await;
        queued.push(connection);
    }
    app.hookgate.process().signal("TERM");
    app.hookgate.unready().await;
    first.send(rest).await;
    queued.insert(0, first);
    for connection in &mut queued {
        assert_eq!(connection.reply().await.expect("an answer").matched(), 1);
        assert_eq!(connection.closed().await, b"");
    }
    assert_eq!(app.hookgate.process().wait().await, 0);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), queued.len());
}

#[tokio::test]
async fn who_is_cut_off_shows_in_the_exit_code() {
    let app = App::with(|config| {
        patient(config);
        config.set("server.drain_timeout", "500ms");
    })
    .await;
    let request = webhook("{\"webhookId\":\"wh_1\"}");
    let mut connection = Connection::open(app.hookgate.address()).await;
    connection.send(&request[..request.len() - 1]).await;
    until("the request is in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 1.0
    })
    .await;
    assert_eq!(app.hookgate.terminate().await, 1);
    assert_eq!(connection.closed().await, b"");
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn with_everything_gone_it_ends_all_the_same() {
    let nobody = testkit::mongo::uri(testkit::ports::free());
    let app = App::build()
        .config(|config| {
            patient(config);
            config.set("triggers.source", "mongodb").set("mongodb.uri", nobody);
        })
        .start_unready()
        .await;
    app.redis.freeze();
    let mut idle = Connection::open(app.hookgate.address()).await;
    idle.send(webhook("{\"webhookId\":\"wh_1\"}")).await;
    let reply = idle.reply().await.expect("an answer");
    reply.assert_rejected(503, "index_unavailable");
    assert_eq!(app.hookgate.terminate().await, 0);
    assert_eq!(idle.closed().await, b"");
    app.redis.thaw();
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn with_everything_going_under_load_it_tells_no_lies_and_ends() {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    database.insert(&ledger::documents()).await;
    let app = App::build().mongo(&database).config(|config| {
        config.set("queue.enqueue_timeout", "1s");
    });
    let app = app.start().await;
    let load = Load::start(&app.caller);
    load.more_accepted(100).await;
    mongo.kill9().await;
    app.redis.freeze();
    app.hookgate.process().signal("TERM");
    assert_eq!(app.hookgate.process().wait().await, 0);
    load.more("not sent", 10, |answer| *answer == Answer::NotSent).await;
    app.redis.thaw();
    load.stop().await.judge(&app.redis).await.assert_sound();
}

/// The next process takes over the port before the last one leaves it.
#[tokio::test]
async fn a_rolling_restart_loses_nothing() {
    let app = App::build().documents(ledger::documents()).start().await;
    let load = Load::start(&app.caller);
    let mut config = app.hookgate.config.clone();
    let mut current = None;
    for _ in 0..4 {
        load.more_accepted(50).await;
        config.set("admin.listen", format!("127.0.0.1:{}", testkit::ports::free()));
        let next = Hookgate::start(config.clone()).await;
        let last = current.replace(next);
        let code = last.as_ref().unwrap_or(&app.hookgate).terminate().await;
        assert_eq!(code, 0);
    }
    load.more_accepted(50).await;
    let verdict = load.stop().await.judge(&app.redis).await;
    verdict.assert_sound();
    // A new one shares the port from the moment on at which it is ready.
    assert_eq!(verdict.nothing + verdict.unknown + verdict.not_sent, 0, "{verdict}");
}

#[tokio::test]
async fn the_port_is_closed_until_it_is_ready_or_has_waited_long_enough() {
    let redis = Redis::start().await;
    redis.kill9().await;
    let mut app = App::build().redis(redis).start_unready().await;
    app.webhook("wh_1").send().await.assert_rejected(503, "queue_unavailable");
    let mut config = app.hookgate.config.clone();
    config.set("server.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    config.set("admin.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    config.set("server.start_timeout", "1h");
    let patient = Hookgate::start_in(config.clone(), Surroundings::default()).await;
    until("Redis alone is missing, and the port waits for it", async || {
        let (_, report) = patient.readiness().await;
        let reasons = report["reasons"].to_string();
        reasons.contains("redis: ") && reasons.contains("process: ") && !reasons.contains("users: ")
    })
    .await;
    assert!(TcpStream::connect(patient.address()).await.is_err(), "it is closed");
    app.redis.restart().await;
    patient.ready().await;
    assert!(TcpStream::connect(patient.address()).await.is_ok(), "it is open when it says so");
    patient.kill9().await;

    // A stop does not wait for it.
    app.redis.kill9().await;
    let patient = Hookgate::start_in(config, Surroundings::default()).await;
    assert!(TcpStream::connect(patient.address()).await.is_err(), "it is closed");
    assert_eq!(patient.terminate().await, 0);
}

#[tokio::test]
async fn what_was_stopped_for_a_while_tells_no_lies_afterwards() {
    let app = App::build()
        .documents(ledger::documents())
        .config(|config| {
            config.set("queue.enqueue_timeout", "500ms");
        })
        .start()
        .await;
    let load = Load::start(&app.caller);
    for _ in 0..3 {
        load.more_accepted(50).await;
        app.hookgate.process().signal("STOP");
        // Longer than any deadline that was running.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        app.hookgate.process().signal("CONT");
    }
    load.more_accepted(50).await;
    load.stop().await.judge(&app.redis).await.assert_sound();
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for second in ["TERM", "INT", "QUIT"] {
        let app = App::with(patient).await;
        let mut connection = Connection::open(app.hookgate.address()).await;
        let request = webhook("{\"webhookId\":\"wh_1\"}");
        connection.send(&request[..request.len() - 1]).await;
        until("the request is in flight", async || {
            app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 1.0
        })
        .await;
        app.hookgate.process().signal("TERM");
        app.hookgate.unready().await;
        // The caller never ends, and nothing else would end the process within the patience of a test.
        assert_eq!(app.hookgate.process().exit_code(), None);
        app.hookgate.process().signal(second);
        assert_ne!(app.hookgate.process().wait().await, 0);
        assert!(connection.reply().await.is_none_or(|reply| reply.status != 202));
        app.redis.queue().assert_empty().await;
    }
}

#[tokio::test]
async fn a_frozen_redis_does_not_keep_it_from_ending() {
    for (enqueue_timeout, drain_timeout) in [(1, 30), (60, 1)] {
        let app = App::build()
            .documents(ledger::documents())
            .config(|config| {
                config.set("queue.enqueue_timeout", format!("{enqueue_timeout}s"));
                config.set("server.drain_timeout", format!("{drain_timeout}s"));
            })
            .start()
            .await;
        let ledger = Ledger::default();
        app.redis.freeze();
        let waiting = send_some(&app, &ledger).await;
        app.hookgate.process().signal("TERM");
        let code = app.hookgate.process().wait().await;
        waiting.join_all().await;
        app.redis.thaw();
        let verdict = ledger.judge(&app.redis).await;
        verdict.assert_sound();
        assert_eq!(verdict.accepted, 0, "{verdict}");
        if enqueue_timeout < drain_timeout {
            assert_eq!((code, verdict.unanswered), (0, 0), "there is time to refuse: {verdict}");
        } else if verdict.unanswered > 0 {
            assert_eq!(code, 1, "somebody was cut off: {verdict}");
        } else {
            assert!(code == 0 || code == 1, "exit code {code}: {verdict}");
        }
    }
}

#[tokio::test]
async fn what_was_accepted_before_a_kill_stands_in_redis() {
    let mut app = App::build().documents(ledger::documents()).start().await;
    let load = Load::start(&app.caller);
    for _ in 0..3 {
        load.more_accepted(60).await;
        app.hookgate.kill9().await;
        load.more("not sent", 5, |answer| *answer == Answer::NotSent).await;
        app.hookgate.restart().await;
    }
    load.more_accepted(60).await;
    load.stop().await.judge(&app.redis).await.assert_sound();
}

#[tokio::test]
async fn signals_that_mean_nothing_change_nothing() {
    let app = App::build().documents(ledger::documents()).start().await;
    let load = Load::start(&app.caller);
    for signal in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "XFSZ", "PIPE"] {
        app.hookgate.process().signal(signal);
        load.more_accepted(5).await;
    }
    let verdict = load.stop().await.judge(&app.redis).await;
    verdict.assert_sound();
    assert_eq!(verdict.nothing + verdict.unknown + verdict.not_sent, 0, "{verdict}");
    assert_eq!(app.hookgate.terminate().await, 0);
}

/// The configuration comes out of a pipe, so that the moment at which it is read lasts as long as the test wants.
#[tokio::test]
async fn signals_count_while_the_configuration_is_still_being_read() {
    let files = Scratch::new("pipe");
    let pipe = files.join("hookgate.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let mut config = Config::new();
    config.set("triggers.file", "config/workflows.json");
    config.set("queue.redis", testkit::redis::url(testkit::ports::free()));
    let mut serve = command(&["serve", "--config"]);
    serve.arg(&pipe);
    // To open it waits until it is opened at the other end.
    let open = async || {
        let pipe = pipe.clone();
        let open = move || OpenOptions::new().write(true).open(pipe).expect("the pipe");
        tokio::task::spawn_blocking(open).await.expect("it opens")
    };
    for signal in ["TERM", "INT", "QUIT"] {
        let process = Process::start("hookgate", &serve, &files.join(&format!("log-{signal}")));
        let _input = open().await;
        process.signal(signal);
        assert_eq!(process.wait().await, 0, "SIG{signal}: {}", process.log_text());
        let told = "stopped before the configuration was read";
        assert!(process.log_text().contains(told), "{}", process.log_text());
    }
    let process = Process::start("hookgate", &serve, &files.join("log"));
    let mut input = open().await;
    for signal in ["USR1", "USR2", "ALRM", "HUP"] {
        process.signal(signal);
    }
    write!(input, "{config}").expect("it reads");
    drop(input);
    until("it has started", async || process.log_text().contains("hookgate starts")).await;
    config.set("queue.job.attempts", 9);
    let mut input = open().await;
    write!(input, "{config}").expect("it reads");
    drop(input);
    until("it is read again", async || {
        process.log_text().contains("changed=[\"queue.job.attempts\"]")
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.wait().await, 0);
}

/// Sends eight requests that Redis keeps waiting, and waits until all of them are in flight.
async fn send_some(app: &App, ledger: &Ledger) -> JoinSet<()> {
    let mut waiting = JoinSet::new();
    for number in 0..8 {
        let (caller, ledger) = (app.caller.clone(), ledger.clone());
        waiting.spawn(async move {
            ledger.send(&caller, &format!("request-{number}"), ("wh_1", 1)).await;
        });
    }
    until("all requests are in flight", async || {
        app.hookgate.metrics().await.sum("hookgate_requests_in_flight") >= 8.0
            || ledger.count(|_| true) == 8
    })
    .await;
    waiting
}

/// A request as bytes.
fn webhook(body: &str) -> String {
    format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: hookgate\r\nAuthorization: Bearer key_a\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
