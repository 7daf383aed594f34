//! Endpoints: addresses for senders that sign their deliveries and know no credential of Hookgate.

mod named_verifications;
mod settings;
pub mod verification;

pub use crate::endpoints::named_verifications::NamedVerifications;
pub use crate::endpoints::settings::EndpointsSettings;
