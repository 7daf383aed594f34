//! The format of BullMQ: keys, options and data of jobs.

pub(in crate::queue) mod idempotency;
pub(in crate::queue) mod job;
pub(in crate::queue) mod keys;
pub(in crate::queue) mod options;
pub(in crate::queue) mod trace;
