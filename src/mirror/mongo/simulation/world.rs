//! The world of a simulation: the replica set, the faults that it has at the moment, and the index.

use crate::mirror::mongo::simulation::checks::{Checks, Readers};
use crate::mirror::mongo::simulation::mutation::Mutation;
use crate::mirror::mongo::simulation::server::{ClusterTime, Place, Server};
use crate::mirror::mongo::simulation::trace::Trace;
use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// The faults at the moment.
#[derive(Debug)]
struct Faults {
    /// The number of the connection; connections of lower numbers are closed.
    connection: u32,
    /// The number of the primary; cursors of others are gone.
    primary: u32,
    down_until: Instant,
    frozen_until: Instant,
    /// How often commands are refused with a code, or with a closed connection for 0.
    refusals: (f64, i32),
    /// The longest latency in milliseconds.
    latency: u64,
    forgets_moments: bool,
}

/// What the mutations of the server have to know.
#[derive(Debug, Default)]
struct Remembered {
    loads: u32,
    load_began_at: ClusterTime,
    sent: Place,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) itself: Weak<Self>,
    pub(super) mutation: Option<Mutation>,
    pub(super) readers: Readers,
    server: Mutex<Server>,
    random: Mutex<Rng>,
    faults: Mutex<Faults>,
    remembered: Mutex<Remembered>,
    checks: Mutex<Checks>,
    trace: Mutex<Trace>,
    /// Changes when the majority advances, and with each fault.
    changes: Notify,
}

impl World {
    pub(super) fn new(server: Server, readers: Readers, random: Rng, trace: Trace) -> Arc<Self> {
        let now = Instant::now();
        let faults = Faults {
            connection: 0,
            primary: 0,
            down_until: now,
            frozen_until: now,
            refusals: (0.0, 0),
            latency: 3,
            forgets_moments: false,
        };
        Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            mutation: readers.mutation,
            readers,
            server: Mutex::new(server),
            random: Mutex::new(random),
            faults: Mutex::new(faults),
            remembered: Mutex::default(),
            checks: Mutex::default(),
            trace: Mutex::new(trace),
            changes: Notify::new(),
        })
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock()
    }

    /// The next change. (A `watch` of tokio wakes its receivers in a random order.)
    pub(super) fn change(&self) -> Notified<'_> {
        self.changes.notified()
    }

    pub(super) fn notify(&self) {
        self.changes.notify_waiters();
    }

    pub(super) fn trace(&self, what: &'static str, value: u64) {
        self.trace.lock().add(what, value);
    }

    /// The trace as a number, and its lines if they are kept.
    pub(super) fn take_trace(&self) -> Trace {
        std::mem::take(&mut self.trace.lock())
    }

    /// Checks what every lookup answers at this moment.
    pub(super) fn check(&self) {
        let mut checks = self.checks.lock();
        if let Some(answers) = checks.look_up(&self.readers, &self.server()) {
            self.trace("answers", answers);
        }
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.checks.lock().violation.clone()
    }

    pub(super) fn check_counts(&self) -> [u64; 3] {
        self.checks.lock().counts
    }

    // Random choices.

    pub(super) fn is_drawn(&self, probability: f64) -> bool {
        self.random.lock().f64() < probability
    }

    pub(super) fn draw(&self, range: Range<usize>) -> usize {
        self.random.lock().usize(range)
    }

    pub(super) fn draw_time(&self, longest_milliseconds: u64) -> Duration {
        Duration::from_micros(self.random.lock().u64(0..=longest_milliseconds * 1000))
    }

    /// The time that a request or a reply travels. Some take longer than any limit.
    pub(super) fn latency(&self) -> Duration {
        let longest = self.faults.lock().latency;
        match self.draw(0..200) {
            0 => self.draw_time(400),
            1 if longest > 100 => self.draw_time(15_000),
            _ => self.draw_time(longest),
        }
    }

    // Faults.

    pub(super) fn connection(&self) -> u32 {
        self.faults.lock().connection
    }

    pub(super) fn primary(&self) -> u32 {
        self.faults.lock().primary
    }

    pub(super) fn is_down(&self) -> bool {
        Instant::now() < self.faults.lock().down_until
    }

    pub(super) fn frozen_until(&self) -> Option<Instant> {
        Some(self.faults.lock().frozen_until).filter(|until| Instant::now() < *until)
    }

    pub(super) fn forgets_moments(&self) -> bool {
        self.faults.lock().forgets_moments
    }

    /// The code with which a command is refused, if it is.
    pub(super) fn refusal(&self) -> Option<i32> {
        let (probability, code) = self.faults.lock().refusals;
        self.is_drawn(probability).then_some(code)
    }

    pub(super) fn cut(&self) {
        self.faults.lock().connection += 1;
        self.notify();
    }

    pub(super) fn kill_cursors(&self) {
        self.faults.lock().primary += 1;
        self.notify();
    }

    pub(super) fn go_down(&self, time: Duration) {
        self.faults.lock().down_until = Instant::now() + time;
        self.kill_cursors();
        self.cut();
    }

    pub(super) fn freeze(&self, time: Duration) {
        self.faults.lock().frozen_until = Instant::now() + time;
    }

    pub(super) fn refuse(&self, probability: f64, code: i32) {
        self.faults.lock().refusals = (probability, code);
    }

    pub(super) fn set_latency(&self, longest_milliseconds: u64) {
        self.faults.lock().latency = longest_milliseconds;
    }

    pub(super) fn forget_moments(&self, forgets: bool) {
        self.faults.lock().forgets_moments = forgets;
    }

    // What mutations need.

    pub(super) fn loads(&self) -> u32 {
        self.remembered.lock().loads
    }

    pub(super) fn load_has_ended(&self) {
        self.remembered.lock().loads += 1;
    }

    pub(super) fn load_begins(&self, time: ClusterTime) {
        self.remembered.lock().load_began_at = time;
    }

    pub(super) fn load_began_at(&self) -> ClusterTime {
        self.remembered.lock().load_began_at
    }

    pub(super) fn sent(&self, place: Place) {
        self.remembered.lock().sent = place;
    }

    pub(super) fn last_sent(&self) -> Place {
        self.remembered.lock().sent
    }
}
