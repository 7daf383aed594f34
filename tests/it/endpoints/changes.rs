//! Nodes that lose their verification while deliveries are sent.

use super::route::{SECRET, app, documents, matched};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testkit::App;
use testkit::deliveries::github_signature;
use testkit::http::Caller;
use testkit::wait::until;
use tokio::task::JoinSet;

const OTHER_SECRET: &str = "another-secret-0123456789";

/// Tasks that send deliveries at the same time.
const SENDERS: usize = 8;

/// Deliveries that are sent before the loss of the verification, and after it is known.
const DELIVERIES: u64 = 100;

/// What the senders of a round share.
#[derive(Default)]
struct Round {
    next: AtomicU64,
    /// Set when a delivery has been refused because of the change.
    is_known: AtomicBool,
    sent_since: AtomicU64,
}

/// The numbers of the deliveries that were accepted.
type Accepted = BTreeSet<u64>;

/// Sends numbered deliveries until enough have been refused. Returns those that were accepted.
async fn deliver(caller: Caller, round: Arc<Round>) -> Accepted {
    let mut accepted = BTreeSet::new();
    while round.sent_since.load(Ordering::SeqCst) < DELIVERIES {
        let is_known = round.is_known.load(Ordering::SeqCst);
        let number = round.next.fetch_add(1, Ordering::SeqCst);
        let body = number.to_string();
        let call = caller.call(reqwest::Method::POST, "/api/webhook/in/org_a/wh_1");
        let call = call.header("x-hub-signature-256", github_signature(SECRET, body.as_bytes()));
        let reply = call.body(body).send().await;
        if reply.status == 200 {
            assert!(!is_known, "accepted after the change was known");
            assert_eq!(matched(&reply, 200), 1);
            accepted.insert(number);
        } else {
            assert!(matches!(reply.status, 401 | 404), "{}", reply.text());
            round.is_known.store(true, Ordering::SeqCst);
        }
        if is_known {
            round.sent_since.fetch_add(1, Ordering::SeqCst);
        }
    }
    accepted
}

/// Sends deliveries while the verification of their node becomes another one.
async fn lose(app: &App, verification: &Value) {
    let round = Arc::new(Round::default());
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        senders.spawn(deliver(app.caller.clone(), Arc::clone(&round)));
    }
    until("deliveries are sent", async || round.next.load(Ordering::SeqCst) > DELIVERIES).await;
    assert!(!round.is_known.load(Ordering::SeqCst), "none is refused before the change");
    app.replace_documents(&documents(verification));
    let accepted: Accepted = senders.join_all().await.into_iter().flatten().collect();
    assert!(accepted.len() as u64 >= DELIVERIES - SENDERS as u64);
    let jobs = app.redis.queue().waiting().await;
    let started: Vec<u64> =
        jobs.iter().map(|job| job.payload_text().parse().expect("a number")).collect();
    assert_eq!(started.len(), accepted.len(), "each has one job");
    assert_eq!(started.into_iter().collect::<Accepted>(), accepted);
    app.redis.queue().remove_jobs().await;
}

#[tokio::test]
async fn no_delivery_starts_a_node_whose_loss_of_its_verification_is_known() {
    let verification = json!({ "scheme": "github", "secret": SECRET });
    let app = app(&verification).await;
    for lost in [
        Value::Null,
        json!({ "scheme": "github", "secret": "" }),
        json!({ "scheme": "github", "secret": OTHER_SECRET }),
        json!("nowhere"),
    ] {
        lose(&app, &lost).await;
        app.replace_documents(&documents(&verification));
        until("deliveries are accepted again", async || {
            let call = app.delivery("org_a", "wh_1", "0");
            let signature = github_signature(SECRET, b"0");
            call.header("x-hub-signature-256", signature).send().await.status == 200
        })
        .await;
        app.redis.queue().remove_jobs().await;
    }
    app.assert_accounting().await;
}
