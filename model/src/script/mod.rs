//! What `src/queue/batch/add_jobs.lua` decides and keeps, in plain Rust.
//!
//! [`Redis`] is what the server holds for one queue. [`Batch`] is one call of the script, which
//! [`Redis::add_jobs`] executes in the order of the script. A test in `tests/it/queue/model.rs`
//! holds it against the real script on a real Redis.

mod batch;
mod errors;
mod execution;
mod redis;
mod reply;
mod writes;
#[cfg(test)]
mod tests;

pub use batch::{Batch, IdempotencyKey, Keys, PausedLayout, Request};
pub use errors::{Command, RedisError, Refusal};
pub use redis::{Counter, Job, KeyRecord, Meta, ProducerRecord, Redis};
pub use reply::{BatchResult, Outcome, Reply};

/// Text that many states share.
pub type Text = std::sync::Arc<str>;
