//! The format of BullMQ: keys, options and data of jobs.

pub(in crate::queue) mod data;
pub(in crate::queue) mod example;
pub(in crate::queue) mod head_filter;
pub(in crate::queue) mod idempotency;
pub(in crate::queue) mod job;
pub(in crate::queue) mod job_data;
mod json_string;
pub(in crate::queue) mod keys;
pub(in crate::queue) mod options;
mod placeholder;
pub(in crate::queue) mod request;
mod shape;
mod template;
pub(in crate::queue) mod template_fields;
#[cfg(test)]
mod template_properties;
pub(in crate::queue) mod trace;
