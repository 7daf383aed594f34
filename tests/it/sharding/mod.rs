//! Several queues: which one gets the jobs of an organization, and what each one's trouble is to the
//! others.

mod cluster;
mod growth;
mod load;
