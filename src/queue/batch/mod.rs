//! Batches of requests: collected, sent in one script call, and settled.
//!
//! Each result type belongs to one step:
//!
//! - `ScriptError`: one attempt.
//! - `Unacknowledged`: a batch that was given up.
//! - `DeliveryEnd`: a batch on the shared connection.
//! - `Unsettled`, `IsolatedOutcome` and `BatchStatus`: isolation.
//! - `Refusal`: one request.
//! - `EnqueueError`: what callers of the queue get.

pub(in crate::queue) mod batcher;
pub(in crate::queue) mod pending;
pub(in crate::queue) mod settings;
pub(in crate::queue) mod unacknowledged;
pub(in crate::queue) mod delivery;
pub(in crate::queue) mod isolation;
pub(in crate::queue) mod producer;
pub(in crate::queue) mod script;
pub(in crate::queue) mod sender;
mod spans;
pub(in crate::queue) mod staging;
