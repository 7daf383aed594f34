//! The follower against a simulated MongoDB, on a paused clock.
//!
//! A seed draws a history of edits and faults. The code that follows is the real one, down to the
//! commands. While the simulation runs, every lookup is compared with the history of the
//! collection ([`checks`]); at its end, without further faults, the index must equal the
//! collection. A seed always gives the same run:
//!
//! ```sh
//! FOLLOWING_SEED=4711 cargo test --lib mirror::mongo::simulation -- --nocapture
//! FOLLOWING_SEEDS=1000000 cargo test --lib mirror::mongo::simulation -- --nocapture
//! ```
//!
//! Mutations switch safeguards of the follower off, and each must be found.

mod checks;
mod connection;
mod content;
mod mutation;
mod schedule;
mod search;
mod server;
mod trace;
mod world;
