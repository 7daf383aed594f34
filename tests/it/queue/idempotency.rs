//! `Idempotency-Key`: the same key adds jobs once, across processes and restarts, and repeats get
//! the first answer.

use std::collections::BTreeSet;

use redis::cmd;
use testkit::documents::{user, workflow};
use testkit::http::{Call, Reply};
use testkit::raw::raw;
use testkit::wait::until;
use testkit::{App, Caller, Config, Documents, Hookgate, ports};
use tokio::task::JoinSet;

const REPLAYED: &str = "idempotency-replayed";

#[tokio::test]
async fn a_repeat_is_answered_like_the_first_and_adds_nothing() {
    let app = App::build().documents(documents(3)).start().await;
    let first = with_key(app.webhook("wh_1"), "k").await;
    assert_eq!((first.matched(), first.header(REPLAYED)), (3, None));
    for _ in 0..2 {
        let repeat = with_key(app.webhook("wh_1"), "k").await;
        assert_eq!((repeat.text(), repeat.header(REPLAYED)), (first.text(), Some("true")));
    }
    assert_eq!(with_key(app.webhook("wh_1"), "another").await.matched(), 3);
    assert_eq!(app.webhook("wh_1").send().await.matched(), 3);
    assert_eq!(app.redis.queue().waiting_exactly(9).await.len(), 9);
    app.assert_accounting().await;
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let app = App::start().await;
    let body = r#"{"webhookId":"wh_1","n":1}"#;
    assert_eq!(with_key(app.post(body), "k").await.matched(), 1);
    // Bytes are compared, not their meaning.
    for other in [r#"{"webhookId":"wh_1","n":2}"#, r#"{"webhookId":"wh_1", "n":1}"#] {
        let reply = with_key(app.post(other), "k").await;
        reply.assert_rejected(422, "idempotency_key_reused");
        assert_eq!(reply.json()["retryable"], false);
    }
    assert_eq!(with_key(app.post(body), "k").await.header(REPLAYED), Some("true"));
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_key_belongs_to_its_organization() {
    let app = App::start().await;
    for credential in ["key_a", "key_b"] {
        let reply = with_key(app.webhook("wh_1").bearer(credential), "k").await;
        assert_eq!((reply.matched(), reply.header(REPLAYED)), (1, None), "{credential}");
    }
    assert_eq!(app.redis.queue().waiting_exactly(2).await.len(), 2);
}

#[tokio::test]
async fn invalid_idempotency_keys_are_refused() {
    let app = App::start().await;
    for key in ["", "ä", "a\tb", &"k".repeat(256)] {
        let reply = with_key(app.webhook("wh_1"), key).await;
        reply.assert_rejected(400, "invalid_idempotency_key");
    }
    let head = "POST /api/webhook/workflow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key_a\r\n";
    let keys = "Idempotency-Key: a\r\nIdempotency-Key: a\r\n";
    let request = format!("{head}{keys}Content-Length: 20\r\n\r\n{{\"webhookId\":\"wh_1\"}}");
    raw(app.hookgate.address(), request).await.assert_rejected(400, "invalid_idempotency_key");
    app.redis.queue().assert_empty().await;
    // Printable ASCII of the maximum length is a valid key.
    assert_eq!(with_key(app.webhook("wh_1"), &"k ~!".repeat(64)[..255]).await.matched(), 1);
}

/// An organization without workflows cannot fill Redis with keys.
#[tokio::test]
async fn a_request_that_matches_nothing_leaves_nothing_in_redis() {
    let app = App::start().await;
    let mut calls = JoinSet::new();
    for number in 0..500 {
        calls.spawn(with_key(app.webhook("wh_none"), format!("random-{number}")));
    }
    for reply in calls.join_all().await {
        assert_eq!((reply.matched(), reply.header(REPLAYED)), (0, None));
    }
    assert!(records(&app).await.is_empty());
    // The second request and the one with another body show that the key is still unused.
    assert_eq!(with_key(app.webhook("wh_none"), "k").await.header(REPLAYED), None);
    assert_eq!(with_key(app.webhook("wh_none"), "k").await.header(REPLAYED), None);
    assert_eq!(with_key(app.webhook("wh_1"), "k").await.matched(), 1);
    assert_eq!(records(&app).await.len(), 1);
    assert_eq!(app.hookgate.metrics().await.sum("hookgate_unmatched_total").to_string(), "502");
    app.redis.queue().only_job().await;
    app.assert_accounting().await;
}

/// Requests with and without jobs, with the same keys, in the same script calls.
#[tokio::test]
async fn keys_without_matches_do_not_affect_others() {
    let app = App::build().documents(documents(2)).start().await;
    for round in 0..5 {
        let mut calls = JoinSet::new();
        for number in 0..40 {
            let webhook = if number % 2 == 0 { "wh_none" } else { "wh_1" };
            calls.spawn(with_key(app.webhook(webhook), format!("{round}-{}", number / 4)));
        }
        let replies = calls.join_all().await;
        let mut firsts = 0;
        for reply in &replies {
            match (reply.status, reply.header(REPLAYED)) {
                (202, None) => firsts += reply.matched() / 2,
                (202, Some(_)) => assert_eq!(reply.matched(), 2),
                _ => reply.assert_rejected(422, "idempotency_key_reused"),
            }
        }
        assert_eq!(firsts, 10, "one request of each key has started workflows");
        assert_eq!(
            app.redis.queue().waiting_exactly((round + 1) * 20).await.len(),
            (round + 1) * 20
        );
    }
    assert_eq!(records(&app).await.len(), 50);
}

#[tokio::test]
async fn a_change_of_the_index_changes_no_repeated_answer() {
    let app = App::start().await;
    assert_eq!(with_key(app.webhook("wh_late"), "late").await.matched(), 0);
    assert_eq!(with_key(app.webhook("wh_1"), "one").await.matched(), 1);
    let mut documents = documents(0);
    documents.workflows.push(workflow("wf_late", "org_a", "wh_late"));
    app.replace_documents(&documents);
    until("the index has changed", async || app.webhook("wh_late").send().await.matched() == 1)
        .await;
    // A request without matches leaves its key unused. A key with jobs stays used, although nothing
    // matches any more.
    let late = with_key(app.webhook("wh_late"), "late").await;
    assert_eq!((late.matched(), late.header(REPLAYED)), (1, None));
    let one = with_key(app.webhook("wh_1"), "one").await;
    assert_eq!((one.matched(), one.header(REPLAYED)), (1, Some("true")));
    let other = with_key(app.post(r#"{"webhookId":"wh_1","n":2}"#), "one").await;
    other.assert_rejected(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_hundred_concurrent_repeats_add_once_and_get_one_answer() {
    let app = App::build().documents(documents(5)).start().await;
    let other = second_process(&app).await;
    let callers = [app.caller.clone(), Caller::new(other.address())];
    for round in 0..5 {
        let mut calls = JoinSet::new();
        for caller in callers.iter().cycle().take(100) {
            let call = caller.webhook("wh_1").header("idempotency-key", format!("round-{round}"));
            calls.spawn(call.send());
        }
        let replies = calls.join_all().await;
        let texts: BTreeSet<&str> = replies.iter().map(Reply::text).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert_eq!(replies.iter().map(Reply::matched).max(), Some(5));
        let firsts = replies.iter().filter(|reply| reply.header(REPLAYED).is_none()).count();
        assert_eq!(firsts, 1, "one of them is the first");
        assert_eq!(app.redis.queue().waiting_exactly((round + 1) * 5).await.len(), (round + 1) * 5);
    }
}

#[tokio::test]
async fn a_key_is_remembered_across_a_restart() {
    let mut app = App::start().await;
    assert_eq!(with_key(app.webhook("wh_1"), "k").await.matched(), 1);
    app.hookgate.restart().await;
    assert_eq!(with_key(app.webhook("wh_1"), "k").await.header(REPLAYED), Some("true"));
    app.redis.queue().only_job().await;
}

#[tokio::test]
async fn a_key_is_remembered_for_as_long_as_configured() {
    let app = App::with(|config| {
        config.set("idempotency.ttl", "90m");
    })
    .await;
    assert_eq!(with_key(app.webhook("wh_1"), "a secret key").await.matched(), 1);
    let records = records(&app).await;
    let [record] = records.as_slice() else { panic!("one record expected: {records:?}") };
    let life: i64 = app.redis.query(cmd("PTTL").arg(record)).await;
    assert!((80 * 60_000..=90 * 60_000).contains(&life), "{life} ms");
    let text: String = app.redis.query(cmd("GET").arg(record)).await;
    assert!(!format!("{record} {text}").contains("secret"), "{record} {text}");

    let () = app.redis.query(cmd("DEL").arg(record)).await;
    let again = with_key(app.webhook("wh_1"), "a secret key").await;
    assert_eq!((again.matched(), again.header(REPLAYED)), (1, None));
}

#[tokio::test]
async fn with_no_time_to_live_the_header_is_ignored() {
    let app = App::with(|config| {
        config.set("idempotency.ttl", "0s");
    })
    .await;
    for key in ["k", "k", ""] {
        let reply = with_key(app.webhook("wh_1"), key).await;
        assert_eq!((reply.matched(), reply.header(REPLAYED)), (1, None));
    }
    let records = records(&app).await;
    assert!(records.is_empty(), "{records:?}");
}

#[tokio::test]
async fn a_key_of_failed_jobs_can_be_used_again() {
    let app = App::build().documents(documents(3)).start().await;
    // The second job of the request would have the id 2.
    let conflict = app.redis.queue().key("2");
    let () = app.redis.query(cmd("SET").arg(&conflict).arg("foreign")).await;
    let refused = with_key(app.webhook("wh_1"), "k").await;
    refused.assert_not_enqueued("none");
    assert!(app.redis.queue().waiting_ids().await.is_empty());

    let again = with_key(app.webhook("wh_1"), "k").await;
    assert_eq!((again.matched(), again.header(REPLAYED)), (3, None));
    assert_eq!(app.redis.queue().waiting_ids().await.len(), 3);
}

async fn with_key(call: Call, key: impl AsRef<str>) -> Reply {
    call.header("idempotency-key", key.as_ref()).send().await
}

/// The keys in Redis that hold a record.
async fn records(app: &App) -> Vec<String> {
    app.redis.query(cmd("KEYS").arg("hookgate:*:idempotency:*")).await
}

/// `workflows` workflows of `org_a` on `wh_1`.
fn documents(workflows: usize) -> Documents {
    let workflows = (0..workflows).map(|serial| workflow(&format!("wf_{serial}"), "org_a", "wh_1"));
    Documents { workflows: workflows.collect(), users: vec![user("user_1", "org_a", "key_a")] }
}

/// Another Hookgate with the same configuration except for its ports.
async fn second_process(app: &App) -> Hookgate {
    let mut config: Config = app.hookgate.config.clone();
    for listen in ["server.listen", "admin.listen"] {
        config.set(listen, format!("127.0.0.1:{}", ports::free()));
    }
    Hookgate::start(config).await
}
