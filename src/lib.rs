//! Hookgate: webhook ingress for workflow engines that run on BullMQ.
//!
//! # The life of a request
//!
//! ```text
//! socket ─▶ route ─▶ authenticate ─▶ read body ─▶ parse webhook ─▶ match ─▶ enqueue ─▶ 202
//!                         │              │             │             │          │
//!                         └──────────────┴── Rejection ┴─────────────┴──────────┘─▶ 4xx / 5xx
//!
//! background:  MongoDB ═change streams═▶ mirror ─▶ triggers, callers   (swapped by shard)
//!              batcher ─▶ one script call for many requests ─▶ Redis ═▶ BullMQ workers
//! ```
//!
//! One function contains these steps, `Ingress::accept` in [`ingress`]. Only [`auth`] can create a
//! caller, only the parser can create a webhook, and the answer is 202 only if Redis has
//! acknowledged every job.
//!
//! Modules in reading order: [`ingress`] handles a request with the help of [`auth`], [`triggers`]
//! and [`queue`]; [`mirror`] keeps the first two current; [`admin`] is the port for operators;
//! [`app`] assembles the parts.

pub mod ingress;
pub mod http;
pub mod auth;
pub mod triggers;
pub mod endpoints;
pub mod queue;
pub mod mirror;
pub mod admin;
pub mod app;
pub mod config;

pub mod admission;
pub mod ids;
pub mod json;
pub mod metrics;
pub mod traces;
pub mod settings;
pub mod process;
pub mod files;
pub mod logging;

/// Version and git commit.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("HOOKGATE_COMMIT"), ")");
