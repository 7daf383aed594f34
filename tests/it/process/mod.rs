//! The process: configuration, signals, limits, logs, metrics, the operators' port.

mod admin;
mod check_connect;
mod config;
mod drain;
mod hanging_files;
mod hanging_tls;
mod log;
mod logs;
mod machine;
mod metrics;
mod panics;
mod reload;
mod shutdown;
mod slow_key_sets;
mod soak;
mod status;
mod status_page;
mod system_calls;
mod verify;
