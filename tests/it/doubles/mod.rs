//! Tests of the testkit's proxies and fakes against real servers.

mod chaos;
mod fake_redis;
