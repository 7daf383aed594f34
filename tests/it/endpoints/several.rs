//! Several verifications at one address.

use super::route::{BODY, INVALID, SECRET, matched};
use serde_json::{Value, json};
use testkit::deliveries::{endpoints, verified_trigger};
use testkit::documents::workflow_of;
use testkit::wait::until;
use testkit::{App, Documents};

/// The most verifications of one address.
const MOST: usize = 16;

fn secret(number: usize) -> String {
    format!("secret-of-the-workflow-number-{number:02}")
}

/// A workflow of `org_a` with these verifications at one address.
fn workflow(id: &str, verifications: &[Value]) -> Value {
    let nodes = verifications.iter().enumerate();
    let nodes = nodes.map(|(number, each)| verified_trigger(&format!("n{number}"), "wh_1", each));
    workflow_of(id, "org_a", nodes.collect())
}

fn github(secret: &str) -> Value {
    json!({ "scheme": "github", "secret": secret })
}

async fn start(workflows: Vec<Value>) -> App {
    let documents = Documents { workflows, ..Documents::two_organizations() };
    App::build().documents(documents).config(endpoints).start().await
}

#[tokio::test]
async fn a_delivery_starts_what_any_of_several_schemes_accepts() {
    let token = json!({ "scheme": "header", "name": "X-Token", "secret": secret(1) });
    let app = start(vec![
        workflow("wf_1", &[github(SECRET), token]),
        workflow("wf_2", &[json!({ "scheme": "none" })]),
        workflow("wf_3", &[github(&secret(2))]),
    ])
    .await;
    let plain = || app.github_delivery("another secret of sixteen bytes", "d", BODY);
    let signed = |id: &str| app.github_delivery(SECRET, id, BODY);
    let rows = [
        (plain(), vec![("wf_2", json!(["n0"]))]),
        (signed("1"), vec![("wf_1", json!(["n0"])), ("wf_2", json!(["n0"]))]),
        (
            plain().header("x-token", secret(1)),
            vec![("wf_1", json!(["n1"])), ("wf_2", json!(["n0"]))],
        ),
        (
            signed("2").header("x-token", secret(1)),
            vec![("wf_1", json!(["n0", "n1"])), ("wf_2", json!(["n0"]))],
        ),
        (
            app.github_delivery(&secret(2), "3", BODY),
            vec![("wf_2", json!(["n0"])), ("wf_3", json!(["n0"]))],
        ),
    ];
    for (number, (call, expected)) in rows.into_iter().enumerate() {
        let reply = call.send().await;
        assert_eq!(matched(&reply, 200), expected.len() as u64, "row {number}");
        let jobs = app.redis.queue().waiting().await.into_iter().map(|job| job.data());
        let started: Vec<Value> =
            jobs.map(|data| json!([data["workflowId"], data["trigger"]["nodeIds"]])).collect();
        assert_eq!(json!(started), json!(expected), "row {number}");
        app.redis.queue().remove_jobs().await;
    }
    app.assert_shows_none_of(&[SECRET.to_owned(), secret(1), secret(2)], &["wh_1"]).await;
}

#[tokio::test]
async fn the_verification_after_the_sixteenth_is_excluded() {
    let mut workflows: Vec<Value> = (1..=MOST + 1)
        .map(|number| workflow(&format!("wf_{number:02}"), &[github(&secret(number))]))
        .collect();
    // One that is equal to another needs no room.
    workflows.push(workflow("wf_99", &[github(&secret(1))]));
    let app = start(workflows.clone()).await;
    let send = async |number: usize| {
        let id = format!("d-{number}-{}", fastrand::u64(..));
        app.github_delivery(&secret(number), &id, BODY).send().await
    };
    assert_eq!(matched(&send(1).await, 200), 2);
    for number in 2..=MOST {
        assert_eq!(matched(&send(number).await, 200), 1, "{number}");
    }
    send(MOST + 1).await.assert_rejected(401, INVALID);
    let preview = app.preview_of("wh_1").await;
    assert_eq!(preview["triggers"].as_array().map(Vec::len), Some(MOST + 1), "{preview}");
    let reason = "the address has more than 16 different verifications";
    let excluded = json!([{ "workflowId": "wf_17", "nodeId": "n0", "reason": reason }]);
    assert_eq!(preview["excluded"], excluded, "{preview}");
    app.redis.queue().waiting_exactly(MOST + 1).await;
    let secrets: Vec<String> = (1..=MOST + 1).map(secret).collect();
    app.assert_shows_none_of(&secrets, &["wh_1"]).await;

    // It has an endpoint once there is room.
    workflows.retain(|workflow| workflow["_id"] != "wf_05");
    app.replace_documents(&Documents { workflows, ..Documents::two_organizations() });
    until("the seventeenth is accepted", async || send(MOST + 1).await.status == 200).await;
    send(5).await.assert_rejected(401, INVALID);
    assert_eq!(app.preview_of("wh_1").await["excluded"], json!([]));
}
