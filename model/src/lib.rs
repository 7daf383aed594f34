//! Models of what Hookgate relies on, for tests.
//!
//! | module | offers |
//! |---|---|
//! | [`script`] | [`script::Redis`]: what Redis holds for a queue, and what `add_jobs.lua` does to it |
//! | [`protocol`] | [`protocol::Protocol`]: processes that send batches over connections that break |
//! | [`search`](mod@search) | [`search::search`]: every state of a system, and shortest traces to violations |
//! | [`safeguards`] | [`Safeguards`]: the parts of the protocol that a test can remove |
//!
//! The crate depends on nothing. It knows no time but the one it is given, and draws no random
//! number, so whatever a test does with it can be repeated exactly.

pub mod protocol;
pub mod safeguards;
pub mod script;
pub mod search;

pub use safeguards::{Safeguard, Safeguards};
