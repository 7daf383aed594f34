//! Replies that no Redis should give: never a wrong 202, never a duplicated job, and true
//! statements about what was added.

use testkit::fake_redis::{Answer, FakeRedis};
use testkit::{App, Redis};
use tokio::task::JoinSet;

#[tokio::test]
async fn an_implausible_reply_is_requested_again() {
    let (app, fake) = app().await;
    let mut accepted = 0;
    for nonsense in [
        "$-1\r\n",
        ":1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\n*\r\n$1\r\n*\r\n",
        "+OK\r\n",
        "$0\r\n\r\n",
        "$1\r\n*\r\n",
        // The reply to another batch, or a reply for more requests than there are.
        "$21\r\n987654 1795470574245 *\r\n",
        "$20\r\n99 1795470574245 AAA\r\n",
        // A reply that is not RESP.
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "$99999999999999999999\r\n",
        "\0\0\0\0",
    ] {
        fake.answer_next("EVAL", Answer::after_running(nonsense));
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{nonsense:?}");
        accepted += 1;
        assert_eq!(app.redis.queue().waiting_ids().await.len(), accepted, "{nonsense:?}");
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn an_incomplete_or_missing_reply_is_requested_again() {
    let (app, fake) = app().await;
    let answers = [Answer::HalfThenClose, Answer::Silence, Answer::Close, Answer::HalfThenClose];
    for (number, answer) in answers.into_iter().enumerate() {
        fake.answer_next("EVAL", answer);
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        assert_eq!(app.redis.queue().waiting_ids().await.len(), number + 1);
    }
}

#[tokio::test]
async fn a_surplus_reply_acknowledges_no_other_request() {
    let (app, fake) = app().await;
    let number = |reply: &str| format!("${}\r\n{reply}\r\n", reply.len());
    for extra in [number("1 1795470574245 *"), number("2 1795470574245 *"), ":1\r\n".to_owned()] {
        fake.answer_next("EVAL", Answer::after(&extra));
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
        let before = app.redis.queue().waiting_ids().await.len();
        // The surplus reply does not acknowledge the next batch, which Redis really refuses here.
        fake.answer_always("EVAL", Answer::instead("-OOM command not allowed\r\n"));
        app.webhook("wh_1").send().await.assert_not_enqueued("none");
        fake.answer_normally();
        assert_eq!(app.redis.queue().waiting_ids().await.len(), before);
    }
    fake.answer_next("EVAL", Answer::before(number("1 1795470574245 *")));
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 4);
}

#[tokio::test]
async fn replies_in_the_wrong_order_acknowledge_no_other_request() {
    let (app, fake) = app().await;
    for round in 1..=5 {
        fake.answer_next("EVAL", Answer::Swapped);
        twenty_at_once(&app, round).await;
    }
}

#[tokio::test]
async fn an_error_reply_is_a_refusal_without_jobs() {
    let (app, fake) = app().await;
    for error in [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOREPLICAS Not enough good replicas to write.",
        "NOAUTH Authentication required.",
        "NOPERM this user has no permissions",
        "WRONGTYPE Operation against a key",
        "ERR something else",
    ] {
        fake.answer_next("EVAL", Answer::instead(format!("-{error}\r\n")));
        app.webhook("wh_1").send().await.assert_not_enqueued("none");
        app.redis.queue().assert_empty().await;
    }
    let errors = app.hookgate.metrics().await.sum("hookgate_redis_errors_total");
    assert!(errors >= 7.0, "{errors}");
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
}

#[tokio::test]
async fn a_momentary_error_is_retried() {
    let (app, fake) = app().await;
    let mut accepted = 0;
    for error in [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script.",
        "MASTERDOWN Link with MASTER is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "ASK 3999 127.0.0.1:6381",
        "ERR Protocol error: expected '$', got 'x'",
    ] {
        fake.answer_next("EVAL", Answer::instead(format!("-{error}\r\n")));
        assert_eq!(app.webhook("wh_1").send().await.matched(), 1, "{error}");
        accepted += 1;
        assert_eq!(app.redis.queue().waiting_ids().await.len(), accepted, "{error}");
    }
    let errors = app.hookgate.metrics().await.sum("hookgate_redis_errors_total");
    assert!(errors < 1.0, "{errors}");
}

/// The job is sent once more, alone, because it does not exceed the limit that Redis reports.
#[tokio::test]
async fn an_argument_too_long_for_redis_is_refused_permanently() {
    let (app, fake) = app().await;
    fake.answer_always("EVAL", Answer::instead("-ERR Protocol error: invalid bulk length\r\n"));
    let reply = app.webhook("wh_1").send().await;
    reply.assert_rejected(413, "payload_too_large");
    assert!(reply.json()["details"]["bytes"].as_u64() > Some(0), "{}", reply.text());
    app.redis.queue().assert_empty().await;
}

#[tokio::test]
async fn an_error_that_ends_the_connection_refuses_no_other_request() {
    let (app, fake) = app().await;
    for round in 1..=5 {
        // fred gives this error to every call on the connection, including one whose reply is on
        // its way.
        fake.answer_next("EVAL", Answer::instead("-CLUSTERDOWN The cluster is down\r\n"));
        twenty_at_once(&app, round).await;
    }
}

#[tokio::test]
async fn a_server_with_wrong_replies_is_retried_with_backoff() {
    let (app, fake) = app().await;
    fake.answer_always("EVAL", Answer::instead("+OK\r\n"));
    let before = connections(&fake);
    app.webhook("wh_1").send().await.assert_not_enqueued("unknown");
    let made = connections(&fake) - before;
    assert!(made < 20, "{made} connections for one request");
}

#[tokio::test]
async fn a_refused_wait_is_not_retried() {
    let redis = Redis::start().await;
    let _replica = redis.start_replica().await;
    let fake = FakeRedis::before(&redis).await;
    let app = App::build().redis(redis).redis_address(&fake.url()).config(|config| {
        config.set("queue.wait_replicas", 1);
    });
    let app = app.start().await;
    let refusal = "-ERR WAIT cannot be used with replica instances\r\n";
    fake.answer_always("WAIT", Answer::instead(refusal));
    for _ in 0..5 {
        app.webhook("wh_1").send().await.assert_not_enqueued("unknown");
    }
    assert_eq!(fake.calls_of("WAIT").len(), 5);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 5);
}

/// Sends the twenty webhooks of this round; all are accepted, once each.
async fn twenty_at_once(app: &App, round: usize) {
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        calls.spawn(app.webhook("wh_1").send());
    }
    for reply in calls.join_all().await {
        assert_eq!(reply.matched(), 1);
    }
    assert_eq!(app.redis.queue().waiting_ids().await.len(), round * 20);
}

fn connections(fake: &FakeRedis) -> usize {
    let calls = fake.calls();
    calls.iter().map(|call| call.connection).collect::<std::collections::BTreeSet<_>>().len()
}

#[tokio::test]
async fn a_refused_second_attempt_leaves_the_first_in_doubt() {
    let (app, fake) = app().await;
    fake.answer_next("EVAL", Answer::HalfThenClose);
    fake.answer_always("EVAL", Answer::instead("-OOM command not allowed\r\n"));
    let reply = app.webhook("wh_1").send().await;
    reply.assert_not_enqueued("unknown");
    app.redis.queue().only_job().await;

    // When the refusals end in time, the first attempt is asked for after all.
    fake.answer_normally();
    fake.answer_next("EVAL", Answer::HalfThenClose);
    for _ in 0..5 {
        fake.answer_next(
            "EVAL",
            Answer::instead("-LOADING Redis is loading the dataset in memory\r\n"),
        );
    }
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 2);
}

/// One worker, whose script is in Redis.
async fn app() -> (App, FakeRedis) {
    let redis = Redis::start().await;
    let fake = FakeRedis::before(&redis).await;
    let app = App::build().redis(redis).redis_address(&fake.url()).config(|config| {
        config.set("server.workers", 1);
    });
    let app = app.start().await;
    let without_jobs = app.webhook("wh_none").header("idempotency-key", "first").send().await;
    assert_eq!(without_jobs.matched(), 0);
    (app, fake)
}
