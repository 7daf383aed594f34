//! Reads how a Redis is reached: `redis` or `redis_file`, and the section `tls`.

use crate::queue::redis::address;
use crate::queue::redis::tls::RedisTls;
use crate::settings::{Secret, Section};

const DEFAULT: &str = "redis://127.0.0.1:6379/0";

/// The address of a Redis, and the TLS of its connections.
#[derive(Debug, Clone)]
pub(in crate::queue) struct RedisServer {
    pub(in crate::queue) address: Secret,
    pub(in crate::queue) tls: RedisTls,
}

impl RedisServer {
    /// Reads that of `[queue]`. It may only be the default of its shards, so it is not checked.
    pub(in crate::queue) fn read(section: &mut Section<'_>) -> Self {
        let tls = RedisTls::read(&mut section.section("tls"));
        let address = section.secret("redis", Some(DEFAULT));
        Self { address: address.unwrap_or_else(|| Secret::new(DEFAULT.to_owned())), tls }
    }

    /// Reads that of a shard. The default address must not appear in a fault.
    pub(in crate::queue) fn read_shard(section: &mut Section<'_>, default: &Self) -> Self {
        let tls = RedisTls::read(&mut section.section("tls"));
        let address = section.secret("redis", None).unwrap_or_else(|| default.address.clone());
        let inherits_tls = !tls.has_files() && address::is_tls(&address);
        let tls = if inherits_tls { default.tls.clone() } else { tls };
        let server = Self { address, tls };
        server.check(section);
        server
    }

    /// Records what is wrong with the address, and its warnings.
    pub(in crate::queue) fn check(&self, section: &mut Section<'_>) {
        match address::check(&self.address, &self.tls) {
            Ok(warnings) => warnings.iter().for_each(|warning| section.warning("redis", warning)),
            Err(message) => section.fault("redis", message),
        }
    }
}
