//! The parts that any long-running process needs: life cycle, supervision, file access and system
//! limits.

pub mod backoff;
pub mod dumpable;
pub mod failpoint;
pub mod file_access;
pub mod file_limit;
pub mod findings;
pub mod heartbeat;
pub mod lifecycle;
pub mod log_throttle;
pub mod printable;
pub mod supervisor;
pub mod text_file;
pub mod tls_roots;
pub mod unix_time;
pub mod watched_file;
