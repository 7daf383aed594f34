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

    /// Reads that of a shard. A `tls` section of its own, even an empty one, replaces that of
    /// `[queue]`. The default address must not appear in a fault.
    pub(in crate::queue) fn read_shard(section: &mut Section<'_>, default: &Self) -> Self {
        let has_own_tls = section.table_names().iter().any(|name| name == "tls");
        let own_tls = RedisTls::read(&mut section.section("tls"));
        let address = section.secret("redis", None).unwrap_or_else(|| default.address.clone());
        let is_own = has_own_tls || own_tls.has_files();
        let tls = if is_own { own_tls } else { default.tls.clone() };
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
