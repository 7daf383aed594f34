//! How long putting a load in place blocks the other tasks of the following thread.

use crate::MILLION;
use crate::triggers::{document_at, webhook};
use hookgate::metrics::{LoadReason, Metrics};
use hookgate::mirror::Mirror;
use hookgate::mirror::document::DocumentKey;
use hookgate::process::lifecycle::Readiness;
use hookgate::settings::SettingsReader;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowCollection};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Loads a million workflows repeatedly on a thread that has another task.
pub fn print() {
    println!(
        "\n| putting 1,000,000 workflows in place | ms | longest without a turn, ms |\n|---|--:|--:|"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut mirror = empty();
        for what in ["into an empty index", "beside one in use", "again", "again"] {
            let mut load = mirror.begin_load();
            for n in 0..MILLION {
                let document = document_at(n, n, [webhook(n, 0)].into_iter());
                mirror.load(&mut load, &DocumentKey::from_document(&document).unwrap(), &document);
            }
            let begun = Instant::now();
            let longest = longest_turn(mirror.finish_load(load, LoadReason::Start)).await;
            println!("| {what} | {} | {} |", begun.elapsed().as_millis(), longest.as_millis());
        }
    });
}

fn empty() -> Mirror<WorkflowCollection> {
    let settings = TriggersSettings::read(&mut SettingsReader::default().section("triggers"));
    let index = TriggerIndex::new(&settings);
    let metrics = Metrics::new("", "").unwrap();
    let view = WorkflowCollection::new(&settings, &index, Arc::clone(&metrics));
    let reporter = Readiness::default().part("workflows");
    Mirror::new(view, Arc::clone(index.freshness()), metrics, reporter)
}

/// The longest time for which another task of the thread cannot run during `work`.
async fn longest_turn(work: impl Future<Output = ()>) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let mut work = std::pin::pin!(work);
    loop {
        let is_done = tokio::select! {
            () = &mut work => true,
            () = tokio::time::sleep(Duration::from_millis(1)) => false,
        };
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if is_done {
            return longest;
        }
    }
}
