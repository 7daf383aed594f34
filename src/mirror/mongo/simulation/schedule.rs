//! One run: a history of edits and faults that a seed has drawn.

use crate::metrics::Metrics;
use crate::mirror::background::simulated::IS_SIMULATED;
use crate::mirror::index::key::IndexKey;
use crate::mirror::index::sharded::{ShardLayout, ShardedIndex};
use crate::mirror::mongo::follow_at;
use crate::mirror::mongo::simulation::checks::Readers;
use crate::mirror::mongo::simulation::content::{
    Content, DOCUMENTS, KEYS, SimulatedCollection, State, answer, document_key, found,
};
use crate::mirror::mongo::simulation::mutation::Mutation;
use crate::mirror::mongo::simulation::server::Server;
use crate::mirror::mongo::simulation::trace::Trace;
use crate::mirror::mongo::simulation::world::World;
use crate::mirror::snapshot::{SavedIndex, Snapshot};
use crate::mirror::{CollectionIndexes, Freshness, Mirror, MirroredCollection};
use crate::process::lifecycle::Readiness;
use fastrand::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What a run has found.
pub(super) struct Outcome {
    pub(super) violation: Option<String>,
    pub(super) trace: Trace,
    /// The numbers of hits, believed misses and stale misses.
    pub(super) counts: [u64; 3],
}

/// How long the follower may take to be current after the last fault, in seconds. A limit that has
/// grown during the faults takes its time.
const LONGEST_RECOVERY: u32 = 30 * 60;

/// Runs the history of a seed.
pub(super) fn run(
    seed: u64,
    mutation: Option<Mutation>,
    metrics: &Arc<Metrics>,
    keeps_lines: bool,
) -> Outcome {
    fastrand::seed(seed);
    IS_SIMULATED.set(true);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(async {
        let mut random = Rng::with_seed(seed);
        let staleness = Duration::from_secs([1, 2, 5, 30][random.usize(..4)]);
        let freshness = Freshness::new(staleness);
        let index = new_index();
        let has_bursts = random.u8(..) < 8 || mutation == Some(Mutation::FullReply);
        let mut edits = Edits { random: random.fork(), version: 0, has_bursts };
        let state = edits.state();
        let trace = Trace::new(keeps_lines);
        let server = Server::new(state.clone());
        let readers = Readers { index: index.clone(), freshness: Arc::clone(&freshness), mutation };
        let world = World::new(server, readers, random.fork(), trace);
        let readiness = Readiness::default();
        let reporter = readiness.part("collection");
        let collection = SimulatedCollection(index);
        let mut mirror = Mirror::new(collection, freshness, Arc::clone(metrics), reporter);
        if random.u8(..) < 80 {
            // Another process has written it a while ago.
            let age = Duration::from_secs(random.u64(..100));
            let snapshot = snapshot(&state, age);
            edits.some(&world, 4);
            sleep(age).await;
            world.server().commit();
            mirror.restore(Arc::new(snapshot)).await;
            if mutation == Some(Mutation::SnapshotDenies) {
                world.readers.freshness.mark_current(Instant::now());
            }
        }
        run_world(&world, edits, mirror, &readiness).await
    });
    IS_SIMULATED.set(false);
    outcome
}

fn new_index() -> [Arc<ShardedIndex>; 2] {
    [(); 2].map(|()| Arc::new(ShardedIndex::new(ShardLayout::COLLIDING)))
}

/// The snapshot of another process.
fn snapshot(state: &State, age: Duration) -> Snapshot {
    let index = new_index();
    let collection = SimulatedCollection(index.clone());
    let mut indexes = CollectionIndexes::new(collection);
    let mut load = indexes.begin_load();
    for (document, content) in state.iter().filter(|(_, content)| !content.is_malformed) {
        load.upsert(&document_key(*document), content.clone());
    }
    indexes.finish_load(load);
    let table = |(name, map)| SavedIndex::new(name, &map, |_| true);
    let indexes = SimulatedCollection::INDEX_NAMES.into_iter().zip(index).map(table).collect();
    Snapshot::of_indexes(indexes, SystemTime::now() - age)
}

async fn run_world(
    world: &Arc<World>,
    mut edits: Edits,
    mirror: Mirror<SimulatedCollection>,
    readiness: &Readiness,
) -> Outcome {
    let end = Instant::now() + Duration::from_secs(3) + world.draw_time(20_000);
    let committing = tokio::spawn(commit(Arc::clone(world)));
    let reading = tokio::spawn(read(Arc::clone(world)));
    let mut faults = Faults { random: edits.random.fork() };
    let name = "collection".to_owned();
    let following = tokio::spawn(follow_at(Arc::clone(world), name, mirror));
    tokio::join!(biased; edits.run(world, end), faults.run(world, end));
    heal(world);
    let recovered = recover(world, readiness).await;
    following.abort();
    let is_panic = following.await.is_err_and(|error| error.is_panic());
    reading.abort();
    committing.abort();
    let panic = is_panic.then(|| "the follower has panicked".to_owned());
    let violation = panic.or_else(|| world.violation()).or_else(|| recovered.err());
    Outcome { violation, counts: world.check_counts(), trace: world.take_trace() }
}

/// Advances the majority, and writes to the oplog every ten seconds.
async fn commit(world: Arc<World>) {
    let mut noop = Instant::now() + Duration::from_secs(10);
    loop {
        let change = world.change();
        let next = world.server().next_commit().map_or(noop, |next| next.min(noop));
        let is_due = tokio::select! {
            biased;
            () = sleep_until(next) => true,
            () = change => false,
        };
        if is_due {
            if Instant::now() >= noop {
                world.server().noop();
                noop += Duration::from_secs(10);
            }
            world.server().commit();
            world.notify();
        }
    }
}

/// Looks up at random moments, and often soon after a change.
async fn read(world: Arc<World>) {
    loop {
        let longest = Duration::from_millis(50) + world.draw_time(400);
        drop(timeout(longest, world.change()).await);
        for _ in 0..2 {
            sleep(world.draw_time(6)).await;
            world.check();
        }
    }
}

/// Waits until the index equals the collection.
async fn recover(world: &Arc<World>, readiness: &Readiness) -> Result<(), String> {
    for _ in 0..LONGEST_RECOVERY {
        sleep(Duration::from_secs(1)).await;
        if world.violation().is_some() || (is_equal(world) && is_ready(world, readiness)) {
            return Ok(());
        }
    }
    let report = readiness.report();
    let equal = is_equal(world);
    Err(format!("after the last fault, the index is equal: {equal}; {report:?}"))
}

fn is_ready(world: &World, readiness: &Readiness) -> bool {
    let report = readiness.report();
    let exists = world.server().newest().collection.is_some();
    report.ready && report.degraded.is_empty() == exists
}

fn is_equal(world: &World) -> bool {
    let server = world.server();
    let state = &server.newest().state;
    let is_equal = |key: u8| {
        [true, false].into_iter().zip(&world.readers.index).all(|(is_active, index)| {
            index.read(IndexKey::new(&[key]), found) == answer(state, key, is_active)
        })
    };
    world.readers.freshness.can_confirm_miss() && (0..KEYS).all(is_equal)
}

/// Draws edits of the collection.
struct Edits {
    random: Rng,
    version: u32,
    /// Whether some edits are larger than a reply of the stream. They take long to simulate.
    has_bursts: bool,
}

impl Edits {
    async fn run(&mut self, world: &World, end: Instant) {
        while Instant::now() < end {
            let longest = if self.random.u8(..) < 150 { 30 } else { 4000 };
            sleep(Duration::from_micros(self.random.u64(..longest * 1000))).await;
            // A server that is down accepts no writes.
            if !world.is_down() {
                let count = 1 + self.random.usize(..3);
                self.some(world, count);
                world.notify();
            }
        }
    }

    /// Some edits at once.
    fn some(&mut self, world: &World, count: usize) {
        for _ in 0..count {
            let mut server = world.server();
            let state = State::clone(&server.newest().state);
            let lag =
                Duration::from_millis(if self.random.bool() { 0 } else { self.random.u64(..300) });
            let document = self.random.u8(..DOCUMENTS);
            let kind = self.random.u8(..);
            world.trace("edit", kind.into());
            match kind {
                0..90 => server.write(vec![(document, Some(self.content()))], lag),
                90..130 => server.write(vec![(document, None)], lag),
                130..220 => self.move_key(&mut server, &state, lag),
                220..245 => {
                    let other = (document + 1) % DOCUMENTS;
                    server.write(vec![(document, None), (other, Some(self.content()))], lag);
                }
                245..250 if self.has_bursts => self.burst(&mut server, lag),
                245..248 => server.drop_collection(),
                248..253 => {
                    let mut other = state;
                    other.remove(&document);
                    server.swap(other);
                }
                _ => server.noop(),
            }
        }
    }

    /// Moves a key from one document to another, so that one of them has it at every moment.
    fn move_key(&mut self, server: &mut Server, state: &State, lag: Duration) {
        let key = self.random.u8(..KEYS);
        let mut having = state.iter().filter(|(_, content)| content.keys.contains(&key));
        let Some((from, content)) = having.next() else { return };
        let to = (from + 1 + self.random.u8(..DOCUMENTS - 1)) % DOCUMENTS;
        let version = self.next_version();
        let mut without = Content { version, ..content.clone() };
        without.keys.remove(&key);
        let mut with = self.content();
        with.is_active = content.is_active;
        with.is_malformed = false;
        with.keys.insert(key);
        let changes = vec![(to, Some(with)), (*from, Some(without))];
        if self.random.bool() {
            server.write(changes, lag);
        } else {
            for change in changes {
                server.write(vec![change], lag);
            }
        }
    }

    /// More changes than a reply of the stream holds, then a transaction.
    fn burst(&mut self, server: &mut Server, lag: Duration) {
        let count = 940 + self.random.usize(..50);
        for _ in 0..count {
            let document = self.random.u8(..DOCUMENTS);
            let version = self.next_version();
            let mut content = server.newest().state.get(&document).cloned();
            if let Some(content) = &mut content {
                content.version = version;
            }
            server.write(vec![(document, content.or_else(|| Some(self.content())))], lag);
        }
        let state = State::clone(&server.newest().state);
        (0..30).for_each(|_| self.move_key(server, &state, lag));
    }

    fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    fn content(&mut self) -> Content {
        let count = self.random.usize(..3);
        let keys: BTreeSet<u8> = (0..count).map(|_| self.random.u8(..KEYS)).collect();
        Content {
            keys,
            is_active: self.random.u8(..) < 225,
            is_malformed: self.random.u8(..) < 10,
            version: self.next_version(),
        }
    }

    fn state(&mut self) -> State {
        let count = self.random.u8(..DOCUMENTS);
        (0..count).map(|document| (document, self.content())).collect()
    }
}

/// Draws faults.
struct Faults {
    random: Rng,
}

impl Faults {
    async fn run(&mut self, world: &World, end: Instant) {
        let pause = [500, 3000, 20_000][self.random.usize(..3)];
        while Instant::now() < end {
            sleep(Duration::from_millis(self.random.u64(..pause))).await;
            self.fault(world).await;
        }
    }

    async fn fault(&mut self, world: &World) {
        let kind = self.random.u8(..20);
        let time = Duration::from_millis(self.random.u64(..8000));
        world.trace("fault", kind.into());
        match kind {
            0..3 => world.cut(),
            3..5 => world.kill_cursors(),
            5 => world.go_down(time),
            6 => world.freeze(time * 5),
            7..10 => {
                let known = (self.random.usize(..4), time / 2);
                world.server().elect(self.random.usize(..4), known, self.random.u64(..3));
                world.go_down(if self.random.bool() { time } else { Duration::ZERO });
            }
            10..13 => {
                let codes = [0, 0, 43, 237, 286, 280, 136, 260, 50];
                world.refuse(self.random.f64(), codes[self.random.usize(..codes.len())]);
                sleep(time / 4).await;
                world.refuse(0.0, 0);
            }
            13 => world.set_latency([3, 30, 200, 2000][self.random.usize(..4)]),
            14 => world.server().trim(),
            15 => {
                // An outage that is longer than the oplog.
                world.go_down(time);
                world.server().trim();
            }
            16 => self.set_up_again(world),
            17 => {
                world.forget_moments(true);
                sleep(time).await;
                world.forget_moments(false);
            }
            _ => {
                world.set_latency(1000);
                sleep(time * 2).await;
                world.set_latency(3);
            }
        }
    }

    fn set_up_again(&mut self, world: &World) {
        let mut state = State::clone(&world.server().current().state);
        state.remove(&self.random.u8(..DOCUMENTS));
        world.go_down(Duration::from_millis(self.random.u64(1..3000)));
        world.server().set_up_again(state);
    }
}

/// Ends all faults but those that end by themselves.
fn heal(world: &World) {
    world.trace("heal", 0);
    world.set_latency(3);
    world.refuse(0.0, 0);
    world.forget_moments(false);
    world.notify();
}
