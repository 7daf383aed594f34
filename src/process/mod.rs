//! The parts that any long-running process needs: life cycle, supervision, backoff, clocks and
//! system limits.

pub mod backoff;
pub mod dumpable;
pub mod failpoint;
pub mod file_limit;
pub mod findings;
pub mod heartbeat;
pub mod last_reload;
pub mod lifecycle;
pub mod log_throttle;
pub mod pulse;
pub mod service_manager;
pub mod supervisor;
pub mod unix_time;
