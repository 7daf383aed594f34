//! Stopping: a 202 is true however the process ends, and requests that came before are answered.

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
async fn sigterm_under_load_loses_no_request() {
    let authority = Authority::new();
    // With one connection to Redis for all workers, and with one for each worker.
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
async fn idle_connections_do_not_delay_the_exit() {
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
async fn a_request_waiting_for_redis_is_answered_before_the_exit() {
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
async fn a_caller_that_is_still_sending_is_answered_before_the_exit() {
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
async fn connections_in_the_kernels_backlog_are_served() {
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
async fn a_cut_off_request_shows_in_the_exit_code() {
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
async fn the_process_exits_without_redis_and_mongodb() {
    let no_server = testkit::mongo::uri(testkit::ports::free());
    let app = App::build()
        .config(|config| {
            patient(config);
            config.set("triggers.source", "mongodb").set("mongodb.uri", no_server);
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
async fn answers_stay_true_when_redis_and_mongodb_stop_during_the_exit() {
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

/// The next process opens the port before the last one closes it.
#[tokio::test]
async fn a_rolling_restart_loses_no_request() {
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
    // A new process shares the port as soon as it is ready.
    assert_eq!(verdict.nothing + verdict.unknown + verdict.not_sent, 0, "{verdict}");
}

#[tokio::test]
async fn the_port_opens_when_ready_or_after_the_start_timeout() {
    let redis = Redis::start().await;
    redis.kill9().await;
    let mut app = App::build().redis(redis).start_unready().await;
    app.webhook("wh_1").send().await.assert_rejected(503, "queue_unavailable");
    let mut config = app.hookgate.config.clone();
    config.set("server.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    config.set("admin.listen", format!("127.0.0.1:{}", testkit::ports::free()));
    config.set("server.start_timeout", "1h");
    let patient = Hookgate::start_in(config.clone(), Surroundings::default()).await;
    until("only Redis is missing, and the port waits for it", async || {
        let (_, report) = patient.readiness().await;
        let reasons = report["reasons"].to_string();
        reasons.contains("redis: ") && reasons.contains("process: ") && !reasons.contains("users: ")
    })
    .await;
    assert!(TcpStream::connect(patient.address()).await.is_err(), "the port is closed");
    app.redis.restart().await;
    patient.ready().await;
    assert!(
        TcpStream::connect(patient.address()).await.is_ok(),
        "the port is open when the service is ready"
    );
    patient.kill9().await;

    // Stopping does not wait for Redis.
    app.redis.kill9().await;
    let patient = Hookgate::start_in(config, Surroundings::default()).await;
    assert!(TcpStream::connect(patient.address()).await.is_err(), "the port is closed");
    assert_eq!(patient.terminate().await, 0);
}

#[tokio::test]
async fn a_suspended_process_gives_true_answers_afterwards() {
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
        // Longer than any deadline of the load.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        app.hookgate.process().signal("CONT");
    }
    load.more_accepted(50).await;
    load.stop().await.judge(&app.redis).await.assert_sound();
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
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
        // The caller never finishes, and nothing else would end the process in the time of a test.
        assert_eq!(app.hookgate.process().exit_code(), None);
        app.hookgate.process().signal(second);
        assert_ne!(app.hookgate.process().wait().await, 0);
        assert!(connection.reply().await.is_none_or(|reply| reply.status != 202));
        app.redis.queue().assert_empty().await;
    }
}

#[tokio::test]
async fn a_frozen_redis_does_not_prevent_the_exit() {
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
            assert_eq!(code, 1, "a request was cut off: {verdict}");
        } else {
            assert!(code == 0 || code == 1, "exit code {code}: {verdict}");
        }
    }
}

#[tokio::test]
async fn requests_accepted_before_a_kill_are_in_redis() {
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
async fn ignored_signals_have_no_effect() {
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

/// The configuration comes out of a pipe, so that the test controls how long reading it takes.
#[tokio::test]
async fn signals_work_while_the_configuration_is_read() {
    let files = Scratch::new("pipe");
    let pipe = files.join("hookgate.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let mut config = Config::new();
    config.set("triggers.file", "config/workflows.json");
    config.set("queue.redis", testkit::redis::url(testkit::ports::free()));
    let mut serve = command(&["serve", "--config"]);
    serve.arg(&pipe);
    // Opening it for writing waits until it is opened for reading.
    let open = async || {
        let pipe = pipe.clone();
        let open = move || OpenOptions::new().write(true).open(pipe).expect("the pipe");
        tokio::task::spawn_blocking(open).await.expect("the pipe opens")
    };
    for signal in ["TERM", "INT", "QUIT"] {
        let process = Process::start("hookgate", &serve, &files.join(&format!("log-{signal}")));
        let _input = open().await;
        process.signal(signal);
        assert_eq!(process.wait().await, 0, "SIG{signal}: {}", process.log_text());
        let expected = "stopped before the configuration was read";
        assert!(process.log_text().contains(expected), "{}", process.log_text());
    }
    let process = Process::start("hookgate", &serve, &files.join("log"));
    let mut input = open().await;
    for signal in ["USR1", "USR2", "ALRM", "HUP"] {
        process.signal(signal);
    }
    write!(input, "{config}").expect("it reads");
    drop(input);
    until("the process has started", async || process.log_text().contains("hookgate starting"))
        .await;
    config.set("queue.job.attempts", 9);
    let mut input = open().await;
    write!(input, "{config}").expect("it reads");
    drop(input);
    until("the document is read again", async || {
        process.log_text().contains("changed=[\"queue.job.attempts\"]")
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.wait().await, 0);
}

/// Sends eight requests that wait for Redis, and waits until all of them are in flight.
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
