//! A complete load, next to the bare driver that drains the same cursor.

use crate::collection::{Workflows, organization, webhook};
use crate::follower::{Follower, shows};
use crate::meter::{Clock, load_average, median};
use crate::new_runtime;
use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use hookgate::metrics::Metrics;
use hookgate::mirror::MirroredCollection;
use hookgate::settings::SettingsReader;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowCollection};
use mongodb::action::Aggregate;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection};
use testkit::Mongo;

/// Documents in a batch of Hookgate's loads.
const BATCH: u32 = 10_000;

pub fn measure(mongo: &Mongo, workflows: &Workflows, rounds: usize) {
    // The first read finds nothing in mongod's cache, so it is not measured.
    drain(workflows);
    let mut spent: [Vec<[f64; 3]>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..3 {
            let which = (round + turn) % 3;
            let clock = Clock::start(&[mongo.process().pid()]);
            match which {
                0 => load(workflows),
                1 => drain(workflows),
                _ => drain_batches(workflows),
            }
            let [wall, own, mongod] = clock.stop()[..] else { unreachable!() };
            spent[which].push([wall, own, mongod]);
        }
        eprintln!("load: round {} of {rounds}", round + 1);
    }
    let names =
        ["Hookgate", "the driver, counting documents", "the driver, counting in whole batches"];
    let medians =
        spent.map(|rounds| [0, 1, 2].map(|at| median(rounds.iter().map(|all| all[at]).collect())));
    println!(
        "\n| complete load of {} (load average {}) | s | of the driver | CPU, s | CPU of mongod, s |\n|---|--:|--:|--:|--:|",
        workflows.count,
        load_average()
    );
    for (name, [wall, own, mongod]) in names.iter().zip(medians) {
        println!("| {name} | {wall:.2} | {:.2} | {own:.2} | {mongod:.2} |", wall / medians[1][0]);
    }
}

/// Loads from an empty index to one that is ready.
fn load(workflows: &Workflows) {
    let follower = Follower::start(workflows);
    for n in [0, workflows.count / 2, workflows.count - 1] {
        assert!(shows(&follower.index, &organization(n), &webhook(n)), "{n} is there");
    }
}

fn drain(workflows: &Workflows) {
    let count = new_runtime().block_on(async {
        let collection = with_own_client(workflows).await;
        let mut cursor = projected(&collection).with_type::<RawDocumentBuf>().await.unwrap();
        let mut count = 0;
        while cursor.try_next().await.unwrap().is_some() {
            count += 1;
        }
        count
    });
    assert_eq!(count, workflows.count);
}

pub fn drain_batches(workflows: &Workflows) {
    let count = new_runtime().block_on(async {
        let collection = with_own_client(workflows).await;
        let mut batches = projected(&collection).batch().await.unwrap();
        let mut count = 0;
        while let Some(batch) = batches.try_next().await.unwrap() {
            count += batch.doc_slices().unwrap().into_iter().count() as u64;
        }
        count
    });
    assert_eq!(count, workflows.count);
}

/// The collection over a client that has yet to connect, like Hookgate's.
async fn with_own_client(workflows: &Workflows) -> Collection<Document> {
    let client = Client::with_uri_str(workflows.database.uri()).await.unwrap();
    client.database(workflows.database.name()).collection("workflows")
}

/// The cursor of Hookgate's loads.
fn projected(collection: &Collection<Document>) -> Aggregate<'_> {
    let triggers = TriggersSettings::read(&mut SettingsReader::default().section("triggers"));
    let index = TriggerIndex::new(&triggers);
    let workflows =
        WorkflowCollection::new(&triggers, &index, Metrics::new("bench", "bench").unwrap());
    collection
        .aggregate([doc! { "$project": workflows.projection() }])
        .batch_size(BATCH)
        .read_concern(ReadConcern::majority())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
}
