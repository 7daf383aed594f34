//! Documents of MongoDB and of files, and their index.

mod documents;
mod extremes;
mod faults;
mod history;
mod index;
mod model;
mod rights;
mod servers;
mod snapshot;
mod sources;
mod staleness;
mod unavailable;
