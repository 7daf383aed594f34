//! Documents of MongoDB and of files, and their index.

mod documents;
mod extremes;
mod faults;
mod filters;
mod foreign_documents;
mod history;
mod ids;
mod index;
mod model;
mod projection;
mod rights;
mod servers;
mod snapshot;
mod sources;
mod staleness;
mod unavailable;
