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
    /// `[queue]`. The default address must not appear in a fault. What is wrong with the defaults
    /// alone is left to [`Self::check_as_default`].
    pub(in crate::queue) fn read_shard(section: &mut Section<'_>, default: &Self) -> Self {
        let has_own_tls = section.table_names().iter().any(|name| name == "tls");
        let own_tls = RedisTls::read(&mut section.section("tls"));
        let own_address = section.secret("redis", None);
        let has_own_address = own_address.is_some();
        let has_own_tls = has_own_tls || own_tls.has_files();
        let tls = if has_own_tls { own_tls } else { default.tls.clone() };
        let server = Self { address: own_address.unwrap_or_else(|| default.address.clone()), tls };
        if has_own_address {
            server.check_address(section);
        }
        if has_own_address || has_own_tls {
            server.check_tls(section);
        }
        server
    }

    /// Records what is wrong with the address and its TLS, and its warnings.
    pub(in crate::queue) fn check(&self, section: &mut Section<'_>) {
        self.check_address(section);
        self.check_tls(section);
    }

    /// Likewise, for the defaults of these shards. A shard without an address of its own has this
    /// one, and the fault has the key that holds it.
    pub(in crate::queue) fn check_as_default<'a>(
        &self,
        section: &mut Section<'_>,
        shards: impl Iterator<Item = &'a Self> + Clone,
    ) {
        let mut heirs = shards.filter(|shard| shard.address == self.address);
        if heirs.clone().next().is_some() {
            self.check_address(section);
        }
        if heirs.any(|heir| heir.tls.shares_files_with(&self.tls)) {
            self.check_tls(section);
        }
    }

    fn check_address(&self, section: &mut Section<'_>) {
        match address::check(&self.address) {
            Ok(warnings) => warnings.iter().for_each(|warning| section.warning("redis", warning)),
            Err(message) => section.fault("redis", message),
        }
    }

    fn check_tls(&self, section: &mut Section<'_>) {
        if let Err(message) = address::check_tls(&self.address, &self.tls) {
            section.fault("redis", message);
        }
    }

    /// Whether both addresses name a node of the same cluster.
    pub(in crate::queue) fn is_cluster_of(&self, other: &Self) -> bool {
        let nodes = |server: &Self| address::cluster_nodes(&server.address).unwrap_or_default();
        let others = nodes(other);
        nodes(self).iter().any(|node| others.contains(node))
    }

    pub(in crate::queue) fn is_cluster(&self) -> bool {
        address::cluster_nodes(&self.address).is_some()
    }
}
