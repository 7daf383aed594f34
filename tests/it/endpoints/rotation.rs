//! Reloads of named verifications while deliveries are sent: secrets are rotated, and organizations
//! get and lose a name.

use super::route::{BODY, INVALID, matched};
use serde_json::json;
use std::fs;
use testkit::deliveries::{endpoints, github_signature, verified_trigger};
use testkit::documents::workflow_of;
use testkit::http::Call;
use testkit::raw::Connection;
use testkit::{App, Documents, Reply};

const FIRST: &str = "the-first-secret-of-a-file-0123456789";
const SECOND: &str = "the-second-secret-of-a-file-0123456789";

const NAMED: &str = "endpoints.verification.ci";

/// Two organizations whose triggers refer to one name, which only `org_a` may; and its file.
async fn start() -> (App, String) {
    let workflow = |id: &str, organization: &str| {
        workflow_of(id, organization, json!([verified_trigger("n1", "wh_1", &json!("ci"))]))
    };
    let workflows = vec![workflow("wf_1", "org_a"), workflow("wf_b", "org_b")];
    let documents = Documents { workflows, ..Documents::two_organizations() };
    let build = App::build().documents(documents).config(endpoints);
    let file = build.file("secret", FIRST);
    let build = build.config(|config| {
        config.set(&format!("{NAMED}.scheme"), "github");
        config.set(&format!("{NAMED}.organizations"), vec!["org_a"]);
        config.set(&format!("{NAMED}.secret_files"), vec![file.clone()]);
    });
    (build.start().await, file)
}

fn delivery(app: &App, organization: &str, secret: &str) -> Call {
    let call = app.delivery(organization, "wh_1", BODY).header("content-type", "application/json");
    call.header("x-hub-signature-256", github_signature(secret, BODY.as_bytes()))
}

async fn send(app: &App, organization: &str, secret: &str) -> Reply {
    delivery(app, organization, secret).send().await
}

/// A delivery whose body is not complete yet.
struct Held {
    connection: Connection,
    rest: Vec<u8>,
}

impl Held {
    /// Sends the head and a part of the body, and waits until Hookgate reads the body.
    async fn begin(app: &App, call: Call, in_flight: usize) -> Self {
        let (head, body) = call.to_http1();
        let (part, rest) = body.split_at(1);
        let mut connection = Connection::open(app.hookgate.address()).await;
        connection.send([&head, part].concat()).await;
        app.in_flight(in_flight).await;
        Self { connection, rest: rest.to_vec() }
    }

    async fn finish(mut self) -> Reply {
        self.connection.send(&self.rest).await;
        self.connection.reply().await.expect("an answer")
    }
}

#[tokio::test]
async fn a_new_secret_of_a_file_replaces_the_old_one() {
    let (app, file) = start().await;
    assert_eq!(matched(&send(&app, "org_a", FIRST).await, 200), 1);
    send(&app, "org_a", SECOND).await.assert_rejected(401, INVALID);
    fs::write(&file, SECOND).expect("the test's own file");
    app.hookgate.reload().await;
    assert_eq!(matched(&send(&app, "org_a", SECOND).await, 200), 1);
    send(&app, "org_a", FIRST).await.assert_rejected(401, INVALID);
    app.redis.queue().waiting_exactly(2).await;
    app.assert_shows_none_of(&[FIRST, SECOND], &["wh_1"]).await;
}

#[tokio::test]
async fn both_secrets_of_a_list_are_accepted_until_one_is_removed() {
    let (mut app, file) = start().await;
    let second = format!("{file}.second");
    fs::write(&second, SECOND).expect("the test's own file");
    let key = format!("{NAMED}.secret_files");
    app.hookgate.config.set(&key, vec![file, second.clone()]);
    app.hookgate.reload().await;
    for secret in [FIRST, SECOND] {
        assert_eq!(matched(&send(&app, "org_a", secret).await, 200), 1);
    }
    app.hookgate.config.set(&key, vec![second]);
    app.hookgate.reload().await;
    send(&app, "org_a", FIRST).await.assert_rejected(401, INVALID);
    assert_eq!(matched(&send(&app, "org_a", SECOND).await, 200), 1);
}

#[tokio::test]
async fn a_name_is_for_its_organizations_only() {
    let (mut app, _) = start().await;
    let key = format!("{NAMED}.organizations");
    for organizations in [vec!["org_a"], vec!["org_a", "org_b"], vec!["org_b"]] {
        app.hookgate.config.set(&key, organizations.clone());
        app.hookgate.reload().await;
        for organization in ["org_a", "org_b"] {
            let reply = send(&app, organization, FIRST).await;
            if organizations.contains(&organization) {
                assert_eq!(matched(&reply, 200), 1, "{organization} of {organizations:?}");
            } else {
                reply.assert_rejected(404, "unknown_webhook");
            }
        }
    }
    let reason = "the configuration has no verification of this name for this organization";
    assert_eq!(app.preview_of("wh_1").await["excluded"][0]["reason"], reason);
    let jobs = app.redis.queue().waiting_exactly(4).await;
    let workflows: Vec<String> = jobs.iter().map(|job| job.at("/workflowId")).collect();
    assert_eq!(workflows, ["wf_1", "wf_1", "wf_b", "wf_b"]);
}

/// A delivery is verified as its address was when it arrived. Never is one accepted that starts
/// nothing.
#[tokio::test]
async fn a_delivery_that_is_held_over_a_reload_is_verified_as_when_it_arrived() {
    let (mut app, file) = start().await;
    let old = Held::begin(&app, delivery(&app, "org_a", FIRST), 1).await;
    let new = Held::begin(&app, delivery(&app, "org_a", SECOND), 2).await;
    fs::write(&file, SECOND).expect("the test's own file");
    app.hookgate.reload().await;
    assert_eq!(matched(&old.finish().await, 200), 1);
    new.finish().await.assert_rejected(401, INVALID);
    app.redis.queue().waiting_exactly(1).await;

    let held = Held::begin(&app, delivery(&app, "org_a", SECOND), 1).await;
    app.hookgate.config.set(&format!("{NAMED}.organizations"), vec!["org_b"]);
    app.hookgate.reload().await;
    send(&app, "org_a", SECOND).await.assert_rejected(404, "unknown_webhook");
    assert_eq!(matched(&held.finish().await, 200), 1);
    app.redis.queue().waiting_exactly(2).await;
    app.assert_accounting().await;
}
