//! Endpoints: addresses for senders that sign their deliveries and know no credential of Hookgate.

pub mod payload;
pub mod verification;
pub mod verify_command;
