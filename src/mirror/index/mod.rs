//! The index in memory: a map from keys to postings that is read while it changes.

pub mod key;
pub mod load;
pub mod reverse_index;
pub mod shard;
pub mod sharded;
pub mod varint;
pub mod writer;
