//! Endpoints: addresses for senders that sign their deliveries and know no credential of Hookgate.

pub mod failures;
mod recent_map;
pub mod verification;
