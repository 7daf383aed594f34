//! Random histories of workflows and of the connection to MongoDB. The index always ends up equal
//! to the collection, and meanwhile no caller starts a workflow of another organization.
//!
//! The nodes of a workflow carry the name of its organization and change together with it. A job
//! whose organization differs from that of its nodes was started by the wrong caller.

#![expect(clippy::print_stdout, reason = "a failed history must be visible")]
#![expect(clippy::indexing_slicing, reason = "a test panics")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc, oid::ObjectId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use testkit::agreement::agrees;
use testkit::documents::{trigger, workflow_of};
use testkit::mongo::{TestDatabase, document};
use testkit::{App, ChaosProxy, Documents, Mongo, chaos};
use tokio::time::Instant;

/// No history begins after this time; one takes some seconds.
const TIME: Duration = Duration::from_secs(45);
const HISTORIES: u8 = 8;
const STEPS: usize = 48;
/// Few, because a complete load would hide earlier faults.
const STEPS_BETWEEN_CHECKS: usize = 6;

const ORGANIZATIONS: [&str; 2] = ["org_a", "org_b"];
const WEBHOOKS: usize = 5;
const IDS: usize = 8;

/// Pause of the callers, so that Redis stays small.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
enum Step {
    /// The workflow with one of the ids now belongs to an organization and has these webhooks.
    Put(usize, usize, Vec<usize>),
    Delete(usize),
    Move(usize, usize),
    /// All workflows are replaced by a copy of the collection without one of them.
    Swap(usize),
    Drop,
    Restart,
    KillSessions,
    KillCursors,
    Cut,
    Refuse(i32),
}

fn step() -> impl Strategy<Value = Step> {
    let (id, organization) = (0..IDS, 0..ORGANIZATIONS.len());
    let codes = select(vec![286, 280, 136, 260, 43, 50, 189]);
    prop_oneof![
        16 => (id.clone(), organization.clone(), vec(0..WEBHOOKS, 0..4))
            .prop_map(|(id, organization, webhooks)| Step::Put(id, organization, webhooks)),
        8 => id.clone().prop_map(Step::Delete),
        8 => (id.clone(), organization).prop_map(|(id, organization)| Step::Move(id, organization)),
        1 => id.prop_map(Step::Swap),
        1 => Just(Step::Drop),
        1 => Just(Step::Restart),
        1 => Just(Step::KillSessions),
        1 => Just(Step::KillCursors),
        2 => Just(Step::Cut),
        2 => codes.prop_map(Step::Refuse),
    ]
}

/// Seeds are consecutive, so that a failed history can be run again.
#[tokio::test]
async fn random_histories_end_with_the_index_equal_to_the_collection() {
    let started = Instant::now();
    let mut seen = BTreeSet::new();
    for seed in 0..HISTORIES {
        if started.elapsed() > TIME {
            break;
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let steps = vec(step(), STEPS).new_tree(&mut runner).expect("steps").current();
        println!("history {seed}: {steps:?}");
        seen.extend(run(steps).await);
    }
    assert_eq!(seen.len(), ORGANIZATIONS.len(), "both organizations have started workflows");
}

/// Returns the organizations for which a workflow was started.
async fn run(steps: Vec<Step>) -> BTreeSet<String> {
    let mongo = Mongo::start().await;
    let database = mongo.database().await;
    let mut documents = Documents::two_organizations();
    documents.workflows.clear();
    database.insert(&documents).await;
    let proxy = ChaosProxy::before_port(mongo.port(), 6).await;
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
    let app = App::build().mongo(&database).config(|config| {
        config.set("mongodb.uri", uri).set("triggers.max_staleness", "10m");
    });
    let app = app.start().await;
    let is_over = AtomicBool::new(false);
    let history = async {
        let mut world = World { mongo, database, proxy };
        let removed: Vec<String> = (0..WEBHOOKS).map(webhook).collect();
        for some in steps.chunks(STEPS_BETWEEN_CHECKS) {
            for step in some {
                world.apply(step.clone()).await;
            }
            agrees(&app, &world.database, &removed).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(history, watch(&app, &is_over));
    app.assert_accounting().await;
    started_in_their_organization(&app).await
}

/// The database and the faults that change the workflows and the connection to them.
struct World {
    mongo: Mongo,
    database: TestDatabase,
    proxy: ChaosProxy,
}

impl World {
    async fn apply(&mut self, step: Step) {
        let workflows = self.database.workflows();
        match step {
            Step::Put(id, organization, webhooks) => {
                let organization = ORGANIZATIONS[organization];
                let nodes = webhooks.iter().map(|each| trigger(organization, &webhook(*each)));
                let nodes: Vec<Value> = nodes.collect();
                let mut put = document(workflow_of("", organization, json!(nodes)));
                put.insert("_id", bson_id(id));
                let put = workflows.replace_one(doc! { "_id": bson_id(id) }, put).upsert(true);
                put.await.expect("put");
            }
            Step::Delete(id) => {
                workflows.delete_one(doc! { "_id": bson_id(id) }).await.expect("deleted");
            }
            Step::Move(id, organization) => {
                let organization = ORGANIZATIONS[organization];
                let moved = doc! { "$set": {
                    "organizationId": organization, "nodes.$[].id": organization,
                } };
                workflows.update_one(doc! { "_id": bson_id(id) }, moved).await.expect("moved");
            }
            Step::Swap(id) => {
                let pipeline =
                    [doc! { "$match": { "_id": { "$ne": bson_id(id) } } }, doc! { "$out": "next" }];
                workflows.aggregate(pipeline).await.expect("copied");
                self.database.rename("next", "workflows").await;
            }
            Step::Drop => workflows.drop().await.expect("dropped"),
            Step::Restart => self.mongo.restart().await,
            Step::KillSessions => {
                self.admin(doc! { "killAllSessions": Bson::Array(Vec::new()) }).await;
            }
            Step::KillCursors => self.kill_cursors().await,
            Step::Cut => self.proxy.open().cut(chaos::Cut::Reset),
            Step::Refuse(code) => {
                let how = doc! { "errorCode": code };
                self.mongo.fail_times(3, &["getMore", "aggregate"], how).await;
            }
        }
    }

    async fn admin(&self, command: Document) {
        let admin = self.mongo.client().await.database("admin");
        admin.run_command(command).await.expect("mongod runs the command");
    }

    async fn kill_cursors(&self) {
        let admin = self.mongo.client().await.database("admin");
        let idle = doc! { "$currentOp": { "idleCursors": true } };
        let streams = doc! { "$match": { "type": "idleCursor", "ns": { "$regex": "workflows$" } } };
        let mut cursors = admin.aggregate([idle, streams]).await.expect("listed");
        while cursors.advance().await.expect("listed") {
            let cursor = cursors.deserialize_current().expect("a document");
            let id = cursor.get_document("cursor").and_then(|cursor| cursor.get_i64("cursorId"));
            let Ok(id) = id else { continue };
            let kill = doc! { "killCursors": "workflows", "cursors": [id] };
            self.database.database().run_command(kill).await.expect("killed");
        }
    }
}

/// Calls for both organizations until the history is over.
async fn watch(app: &App, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        for key in ["key_a", "key_b"] {
            for number in 0..WEBHOOKS {
                let reply = app.webhook(&webhook(number)).bearer(key).send().await;
                // An index that is not fresh denies nothing.
                if reply.status != 202 {
                    reply.assert_rejected(503, "index_unavailable");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn started_in_their_organization(app: &App) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for job in app.redis.queue().waiting().await {
        let data = job.data();
        let organization = job.at("/organizationId");
        let nodes = data["trigger"]["nodeIds"].as_array().expect("the nodes of a job");
        assert!(!nodes.is_empty() && nodes.iter().all(|node| *node == *organization), "{data}");
        seen.insert(organization);
    }
    seen
}

fn webhook(number: usize) -> String {
    format!("wh_{number}")
}

/// Some ids differ only in their type, and some are invalid for a workflow.
fn bson_id(number: usize) -> Bson {
    const DIGITS: &str = "65f0a1b2c3d4e5f6a7b8c9d0";
    match number {
        0 => Bson::ObjectId(ObjectId::parse_str(DIGITS).expect("digits of an id")),
        1 => Bson::from(DIGITS),
        2 => Bson::from("1"),
        3 => Bson::from(1),
        4 => Bson::from(doc! { "a": 1 }),
        5 => Bson::from(i64::MAX),
        _ => Bson::from(format!("wf_{number}")),
    }
}
