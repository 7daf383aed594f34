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
pub mod job_data;
mod json;
pub mod jwk_set;
pub mod payload;
pub mod proxy_header;
pub mod route;
pub mod script_reply;
pub mod snapshot;
pub mod trace_context;

/// A target: its directory in `corpus/`, and its check.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 15] = [
    ("authorization", authorization::check),
    ("body", body::check),
    ("client_address", client_address::check),
    ("configuration", configuration::check),
    ("decoding", decoding::check),
    ("delivery", delivery::check),
    ("documents", documents::check),
    ("job_data", job_data::check),
    ("jwk_set", jwk_set::check),
    ("payload", payload::check),
    ("proxy_header", proxy_header::check),
    ("route", route::check),
    ("script_reply", script_reply::check),
    ("snapshot", snapshot::check),
    ("trace_context", trace_context::check),
];
