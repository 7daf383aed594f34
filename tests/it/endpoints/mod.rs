//! Endpoints: addresses for senders that sign their deliveries.

mod route;
