//! The process: configuration, signals, limits, logs, metrics, the port of operators.

mod admin;
mod check_connect;
mod config;
mod drain;
mod hanging_files;
mod log;
mod logs;
mod machine;
mod metrics;
mod panics;
mod reload;
mod shutdown;
mod soak;
