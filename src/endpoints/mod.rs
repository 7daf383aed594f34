//! Endpoints: addresses for senders that sign their deliveries and know no credential of Hookgate.

pub mod failures;
mod named_verifications;
pub mod payload;
mod recent_map;
mod settings;
pub mod verification;
pub mod verify_command;

pub use crate::endpoints::named_verifications::NamedVerifications;
pub use crate::endpoints::settings::EndpointsSettings;
