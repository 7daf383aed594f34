//! Batches of requests: collected, sent in one script call, and settled.

pub(in crate::queue) mod batcher;
pub(in crate::queue) mod pending;
pub(in crate::queue) mod settings;
pub(in crate::queue) mod unacknowledged;
pub(in crate::queue) mod delivery;
pub(in crate::queue) mod isolation;
pub(in crate::queue) mod producer;
pub(in crate::queue) mod script;
pub(in crate::queue) mod sender;
pub(in crate::queue) mod staging;
