//! Hookgate: webhook ingress for workflow engines that run on BullMQ.
//!
//! # The life of a request
//!
//! ```text
//! socket ─▶ route ─▶ authenticate ─▶ read body ─▶ parse webhook ─▶ match ─▶ enqueue ─▶ 202
//!                         │              │             │             │          │
//!                         └──────────────┴── Rejection ┴─────────────┴──────────┘─▶ 4xx / 5xx
//!
//! behind it:   MongoDB ═change streams═▶ mirror ─▶ triggers, callers        (memory, swapped under the readers)
//!              batcher ─▶ one script call for many requests ─▶ Redis ═▶ BullMQ workers
//! ```
//!
//! It stands in one function, `Ingress::accept` in [`ingress`]. A caller is made by [`auth`] alone,
//! a webhook by the parser alone, and a 202 is given when Redis has acknowledged every job.
//!
//! Modules in reading order: [`ingress`] is what happens to a request, [`auth`], [`triggers`] and
//! [`queue`] are whom it asks; [`mirror`] keeps the first two current; [`admin`] shows it all to
//! operators; [`app`] puts the parts together.

pub mod ingress;
pub mod auth;
pub mod triggers;
pub mod queue;
pub mod mirror;
pub mod admin;
pub mod app;
pub mod check;
pub mod config;
pub mod health;
pub mod memory;
pub mod reload;
pub mod workers;

pub mod admission;
pub mod descriptors;
pub mod dumpable;
pub mod failpoint;
pub mod file_access;
pub mod findings;
pub mod heartbeat;
pub mod hex;
pub mod ids;
pub mod lifecycle;
pub mod log_rate;
pub mod metrics;
pub mod pause;
pub mod printable;
pub mod settings;
pub mod supervisor;
pub mod telemetry;
pub mod text_file;
pub mod trust;
pub mod watched_file;

/// Version and git commit.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("HOOKGATE_COMMIT"), ")");
