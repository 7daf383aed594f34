//! Properties that must hold for any bytes from outside. Each module has a `check` that panics if
//! they do not.
//!
//! `fuzz_targets/` passes these to libFuzzer, and `tests/it/contract/fuzz_corpus.rs` replays
//! `corpus/` with them.

pub mod authorization;
pub mod body;
pub mod client_address;
pub mod configuration;
pub mod decoding;
pub mod delivery;
pub mod documents;
mod json;
pub mod payload;
pub mod route;

/// A target: its directory in `corpus/`, and its check.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 9] = [
    ("authorization", authorization::check),
    ("body", body::check),
    ("client_address", client_address::check),
    ("configuration", configuration::check),
    ("decoding", decoding::check),
    ("delivery", delivery::check),
    ("documents", documents::check),
    ("payload", payload::check),
    ("route", route::check),
];
