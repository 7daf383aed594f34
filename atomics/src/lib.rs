//! What threads share without a lock: counters of what is in flight, token buckets, the phase of a
//! connection, and how current an index is.
//!
//! Each is a few words and knows nothing of its user, so that [loom](https://docs.rs/loom) can run
//! it in every interleaving that the memory model allows:
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p atomics --lib --target-dir target/loom
//! ```
//!
//! Without `--cfg loom`, the atomics are those of the standard library.

pub mod bucket;
pub mod currency;
pub mod in_flight;
#[cfg(loom)]
#[cfg(test)]
mod interleavings;
pub mod phase;

#[cfg(loom)]
use loom::sync::atomic;
#[cfg(not(loom))]
use std::sync::atomic;
