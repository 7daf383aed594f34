//! Slow work on a mirror does not keep the other tasks of the thread from running.

use super::*;
use crate::metrics::Collection;
use crate::mirror::index::sharded::ShardedIndex;
use crate::mirror::index::writer::{Entry, Writer};
use crate::process::lifecycle::Readiness;
use bson::Document;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A collection that publishes a load only after another task of the thread has run.
struct SlowView(Receiver<()>);

/// The extras of a load, whose drop ends only after another task of the thread has run.
#[derive(Debug, Default)]
struct SlowExtras(Option<Receiver<()>>);

/// Blocks until another task of the thread has run. Panics if none runs.
fn wait_for_other_task(ran: &Receiver<()>) {
    ran.recv_timeout(Duration::from_secs(60)).expect("another task runs");
}

impl Drop for SlowExtras {
    fn drop(&mut self) {
        self.0.iter().for_each(wait_for_other_task);
    }
}

impl MirroredCollection for SlowView {
    const COLLECTION: Collection = Collection::Workflows;
    const INDEX_NAMES: [&'static str; 2] = ["first", "second"];

    type Record = ();
    type Extras = SlowExtras;

    fn indexes(&self) -> [Arc<ShardedIndex>; 2] {
        <[_; 2]>::default()
    }

    fn projection(&self) -> Document {
        Document::new()
    }

    fn read(&self, _: &RawDocument) -> Result<(), Malformed> {
        Ok(())
    }

    fn skipped((): &()) -> SkippedParts {
        SkippedParts::default()
    }

    fn entries(_: &DocumentKey, (): ()) -> [Vec<Entry>; 2] {
        <[_; 2]>::default()
    }

    fn on_load(&mut self, _: SlowExtras) {
        wait_for_other_task(&self.0);
    }

    fn on_change(&mut self, _: &DocumentKey, _: Option<&mut ()>) {}

    fn on_publish(&mut self, _: &[Writer; 2]) {}
}

/// A mirror with a slow collection, and what the other task sends when it runs.
fn slow_mirror() -> (Mirror<SlowView>, Sender<()>) {
    let (sender, receiver) = channel();
    let metrics = Metrics::new("0", "0").unwrap();
    let freshness = Freshness::new(Duration::from_secs(1));
    let reporter = Readiness::default().part("workflows");
    (Mirror::new(SlowView(receiver), freshness, metrics, reporter), sender)
}

/// Runs slow work together with another task of the same thread, which is polled second.
async fn with_another_task(sender: Sender<()>, slow: impl Future<Output = ()>) {
    let another = async { sender.send(()).unwrap() };
    tokio::join!(biased; slow, another);
}

#[tokio::test]
async fn other_tasks_run_while_a_load_is_published() {
    let (mirror, sender) = slow_mirror();
    let load = mirror.begin_load();
    with_another_task(sender, mirror.finish_load(load, LoadReason::Start)).await;
}

#[tokio::test]
async fn other_tasks_run_while_a_load_is_dropped() {
    let (mirror, _) = slow_mirror();
    let (sender, receiver) = channel();
    let mut load = mirror.begin_load();
    load.indexes.extras = SlowExtras(Some(receiver));
    with_another_task(sender, Mirror::drop_load(load)).await;
}

#[tokio::test]
async fn other_tasks_run_while_a_snapshot_is_restored() {
    let (mut mirror, sender) = slow_mirror();
    with_another_task(sender, mirror.restore(Arc::new(Snapshot::empty()))).await;
}
