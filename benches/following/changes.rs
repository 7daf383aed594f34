//! The delay until requests see a change, at a rate and in bursts.
//!
//! For each change in progress a thread polls the index itself, with pauses of a tenth of a
//! millisecond. The delay is measured from the moment at which the change is sent to mongod, and
//! from the moment at which mongod has acknowledged it for the majority. No stream may report it
//! earlier.

use crate::collection::{Place, Workflows};
use crate::follower::{Follower, shows};
use crate::meter::{Clock, load_average, median, quantile};
use crate::others;
use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use testkit::Mongo;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Changes a second, and changes in one command.
const RATES: [(u32, u32); 2] = [(100, 1), (2000, 10)];

const BURST: usize = 50_000;
const BURST_WRITERS: usize = 4;
const BURST_COMMAND: usize = 500;

const LOOK_PAUSE: Duration = Duration::from_micros(100);

/// A run fails if a change takes longer than this.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn measure(mongo: &Mongo, workflows: &Workflows, seconds: Duration, rounds: usize) {
    let follower = Follower::start(workflows);
    let mut seen: [Vec<Seen>; 2] = Default::default();
    let mut cores: [Vec<[f64; 2]>; 2] = Default::default();
    let mut bursts = Vec::new();
    for round in 0..rounds {
        for (at, (rate, command)) in RATES.into_iter().enumerate() {
            let clock = Clock::start(&[mongo.process().pid()]);
            seen[at].extend(at_rate(&follower, workflows, rate, command, seconds));
            let [wall, own, mongod] = clock.stop()[..] else { unreachable!() };
            cores[at].push([own / wall, mongod / wall]);
        }
        bursts.push(burst(&follower, mongo, workflows));
        eprintln!("changes: round {} of {rounds}", round + 1);
    }
    println!(
        "\n| changes a second (load average {}) | sent to seen, ms: p50 | p99 | acknowledged to seen, ms: p50 | p99 | \
         cores of mongod | of all else |\n|--:|--:|--:|--:|--:|--:|--:|",
        load_average()
    );
    for ((rate, _), (seen, cores)) in RATES.iter().zip(seen.iter().zip(cores)) {
        let [sent, acknowledged] =
            [0, 1].map(|from| seen.iter().map(|all| all[from]).collect::<Vec<_>>());
        println!(
            "| {rate} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} |",
            quantile(sent.clone(), 500),
            quantile(sent, 990),
            quantile(acknowledged.clone(), 500),
            quantile(acknowledged, 990),
            median(cores.iter().map(|all| all[1]).collect()),
            median(cores.iter().map(|all| all[0]).collect()),
        );
    }
    println!(
        "\n| burst of {BURST} changes | s | changes a second | CPU of mongod, s | of all else, s |\n|---|--:|--:|--:|--:|"
    );
    let [written, seen, mongod, own] =
        [0, 1, 2, 3].map(|at| median(bursts.iter().map(|all| all[at]).collect()));
    let rate = |seconds| BURST as f64 / seconds;
    println!("| written by mongod | {written:.2} | {:.0} | | |", rate(written));
    println!("| all visible | {seen:.2} | {:.0} | {mongod:.2} | {own:.2} |", rate(seen));
}

/// Milliseconds until a change was visible: from its sending, and from its acknowledgement.
type Seen = [f64; 2];

fn at_rate(
    follower: &Follower,
    workflows: &Workflows,
    rate: u32,
    command: u32,
    seconds: Duration,
) -> Vec<Seen> {
    let (sender, places) = mpsc::channel();
    let index = Arc::clone(&follower.index);
    let looking = thread::spawn(move || {
        watch(&places, |place| shows(&index, &place.organization, &place.webhook))
    });
    let commands = u64::from(rate / command) * seconds.as_secs();
    let every = Duration::from_secs(1) * command / rate;
    let written: Vec<[Instant; 2]> = others().block_on(async {
        let mut ticks = tokio::time::interval(every);
        let mut writing = Vec::new();
        for _ in 0..commands {
            ticks.tick().await;
            let (updates, moved): (Vec<_>, Vec<_>) =
                (0..command).map(|_| workflows.change()).unzip();
            for place in moved {
                sender.send(place).unwrap();
            }
            let (workflows, sent) = (workflows.clone(), Instant::now());
            writing.push(tokio::spawn(async move {
                workflows.write(updates).await;
                vec![[sent, Instant::now()]; command as usize]
            }));
        }
        drop(sender);
        let mut written = Vec::new();
        for command in writing {
            written.extend(command.await.unwrap());
        }
        written
    });
    let seen = looking.join().unwrap();
    assert_eq!(seen.len(), written.len());
    let since =
        |from: Instant, seen: Instant| seen.saturating_duration_since(from).as_secs_f64() * 1e3;
    let each = written.iter().zip(seen);
    each.map(|([sent, acknowledged], seen)| [since(*sent, seen), since(*acknowledged, seen)])
        .collect()
}

/// The time at which each place was first visible, in the order of the channel.
fn watch(places: &mpsc::Receiver<Place>, shows: impl Fn(&Place) -> bool) -> Vec<Instant> {
    let mut seen: Vec<Option<Instant>> = Vec::new();
    let mut awaited: VecDeque<(usize, Place)> = VecDeque::new();
    let mut last_seen = Instant::now();
    loop {
        let is_over = loop {
            match places.try_recv() {
                Ok(place) => {
                    awaited.push_back((seen.len(), place));
                    seen.push(None);
                }
                Err(end) => break end == mpsc::TryRecvError::Disconnected,
            }
        };
        awaited.retain(|(number, place)| {
            let is_seen = shows(place);
            if is_seen {
                last_seen = Instant::now();
                seen[*number] = Some(last_seen);
            }
            !is_seen
        });
        if is_over && awaited.is_empty() {
            return seen.into_iter().map(Option::unwrap).collect();
        }
        assert!(
            awaited.is_empty() || last_seen.elapsed() < PATIENCE,
            "{:?} and others are not visible",
            awaited.front()
        );
        thread::park_timeout(LOOK_PAUSE);
    }
}

/// One writer's part of a burst.
async fn write_burst(workflows: Workflows) -> Vec<Place> {
    let mut places = Vec::new();
    for _ in 0..BURST / BURST_WRITERS / BURST_COMMAND {
        let (updates, moved): (Vec<_>, Vec<_>) =
            (0..BURST_COMMAND).map(|_| workflows.change()).unzip();
        workflows.write(updates).await;
        places.extend(moved);
    }
    places
}

/// Seconds until mongod had written all changes and until all were visible; CPU time of mongod and
/// of everything else until then.
fn burst(follower: &Follower, mongo: &Mongo, workflows: &Workflows) -> [f64; 4] {
    let clock = Clock::start(&[mongo.process().pid()]);
    let started = Instant::now();
    let places: Vec<Place> = others().block_on(async {
        let writers: JoinSet<_> =
            (0..BURST_WRITERS).map(|_| write_burst(workflows.clone())).collect();
        writers.join_all().await.into_iter().flatten().collect()
    });
    let written = started.elapsed().as_secs_f64();
    assert_eq!(places.len(), BURST);
    // A workflow that was changed twice has only its last place.
    let mut last: Vec<Option<Place>> = vec![None; usize::try_from(workflows.count).unwrap()];
    for place in places {
        let known = &mut last[usize::try_from(place.workflow).unwrap()];
        if known.as_ref().is_none_or(|known| known.serial < place.serial) {
            *known = Some(place);
        }
    }
    for place in last.into_iter().flatten() {
        while !follower.shows(&place) {
            assert!(started.elapsed() < PATIENCE, "{place:?} is not visible");
            thread::park_timeout(LOOK_PAUSE);
        }
    }
    let [wall, own, mongod] = clock.stop()[..] else { unreachable!() };
    [written, wall, mongod, own]
}
