//! Every preset over HTTP: what its provider sends is accepted, and nothing else.

use super::route::{INVALID, STALE, matched};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::deliveries::{PREFIX, endpoints, verified_trigger};
use testkit::documents::workflow_of;
use testkit::http::Call;
use testkit::samples::{SAMPLES, Sample, SignedDelivery, sample_of};
use testkit::tokens::now;
use testkit::{App, Documents, Reply};

const ORIGIN: &str = "https://hooks.example.com";

/// The keys that every address accepts, and one that none does.
const KEYS: [u8; 2] = [0, 1];
const OTHER_KEY: u8 = 2;

/// The presets whose body is verified without being signed: their secrets are in it.
const SECRET_IN_BODY: [(&str, &str); 2] =
    [("mailgun", "\"signature\":\""), ("microsoft-graph", "clientState")];

/// One Hookgate with an address for each preset, named as the preset.
async fn start() -> App {
    let mut documents = Documents::two_organizations();
    for sample in SAMPLES {
        let node = verified_trigger("n1", sample.preset, &sample.verification(&KEYS));
        let workflow = workflow_of(&format!("wf_{}", sample.preset), "org_a", json!([node]));
        documents.workflows.push(workflow);
    }
    let needed = SAMPLES.iter().flat_map(|sample| sample.needed).copied();
    // No job may contain what callers of webhooks send as their credential.
    let is_credential = |name: &&str| ["authorization", "x-gitlab-token"].contains(name);
    let headers: BTreeSet<&str> = needed.filter(|name| !is_credential(name)).collect();
    let headers: Vec<&str> = headers.into_iter().collect();
    let build = App::build().documents(documents).config(endpoints).config(|config| {
        config.set("endpoints.public_url", ORIGIN).set("queue.forward_headers", headers);
    });
    build.start().await
}

/// What a provider sends to the address of a preset.
fn signed(sample: &Sample, to: &Sample, key: u8, second: u64) -> SignedDelivery {
    sample.delivery(key, second, &format!("{ORIGIN}{PREFIX}/org_a/{}", to.preset))
}

fn signed_now(sample: &Sample, key: u8) -> SignedDelivery {
    signed(sample, sample, key, now())
}

fn call(app: &App, to: &Sample, delivery: SignedDelivery) -> Call {
    let call = app.delivery("org_a", to.preset, delivery.body);
    let call = call.header("content-type", "application/json");
    delivery.headers.into_iter().fold(call, |call, (name, value)| match name {
        "Content-Type" => call.header(name, value),
        _ => call.add_header(name, value),
    })
}

#[track_caller]
fn assert_accepted(sample: &Sample, reply: &Reply) {
    assert_eq!(reply.status, 200, "{}: {}", sample.preset, reply.text());
    assert_eq!(matched(reply, 200), 1, "{}", sample.preset);
}

/// Sends a delivery that is refused with this code, for one of these reasons.
async fn refused(app: &App, sample: &Sample, call: Call, code: &str, kinds: &[&str]) {
    let reply = call.send().await;
    assert_eq!((reply.status, &*reply.code()), (401, code), "{}: {kinds:?}", sample.preset);
    let kind = app.last_refusal(sample.preset).await;
    assert!(kinds.contains(&&*kind), "{}: {kind}, expected: {kinds:?}", sample.preset);
}

/// Nothing that was refused has a job, and no secret is shown.
async fn finish(app: &App, jobs: usize) {
    app.redis.queue().waiting_exactly(jobs).await;
    let presets: Vec<&str> = SAMPLES.iter().map(|sample| sample.preset).collect();
    let secrets = SAMPLES.iter().flat_map(|sample| KEYS.map(|key| sample.key(key)));
    app.assert_shows_none_of(&secrets.collect::<Vec<_>>(), &presets).await;
    app.assert_accounting().await;
}

#[tokio::test]
async fn each_of_two_secrets_accepts_and_ids_are_remembered() {
    let app = start().await;
    let mut jobs = 0;
    for sample in SAMPLES {
        let first = call(&app, sample, signed_now(sample, 0)).send().await;
        let second = call(&app, sample, signed_now(sample, 1)).send().await;
        let again = call(&app, sample, signed_now(sample, 0)).send().await;
        for (reply, is_replayed) in
            [(first, false), (second, false), (again, sample.delivery_id.is_some())]
        {
            assert_accepted(sample, &reply);
            let replayed = reply.header("idempotency-replayed");
            assert_eq!(replayed, is_replayed.then_some("true"), "{}", sample.preset);
            jobs += usize::from(!is_replayed);
        }
    }
    finish(&app, jobs).await;
    assert_no_secret_in_jobs(&app).await;
}

/// Jobs contain the fields that are forwarded, but not those that carry a secret.
async fn assert_no_secret_in_jobs(app: &App) {
    for job in app.redis.queue().waiting().await {
        let data = job.data();
        let workflow = job.at("/workflowId");
        let sample = sample_of(workflow.strip_prefix("wf_").expect("a preset"));
        let trigger = |pointer: &str| data.pointer(&format!("/trigger{pointer}"));
        let carries_secret = ["gitlab", "monday"].contains(&sample.preset);
        let forwarded = if carries_secret { 0 } else { sample.needed.len() };
        let headers = trigger("/request/headers").and_then(Value::as_object);
        assert_eq!(headers.map(serde_json::Map::len), Some(forwarded), "{data}");
        if !SECRET_IN_BODY.iter().any(|(preset, _)| *preset == sample.preset) {
            let secrets = KEYS.map(|key| sample.key(key));
            let is_public = sample.members.0 == "publicKey";
            assert!(is_public || secrets.iter().all(|secret| !data.to_string().contains(secret)));
        }
        assert_eq!(trigger("/nodeIds"), Some(&json!(["n1"])));
        if sample.preset == "twilio" {
            let form = json!({ "To": "+18005551212", "From": "+14158675310", "Body": "a b" });
            assert_eq!(trigger("/payload"), Some(&form));
        } else {
            assert!(!matches!(trigger("/payload"), None | Some(Value::Null | Value::String(_))));
        }
    }
}

#[tokio::test]
async fn another_secret_and_the_signature_of_another_preset_are_refused() {
    let app = start().await;
    let wrong = ["wrong_signature", "wrong_secret"];
    for sample in SAMPLES {
        let other_secret = call(&app, sample, signed_now(sample, OTHER_KEY));
        refused(&app, sample, other_secret, INVALID, &wrong).await;
        for other in sample.others() {
            let reply = call(&app, sample, signed(&other, sample, 0, now())).send().await;
            let code = reply.code();
            assert_eq!((reply.status, &*code), (401, INVALID), "{other:?} to {}", sample.preset);
        }
    }
    finish(&app, 0).await;
}

#[tokio::test]
async fn what_is_needed_is_there_once() {
    let app = start().await;
    for sample in SAMPLES {
        for name in sample.needed {
            let delivery = signed_now(sample, 0);
            let is_it = |(given, _): &&(&str, String)| given.eq_ignore_ascii_case(name);
            let value = delivery.headers.iter().find(is_it).expect("a field of it").1.clone();
            let missing = call(&app, sample, delivery.clone()).without(name);
            refused(&app, sample, missing, INVALID, &["missing"]).await;
            let twice = call(&app, sample, delivery).add_header(name, value);
            refused(&app, sample, twice, INVALID, &["repeated"]).await;
        }
    }
    for (preset, member) in SECRET_IN_BODY {
        let sample = sample_of(preset);
        let mut delivery = signed_now(sample, 0);
        delivery.body = delivery.body.replace(member, &member.replace(['s', 'c'], "x"));
        refused(&app, sample, call(&app, sample, delivery), INVALID, &["missing"]).await;
    }
    finish(&app, 0).await;
}

#[tokio::test]
async fn a_changed_body_is_refused_where_it_is_signed() {
    let app = start().await;
    for sample in SAMPLES {
        let mut delivery = signed_now(sample, 0);
        delivery.body.insert(delivery.body.len() - 1, ' ');
        let changed = call(&app, sample, delivery);
        if sample.signs_body {
            refused(&app, sample, changed, INVALID, &["wrong_signature"]).await;
        } else {
            assert_accepted(sample, &changed.send().await);
        }
    }
    finish(&app, SAMPLES.iter().filter(|sample| !sample.signs_body).count()).await;
}

#[tokio::test]
async fn a_time_outside_the_tolerance_is_refused_in_both_directions() {
    let app = start().await;
    let timed = SAMPLES.iter().filter_map(|sample| Some((sample, sample.tolerance?)));
    let mut jobs = 0;
    for (sample, tolerance) in timed {
        let at = |second| call(&app, sample, signed(sample, sample, 0, second));
        refused(&app, sample, at(now() - tolerance - 1), STALE, &["too_old"]).await;
        // The clock goes on until the delivery arrives.
        refused(&app, sample, at(now() + tolerance + 3600), STALE, &["too_early"]).await;
        let halves = [now() - tolerance / 2, now() + tolerance / 2];
        for (key, second) in KEYS.into_iter().zip(halves) {
            let call = call(&app, sample, signed(sample, sample, key, second));
            assert_accepted(sample, &call.send().await);
            jobs += 1;
        }
    }
    assert!(jobs > 0);
    // The token of monday expires 300 s after it was made, and 300 s more are tolerated.
    let monday = sample_of("monday");
    let expired = call(&app, monday, signed(monday, monday, 0, now() - 601));
    refused(&app, monday, expired, STALE, &["too_old"]).await;
    finish(&app, jobs).await;
}
