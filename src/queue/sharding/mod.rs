//! Several queues: which of them gets the jobs of an organization.

pub(in crate::queue) mod hash;
pub(in crate::queue) mod settings;
pub(in crate::queue) mod shard_command;
pub(in crate::queue) mod shard_map;
