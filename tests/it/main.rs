//! Black-box tests of the real binary against real servers, which the tests start. All tests are
//! one program, so that it links once:
//!
//! ```text
//! cargo test --test it                      all of them
//! cargo test --test it queue::              one subject
//! cargo test --test it mirror::snapshot     one file
//! ```

mod auth;
mod contract;
mod doubles;
mod endpoints;
mod http;
mod mirror;
mod networks;
mod process;
mod proxies;
mod queue;
mod reached;
mod sharding;
mod traces;
