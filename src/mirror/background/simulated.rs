//! Background work in a simulation, whose threads and times are part of its schedule.

use std::cell::Cell;
use std::time::Duration;
use tokio::time::sleep;

thread_local! {
    /// Whether this thread runs a simulation.
    pub(in crate::mirror) static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Runs work on this thread, at a moment of the simulation.
pub(super) async fn background<R>(work: impl FnOnce() -> R) -> R {
    sleep(Duration::from_millis(fastrand::u64(0..20))).await;
    let result = work();
    sleep(Duration::from_millis(fastrand::u64(0..20))).await;
    result
}
