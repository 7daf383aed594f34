//! What is written to Redis, and what happens when Redis or the connection to it fails.

mod batching;
mod chaos;
mod deliveries;
mod exactly_once;
mod fan_out;
mod idempotency;
mod job_data;
mod jobs;
mod large_jobs;
mod momentary;
mod outage;
mod overload;
mod parity;
mod paused;
mod redis_connection;
mod redis_faults;
mod redis_kinds;
mod refused_calls;
mod staged_jobs;
mod replicas;
mod script_model;
mod workers;
mod wrong_replies;
