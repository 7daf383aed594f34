//! What takes long leaves turns to the other tasks of the thread.

use super::*;
use crate::lifecycle::Readiness;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Waits for a turn of another task of the thread, whatever is asked of it.
struct Slow(Receiver<()>);

/// Likewise, when it is dropped.
#[derive(Default)]
struct SlowLoad(Option<Receiver<()>>);

/// A task that waits for its turn for so long has none.
fn wait(turn: &Receiver<()>) {
    turn.recv_timeout(Duration::from_secs(60)).expect("another task has a turn");
}

impl Drop for SlowLoad {
    fn drop(&mut self) {
        self.0.iter().for_each(wait);
    }
}

impl View for Slow {
    const COLLECTION: Collection = Collection::Workflows;
    type Record = ();
    type Load = SlowLoad;

    fn projection(&self) -> Document {
        Document::new()
    }

    fn read(&self, _: &RawDocument) -> Result<(), Malformed> {
        Ok(())
    }

    fn left_out((): &()) -> LeftOut {
        LeftOut::default()
    }

    fn begin_load(&self) -> SlowLoad {
        SlowLoad::default()
    }

    fn load(&self, _: &mut SlowLoad, _: &DocumentKey, (): ()) {}

    fn finish_load(&mut self, _: SlowLoad) {
        wait(&self.0);
    }

    fn restore(&mut self, _: &Snapshot) {
        wait(&self.0);
    }

    fn apply(&mut self, _: Changes<Self>) {}
}

/// A mirror, and what another task says when it has a turn.
fn slow() -> (Mirror<Slow>, Sender<()>) {
    let (turn, turns) = channel();
    let metrics = Metrics::new("0", "0").unwrap();
    let freshness = Freshness::new(Duration::from_secs(1));
    let reporter = Readiness::default().part("workflows");
    (Mirror::new(Slow(turns), freshness, metrics, reporter), turn)
}

/// Runs something slow beside another task of the same thread.
async fn beside_another(turn: Sender<()>, slow: impl Future<Output = ()>) {
    let another = async { turn.send(()).unwrap() };
    tokio::join!(biased; slow, another);
}

#[tokio::test]
async fn to_put_a_load_in_place_leaves_turns_to_others() {
    let (mirror, turn) = slow();
    let load = mirror.begin_load();
    beside_another(turn, mirror.finish_load(load, LoadReason::Start)).await;
}

#[tokio::test]
async fn to_drop_a_load_leaves_turns_to_others() {
    let (turn, turns) = channel();
    let view = SlowLoad(Some(turns));
    let load = Load::<Slow> { view, documents: 0, malformed: HashSet::new() };
    beside_another(turn, Mirror::drop_load(load)).await;
}

#[tokio::test]
async fn to_restore_a_snapshot_leaves_turns_to_others() {
    let (mut mirror, turn) = slow();
    beside_another(turn, mirror.restore(Arc::new(Snapshot::of_nothing()))).await;
}
