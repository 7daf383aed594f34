//! The testkit's own proxies and fakes, held against real servers.

mod chaos;
mod fake_redis;
